//! Single calls on a shared connection: their headers and metadata, lost sessions, draining.

use std::time::{Duration, Instant};

use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{ErrorKind, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::scripted::{Reply, Scripted, initialized, reply, text};
use crate::support::{connected, python, running_call, sockets_to, soon, until};

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
async fn closing_waits_for_running_calls_and_for_a_hanging_delete_only_so_long() {
    let server = Scripted::start("server", |request, _| match request.method() {
        "tools/call" => Reply::After(Duration::from_millis(500), reply(request, text("done"))),
        "DELETE" => Reply::Never,
        _ => Reply::Well,
    });
    let (runtime, manager) = connected([server.config.clone()]).await;
    let call = running_call(&manager, "server", &server).await;
    let began = Instant::now();
    let report = runtime.shutdown(soon()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(call.await.expect("no panic").expect("it could end").first_text(), Some("done"));
    assert_eq!(server.seen("DELETE").len(), 1, "the session is ended");
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
    let call = running_call(&manager, "server", &server).await;
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
    let server = Scripted::start("server", |request, _| match request.method() {
        "tools/call" => Reply::Never,
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let idle = sockets_to(&server.origin);
    running_call(&manager, "server", &server).await.abort();
    until("the server is notified", || !server.seen("notifications/cancelled").is_empty()).await;
    until("its connection is closed", || sockets_to(&server.origin) <= idle).await;
    assert_eq!(server.called().len(), 1);
}
