//! Servers that are down, hang, exit or misbehave: the others are unaffected, errors come on time, nothing is left.

use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Deadline, ErrorKind, Outcome};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{arguments, connected, python, runtime, soon};

/// A server that accepts connections and never answers.
async fn mute() -> (McpServerConfig, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    (McpServerConfig::http("mute", url), listener)
}

fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_down_or_does_not_exist_leaves_the_others_usable() {
    let (hanging, _listener) = mute().await;
    let missing = McpServerConfig::stdio("missing", "/nonexistent/program", []);
    let exits = McpServerConfig::stdio("exits", "true", []);
    let mut refused = McpServerConfig::http("refused", "http://127.0.0.1:9/mcp");
    refused.required = true;
    let runtime = runtime([hanging, missing, exits, refused, python("python")]);
    let manager = runtime.mcp().expect("compiled in");
    let began = Instant::now();
    let error =
        manager.initialize(Deadline::after(Duration::from_secs(8))).await.expect_err("one is required");
    assert!(began.elapsed() < Duration::from_millis(8_200), "{:?}", began.elapsed());
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(manager.connected_servers(), ["python"], "{:?}", manager.servers());
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
    assert_eq!(manager.call_tool(call).await.expect("it answers").first_text(), Some("2"));
    for server in ["mute", "missing", "exits", "refused"] {
        let began = Instant::now();
        let error = manager.call_tool(McpCall::new(server, "any")).await.expect_err("it is down");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
        assert!(began.elapsed() < Duration::from_millis(100));
    }
    let unknown = manager.call_tool(McpCall::new("nobody", "any")).await.expect_err("it is not configured");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_exits_is_started_again() {
    let (_runtime, manager) = connected([python("python")]).await;
    let exit = McpCall::new("python", "exit").with_arguments(arguments(json!({"code": 3})));
    let error = manager.call_tool(exit).await.expect_err("it ends");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    until("the server is back", || {
        let server = &manager.servers()[0];
        server.connects == 2 && server.health == McpServerHealth::Healthy
    })
    .await;
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
    assert_eq!(manager.call_tool(call).await.expect("it answers again").first_text(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_exits_is_noticed_though_its_own_child_holds_the_pipes() {
    let script = r#"
import json, os, subprocess, sys
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method == "tools/call":
        subprocess.Popen(["sleep", "600"])
        os._exit(0)
    results = {"initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                              "serverInfo": {"name": "old", "version": "1"}},
               "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
    if id is not None:
        answer = {"result": results[method]} if method in results else {"error": {"code": -32601, "message": "no"}}
        print(json.dumps({"jsonrpc": "2.0", "id": id, **answer}), flush=True)
"#;
    let (_runtime, manager) = connected([McpServerConfig::stdio("child", "python3", ["-c", script])]).await;
    let began = Instant::now();
    let error = manager.call_tool(McpCall::new("child", "t")).await.expect_err("it exits");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "not at the deadline of 20 s: {:?}", began.elapsed());
    until("it is started again", || manager.servers()[0].connects == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_is_left_behind_not_even_a_grandchild() {
    for drop_only in [false, true] {
        let (runtime, manager) = connected([python("python")]).await;
        let pid = manager.call_tool(McpCall::new("python", "fork")).await.expect("it forks");
        let pid = pid.first_text().expect("a number").to_owned();
        assert!(is_running(&pid));
        if !drop_only {
            runtime.shutdown(soon()).await;
        }
        drop((runtime, manager));
        until("the grandchild is gone", || !is_running(&pid)).await;
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
