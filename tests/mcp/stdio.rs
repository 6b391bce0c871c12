//! Child processes that misbehave: none outlives its manager, and none hides what happened.

use std::time::{Duration, Instant};

use arshai::config::McpProtocol;
use arshai::mcp::{McpCall, McpServerHealth, McpServerManager};
use arshai::{Deadline, ErrorKind, Outcome};
use serde_json::json;

use crate::support::{arguments, connected, is_gone, is_running, odd, python, soon, until};

async fn text(manager: &dyn McpServerManager, tool: &str) -> String {
    manager.call_tool(McpCall::new("odd", tool)).await.expect("it answers").text()
}

async fn until_connected_again(manager: &dyn McpServerManager) {
    until("the server is back", || {
        let server = &manager.servers()[0];
        server.connects == 2 && server.health == McpServerHealth::Healthy
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_when_it_is_probed_is_reached_by_the_earlier_handshake() {
    for oddity in
        ["exits_when_probed", "answers_nothing_when_probed", "mute_when_probed", "rejects_the_probe"]
    {
        let (_runtime, manager) = connected([odd(oddity)]).await;
        let server = &manager.servers()[0];
        assert_eq!(server.protocol_version.as_deref(), Some("2025-11-25"), "{oddity}: {server:?}");
        assert_eq!(server.tools, 5, "{oddity}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_ignores_end_of_input_and_sigterm_is_killed_by_the_deadline() {
    let (runtime, manager) = connected([odd("ignores_the_end")]).await;
    let pid = text(&*manager, "pid").await;
    let began = Instant::now();
    runtime.shutdown(Deadline::after(Duration::from_millis(500))).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    until("the child is gone", || is_gone(&pid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grandchild_that_holds_the_pipes_does_not_hide_that_the_child_has_ended() {
    for oddity in ["none", "leaves_its_group"] {
        let (_runtime, manager) = connected([odd(oddity)]).await;
        let grandchild = text(&*manager, "fork").await;
        let began = Instant::now();
        let error = manager.call_tool(McpCall::new("odd", "exit")).await.expect_err("it ends");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "long before the call's own timeout");
        until_connected_again(&*manager).await;
        if oddity == "leaves_its_group" {
            // Out of reach, as it wanted; the test ends it.
            assert!(is_running(&grandchild));
            std::process::Command::new("kill").arg(&grandchild).status().expect("kill is there");
        }
        until("the grandchild is gone", || !is_running(&grandchild)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_killed_is_started_again() {
    let mut config = odd("none");
    config.protocol = McpProtocol::Initialize;
    let (_runtime, manager) = connected([config]).await;
    let pid = text(&*manager, "pid").await;
    std::process::Command::new("kill").args(["-KILL", &pid]).status().expect("kill is there");
    until_connected_again(&*manager).await;
    assert_ne!(text(&*manager, "pid").await, pid);
    assert!(is_gone(&pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_floods_stderr_is_not_held_up() {
    let (_runtime, manager) = connected([odd("floods_stderr")]).await;
    assert!(!text(&*manager, "pid").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_is_left_behind_not_even_a_grandchild() {
    for drop_only in [false, true] {
        let (runtime, manager) = connected([odd("none")]).await;
        let (child, grandchild) = (text(&*manager, "pid").await, text(&*manager, "fork").await);
        assert!(is_running(&child) && is_running(&grandchild));
        if !drop_only {
            runtime.shutdown(soon()).await;
        }
        drop((runtime, manager));
        until("both are gone", || is_gone(&child) && !is_running(&grandchild)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_sees_only_the_variables_it_is_given() {
    let mut config = python("python");
    config.env.insert("GIVEN".into(), "secret".to_owned().into());
    let (_runtime, manager) = connected([config]).await;
    let names = manager.call_tool(McpCall::new("python", "environment")).await.expect("it lists").text();
    assert!(names.contains("GIVEN") && names.contains("PATH"), "{names}");
    assert!(!names.contains("CARGO"), "{names}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_beyond_the_limit_is_an_error_of_that_call_alone() {
    let (_runtime, manager) = connected([python("python")]).await;
    // Far beyond the limit the connection ends, so that the call does not wait for its deadline.
    let huge = McpCall::new("python", "large").with_arguments(arguments(json!({"bytes": 20 << 20})));
    let error = manager.call_tool(huge).await.expect_err("it is too large");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    until("the server is back", || manager.servers()[0].connects == 2).await;
    let large = McpCall::new("python", "large").with_arguments(arguments(json!({"bytes": 5 << 20})));
    let error = manager.call_tool(large).await.expect_err("it is too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
    assert_eq!(manager.call_tool(call).await.expect("it answers").first_text(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_prints_what_is_no_message_between_its_messages_is_understood() {
    let (_runtime, manager) = connected([odd("chatty")]).await;
    assert!(!text(&*manager, "pid").await.is_empty(), "{:?}", manager.servers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_reads_no_more_holds_up_neither_a_call_beyond_its_deadline_nor_the_close() {
    let (runtime, manager) = connected([odd("none")]).await;
    let pid = text(&*manager, "pid").await;
    let call = |tool: &str, millis| {
        let large = arguments(json!({"text": "x".repeat(1 << 20)}));
        let deadline = Deadline::after(Duration::from_millis(millis));
        manager.call_tool(McpCall::new("odd", tool).with_arguments(large).with_deadline(deadline))
    };
    for tool in ["deafen", "pid", "pid"] {
        let began = Instant::now();
        let error = call(tool, 300).await.expect_err("nobody reads it");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
    }
    let began = Instant::now();
    runtime.shutdown(Deadline::after(Duration::from_millis(500))).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    until("the child is gone", || is_gone(&pid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_closes_its_output_is_replaced() {
    let (_runtime, manager) = connected([odd("none")]).await;
    let pid = text(&*manager, "pid").await;
    let error = manager.call_tool(McpCall::new("odd", "close")).await.expect_err("no answer can come");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    until_connected_again(&*manager).await;
    until("the first child is gone", || is_gone(&pid)).await;
}

#[test]
fn dropping_the_async_runtime_leaves_no_process_within_a_second() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (child, grandchild, _kept) = runtime.block_on(async {
        let (arshai, manager) = connected([odd("ignores_the_end")]).await;
        (text(&*manager, "pid").await, text(&*manager, "fork").await, arshai)
    });
    drop(runtime);
    let began = Instant::now();
    while is_running(&grandchild) || !is_gone(&child) {
        assert!(began.elapsed() < Duration::from_secs(1), "processes are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}
