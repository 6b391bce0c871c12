//! Single calls on a shared connection: their headers and metadata, lost sessions, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Deadline, ErrorKind, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::scripted::{Reply, Scripted, initialized, reply, text, until};
use crate::support::{connected, python, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_meta_of_a_call_reach_that_call_and_no_other() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let mut config = server.config.clone();
    config.headers.insert("x-tenant".into(), "none".to_owned().into());
    let (_runtime, manager) = connected([config]).await;
    let call = |tenant: usize| {
        McpCall::new("server", "pay")
            .with_header("x-tenant", format!("t{tenant}"))
            .with_meta("tenant", json!(tenant))
            .with_token(format!("user-{tenant}"))
    };
    let calls = (0..10).map(|tenant| manager.call_tool(call(tenant)));
    let plain = (0..10).map(|_| manager.call_tool(McpCall::new("server", "pay")));
    let (calls, plain) =
        tokio::join!(futures_util::future::join_all(calls), futures_util::future::join_all(plain));
    assert!(calls.iter().chain(&plain).all(Result::is_ok));
    let (mut own, mut common) = (0, 0);
    for request in server.seen("tools/call") {
        let tenant = request.header("x-tenant").expect("a tenant").to_owned();
        match request.message["params"]["_meta"]["tenant"].as_u64() {
            Some(number) => {
                assert_eq!(tenant, format!("t{number}"));
                assert_eq!(request.header("authorization"), Some(format!("Bearer user-{number}").as_str()));
                own += 1;
            }
            None => {
                assert_eq!((tenant.as_str(), request.header("authorization")), ("none", None));
                common += 1;
            }
        }
    }
    assert_eq!((own, common), (10, 10));
    for other in ["initialize", "tools/list", "notifications/initialized"] {
        assert_eq!(server.seen(other)[0].header("authorization"), None, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_cannot_set_what_belongs_to_the_protocol() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let (_runtime, manager) = connected([server.config.clone(), python("child")]).await;
    let wrong = [
        McpCall::new("server", "pay").with_header("Mcp-Session-Id", "s2".to_owned()),
        McpCall::new("server", "pay").with_header("MCP-Protocol-Version", "1".to_owned()),
        McpCall::new("server", "pay").with_header("mcp-param-x", "1".to_owned()),
        McpCall::new("server", "pay").with_header("Host", "elsewhere".to_owned()),
        McpCall::new("server", "pay").with_header("content-length", "0".to_owned()),
        McpCall::new("server", "pay").with_header("bad name", "1".to_owned()),
        McpCall::new("server", "pay").with_header("x", "line\r\nbreak".to_owned()),
        McpCall::new("server", "pay").with_token("line\nbreak".to_owned()),
        McpCall::new("server", "pay").with_meta("progressToken", json!(7)),
        McpCall::new("server", "pay").with_meta("io.modelcontextprotocol/protocolVersion", json!("1")),
        McpCall::new("child", "add").with_header("x-tenant", "t".to_owned()),
    ];
    for call in wrong {
        let error = manager.call_tool(call).await.expect_err("rejected");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidInput, Outcome::NotSent), "{error}");
        assert!(!error.to_string().contains("break"), "no value is shown: {error}");
    }
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_recovery_of_an_expired_session_serves_all_callers_that_come_meanwhile() {
    let server = Scripted::start("server", |request, before| match request.method() {
        // The second handshake takes its time, so that calls come while it runs.
        "initialize" if before == 1 => {
            Reply::After(Duration::from_millis(300), initialized(request, "2025-11-25", Some("s2")))
        }
        "tools/call" if request.header("mcp-session-id") == Some("s1") => {
            Reply::Now(StatusCode::NOT_FOUND.into_response())
        }
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let expired =
        manager.call_tool(McpCall::new("server", "pay")).await.expect_err("the session has expired");
    assert_eq!((expired.kind(), expired.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{expired}");
    let calls = (0..20).map(|_| manager.call_tool(McpCall::new("server", "pay")));
    for result in futures_util::future::join_all(calls).await {
        assert_eq!(result.expect("they wait for the new session").first_text(), Some("done"));
    }
    assert_eq!(server.seen("initialize").len(), 2, "one recovery");
    let status = &manager.servers()[0];
    assert_eq!((status.sessions, status.connects), (2, 2), "{status:?}");
    assert!(status.last_error.as_ref().is_some_and(|error| error.contains("expired")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_caller_waits_no_longer_than_its_deadline() {
    let server = Scripted::start("server", |request, before| match request.method() {
        "server/discover" if before > 0 => Reply::Never,
        "initialize" if before > 0 => Reply::Never,
        "tools/call" => Reply::Now(StatusCode::NOT_FOUND.into_response()),
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    manager.call_tool(McpCall::new("server", "pay")).await.expect_err("the session has expired");
    let began = Instant::now();
    let call = McpCall::new("server", "pay").with_deadline(Deadline::after(Duration::from_millis(300)));
    let error = manager.call_tool(call).await.expect_err("no session in time");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    assert!(began.elapsed() < Duration::from_millis(1_000), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_running_calls_and_for_a_hanging_delete_only_so_long() {
    let server = Scripted::start("server", |request, _| match request.method() {
        "tools/call" => Reply::After(Duration::from_millis(500), reply(request, text("done"))),
        "DELETE" => Reply::Never,
        _ => Reply::Well,
    });
    let (runtime, manager) = connected([server.config.clone()]).await;
    let call = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.call_tool(McpCall::new("server", "pay")).await }
    });
    until("the call runs", || !server.seen("tools/call").is_empty()).await;
    let began = Instant::now();
    let report = runtime.shutdown(soon()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(call.await.expect("no panic").expect("it could end").first_text(), Some("done"));
    assert_eq!(server.seen("DELETE").len(), 1, "the session is ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlasts_the_close_is_aborted_by_its_deadline() {
    let server = Scripted::start("server", |request, _| match request.method() {
        "tools/call" => Reply::Never,
        _ => Reply::Well,
    });
    let (runtime, manager) = connected([server.config.clone()]).await;
    let call = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.call_tool(McpCall::new("server", "pay")).await }
    });
    until("the call runs", || !server.seen("tools/call").is_empty()).await;
    let began = Instant::now();
    let report = runtime.shutdown(Deadline::after(Duration::from_millis(300))).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!report.is_clean());
    let error = call.await.expect("no panic").expect_err("aborted");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_leaves_running_calls_their_connection() {
    let server = Scripted::start("server", |request, before| match request.method() {
        "initialize" => {
            Reply::Now(initialized(request, "2025-11-25", Some(if before == 0 { "s1" } else { "s2" })))
        }
        "tools/call" => Reply::After(Duration::from_millis(600), reply(request, text("done"))),
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let call = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.call_tool(McpCall::new("server", "pay")).await }
    });
    until("the call runs", || !server.seen("tools/call").is_empty()).await;
    manager.reconnect("server", soon()).await.expect("it connects");
    assert!(server.seen("DELETE").is_empty(), "the old session is still in use");
    assert_eq!(call.await.expect("no panic").expect("it ends").first_text(), Some("done"));
    until("the old session is ended", || {
        server.seen("DELETE").iter().any(|request| request.header("mcp-session-id") == Some("s1"))
    })
    .await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_is_cancelled_on_the_server_and_leaves_nothing() {
    let running = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&running);
    let server = Scripted::start("server", move |request, _| match request.method() {
        "tools/call" => {
            counter.fetch_add(1, Ordering::SeqCst);
            Reply::Never
        }
        _ => Reply::Well,
    });
    let (runtime, manager) = connected([server.config.clone()]).await;
    let call =
        tokio::time::timeout(Duration::from_millis(200), manager.call_tool(McpCall::new("server", "pay")));
    assert!(call.await.is_err());
    until("the server is notified", || !server.seen("notifications/cancelled").is_empty()).await;
    until("no connection is in use", || {
        let stats = runtime.stats();
        let used = stats.components.iter().flat_map(|component| &component.limits);
        used.filter(|limit| limit.key == "pool.max_connections").all(|limit| limit.used == 0)
    })
    .await;
    assert_eq!(running.load(Ordering::SeqCst), 1);
}
