//! Child processes that misbehave: none outlives its manager, and none hides what happened.

use std::time::{Duration, Instant};

use arshai::config::{McpProtocol, McpServerConfig};
use arshai::mcp::{McpCall, McpServerHealth, McpServerManager};
use arshai::{Deadline, ErrorKind, Outcome};
use arshai_test_support::eventually;

use crate::support::{connected, installed, root};

/// A server that is odd in the way that `oddity` names.
fn odd(oddity: &str) -> McpServerConfig {
    let python = installed("mcp-python/bin/python");
    let script = root().join("tests/mcp/odd.py");
    McpServerConfig::stdio("odd", python.to_string_lossy(), [script.to_string_lossy().as_ref(), oddity])
}

async fn text(manager: &dyn McpServerManager, tool: &str) -> String {
    manager.call_tool(McpCall::new("odd", tool)).await.expect("it answers").text()
}

/// Whether the process runs; a zombie does not.
fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// Whether there is nothing left of the process, not even a zombie.
fn is_gone(pid: &str) -> bool {
    !std::path::Path::new("/proc").join(pid).exists()
}

async fn until_connected_again(manager: &dyn McpServerManager) {
    eventually("the server is back", Duration::from_secs(20), || {
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
        assert_eq!(server.tools, 3, "{oddity}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_ignores_end_of_input_and_sigterm_is_killed_by_the_deadline() {
    let (runtime, manager) = connected([odd("ignores_the_end")]).await;
    let pid = text(&*manager, "pid").await;
    let began = Instant::now();
    runtime.shutdown(Deadline::after(Duration::from_millis(500))).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    eventually("the child is gone", Duration::from_secs(5), || is_gone(&pid)).await;
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
        eventually("the grandchild is gone", Duration::from_secs(5), || !is_running(&grandchild)).await;
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
