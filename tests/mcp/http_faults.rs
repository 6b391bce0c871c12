//! HTTP servers that misbehave: the others are unaffected, errors come on time, nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerHealth, McpServerManager};
use arshai::{Arshai, Deadline, ErrorKind, Outcome};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::scripted::{Reply, Scripted, json_body, reply, text, tool, until};
use crate::support::{connected, connected_with, runtime_with, soon};

/// Time beyond the deadline plus 100 ms that a loaded machine may take.
const SLACK: Duration = Duration::from_millis(400);

/// Connections in use and tasks of the client.
fn in_use(runtime: &Arshai) -> (u64, usize) {
    let stats = runtime.stats();
    let limits = stats.components.iter().flat_map(|component| &component.limits);
    let connections =
        limits.filter(|limit| limit.key == "pool.max_connections").map(|limit| limit.used).sum();
    (connections, tokio::runtime::Handle::current().metrics().num_alive_tasks())
}

/// Calls the faulty server, within 300 ms, and checks what has to hold whatever it did.
async fn check(fault: &str, answer: impl Fn() -> Reply + Send + Sync + 'static) -> arshai::Error {
    let faulty = Scripted::start("faulty", move |request, _| match request.method() {
        "tools/call" => answer(),
        _ => Reply::Well,
    });
    let good = Scripted::start("good", |_, _| Reply::Well);
    let (runtime, manager) = connected([faulty.config.clone(), good.config.clone()]).await;
    manager.call_tool(McpCall::new("good", "pay")).await.expect("it works");
    let before = in_use(&runtime);
    let began = Instant::now();
    let deadline = Deadline::after(Duration::from_millis(300));
    let call = manager.call_tool(McpCall::new("faulty", "pay").with_deadline(deadline));
    let other = manager.call_tool(McpCall::new("good", "pay"));
    let (error, other) = tokio::join!(call, other);
    let elapsed = began.elapsed();
    let error = error.expect_err(fault);
    assert!(elapsed < Duration::from_millis(400) + SLACK, "{fault}: {elapsed:?}");
    assert_eq!(other.expect("the other is unaffected").first_text(), Some("done"), "{fault}");
    assert_eq!(faulty.seen("tools/call").len(), 1, "{fault}: never repeated");
    assert_eq!(error.outcome(), Outcome::Unknown, "{fault}: {error}");
    assert!(error.to_string().contains("mcp:faulty"), "{fault}: {error}");
    until(&format!("{fault}: {before:?} before, now {:?}", in_use(&runtime)), || {
        let now = in_use(&runtime);
        now.0 <= before.0 && now.1 <= before.1
    })
    .await;
    manager.call_tool(McpCall::new("good", "pay")).await.expect("it still works");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_or_too_late() {
    let error = check("never", || Reply::Never).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let late = || Reply::After(Duration::from_secs(2), json_body("{}"));
    assert_eq!(check("late", late).await.kind(), ErrorKind::Timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_in_the_middle_of_a_call() {
    let broken = |content_type: &'static str, beginning: &'static str| {
        move || {
            let chunks = [Ok(Bytes::from(beginning)), Err(std::io::Error::other("reset"))];
            let body = Body::from_stream(futures_util::stream::iter(chunks));
            Reply::Now(([("content-type", content_type)], body).into_response())
        }
    };
    for (content_type, beginning) in [
        ("application/json", "{\"jsonrpc\":"),
        ("text/event-stream", ": hello\n\n"),
        ("text/event-stream", "data: {"),
    ] {
        let error = check(content_type, broken(content_type, beginning)).await;
        assert_ne!(error.kind(), ErrorKind::Function, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_another_id() {
    let wrong = || {
        Reply::Now(json_body(
            json!({"jsonrpc": "2.0", "id": 999_999, "result": text("not yours")}).to_string(),
        ))
    };
    assert_eq!(check("another id", wrong).await.kind(), ErrorKind::Timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_no_json() {
    for body in ["{", "nothing", "[]", "{}", "{\"jsonrpc\":\"2.0\"}"] {
        let error = check(body, move || Reply::Now(json_body(body))).await;
        assert_eq!(error.kind(), ErrorKind::Protocol, "{body}: {error}");
    }
    let html = check("html", || Reply::Now(axum::response::Html("<p>").into_response())).await;
    assert_eq!(html.kind(), ErrorKind::Protocol, "{html}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_100_mib() {
    fn huge(content_type: &'static str) -> Response {
        let chunk = Bytes::from(vec![b'x'; 1 << 20]);
        let chunks =
            futures_util::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
        ([("content-type", content_type)], Body::from_stream(chunks)).into_response()
    }
    let server = Scripted::start("server", |request, before| match (request.method(), before) {
        ("tools/call", 0) => Reply::Now(huge("application/json")),
        ("tools/call", 1) => Reply::Now(huge("text/event-stream")),
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    for _ in 0..2 {
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("too large");
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert!(matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unavailable), "{error}");
    }
    manager.call_tool(McpCall::new("server", "pay")).await.expect("only those calls fail");
    assert_eq!(manager.servers()[0].connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_overloaded_for_a_while_is_connected_when_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let server = Scripted::start("server", move |_, _| match well.load(Ordering::SeqCst) {
        false => Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        true => Reply::Well,
    });
    let mut config = server.config.clone();
    config.max_retries = Some(1);
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::Error);
    assert!(status.error.as_ref().is_some_and(|error| error.contains("503")), "{status:?}");
    assert!(status.next_attempt.is_some_and(|next| next <= Duration::from_secs(1)), "{status:?}");
    until("it is attempted again and again", || manager.servers()[0].attempts >= 3).await;
    is_well.store(true, Ordering::SeqCst);
    until("it is connected", || manager.servers()[0].health == McpServerHealth::Healthy).await;
    manager.call_tool(McpCall::new("server", "pay")).await.expect("it works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_patience_at_connecting_gets_it() {
    for (status, retry_after) in [(StatusCode::TOO_MANY_REQUESTS, 60), (StatusCode::SERVICE_UNAVAILABLE, 90)]
    {
        let server = Scripted::start("server", move |_, _| {
            Reply::Now((status, [("retry-after", retry_after.to_string())]).into_response())
        });
        let mut config = server.config.clone();
        config.max_retries = Some(1);
        let (_runtime, manager) = connected([config]).await;
        let known = &manager.servers()[0];
        let next = known.next_attempt.expect("there is one");
        assert!(next > Duration::from_secs(retry_after - 10), "{known:?}");
        assert_eq!(server.seen("server/discover").len() + server.seen("initialize").len(), 1, "asked once");
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("down");
        assert!(
            error.retry_after().is_some_and(|after| after > Duration::from_secs(retry_after - 10)),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_servers_of_which_ten_hang_leave_the_other_ten_usable_in_time() {
    let good: Vec<_> = (0..10).map(|n| Scripted::start(&format!("good{n}"), |_, _| Reply::Well)).collect();
    let hanging: Vec<_> =
        (0..10).map(|n| Scripted::start(&format!("mute{n}"), |_, _| Reply::Never)).collect();
    let configs = good.iter().chain(&hanging).map(|server| {
        let mut config = server.config.clone();
        config.max_retries = Some(1);
        config
    });
    let runtime = runtime_with(configs, |config| config.mcp.connection_timeout = Duration::from_secs(4));
    let manager = runtime.mcp().expect("compiled in");
    let began = Instant::now();
    manager.initialize(soon()).await.expect("none is required");
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_millis(6_100) + SLACK, "1.5 times the timeout: {elapsed:?}");
    assert_eq!(manager.connected_servers().len(), 10, "{:?}", manager.servers());
    let calls = (0..10).map(|n| manager.call_tool(McpCall::new(format!("good{n}"), "pay")));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.expect("usable").first_text(), Some("done"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_leaves_no_task_and_no_connection() {
    let server = Scripted::start("mute", |_, _| Reply::Never);
    let mut config = server.config.clone();
    config.max_retries = Some(1);
    let runtime = runtime_with([config], |config| config.mcp.connection_timeout = Duration::from_millis(600));
    let manager = Arc::clone(runtime.mcp().expect("compiled in"));
    manager.initialize(soon()).await.expect("it is not required");
    let first = in_use(&runtime);
    for _ in 0..3 {
        manager.reconnect("mute", soon()).await.expect_err("it is mute");
    }
    until("nothing adds up", || {
        let now = in_use(&runtime);
        now.0 == 0 && now.1 <= first.1
    })
    .await;
    drop((manager, runtime));
    until("no task is left", || tokio::runtime::Handle::current().metrics().num_alive_tasks() == 0).await;
}

async fn listed(tools: serde_json::Value) -> (Arshai, Arc<dyn McpServerManager>, Scripted) {
    let server = Scripted::start("server", move |request, _| match request.method() {
        "tools/list" => Reply::Now(reply(request, json!({"tools": tools}))),
        _ => Reply::Well,
    });
    let (runtime, manager) = connected([server.config.clone()]).await;
    (runtime, manager, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_tools_lose_only_themselves() {
    let recursive = json!({"type": "object", "properties": {"child": {"$ref": "#"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}});
    let tools = json!([{"name": "bare"}, {"name": "recursive", "inputSchema": recursive},
        {"name": "n".repeat(10_000), "inputSchema": {"type": "object"}}, tool("good")]);
    let (_runtime, manager, _server) = listed(tools).await;
    let names: Vec<_> =
        manager.get_all_available_tools().into_iter().map(|tool| tool.original_name).collect();
    assert_eq!(names, ["bare", "recursive", "good"], "{:?}", manager.servers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_000_tools_the_first_thousand_are_offered() {
    let tools: Vec<_> = (0..100_000).map(|n| tool(&format!("tool{n}"))).collect();
    let (_runtime, manager, _server) = listed(json!(tools)).await;
    assert_eq!(manager.get_all_available_tools().len(), 1_000, "{:?}", manager.servers());
    manager.call_tool(McpCall::new("server", "tool0")).await.expect("it works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_at_private_addresses_are_refused_when_asked_for() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let by_name = McpServerConfig::http(
        "name",
        server.config.url.as_ref().expect("it has one").replace("127.0.0.1", "localhost"),
    );
    let mut configs = [server.config.clone(), by_name];
    configs.iter_mut().for_each(|config| config.max_retries = Some(1));
    let (_runtime, manager) =
        connected_with(configs, |config| config.mcp.deny_private_addresses = true).await;
    for status in manager.servers() {
        assert_eq!(status.health, McpServerHealth::Error, "{status:?}");
        assert!(status.error.as_ref().is_some_and(|error| error.contains("private address")), "{status:?}");
    }
    assert!(server.seen("server/discover").is_empty() && server.seen("initialize").is_empty());
}
