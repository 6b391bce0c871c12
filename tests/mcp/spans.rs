//! What an application sees of MCP in its traces.

use arshai::mcp::McpCall;
use arshai_test_support::Log;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::scripted::{Reply, Scripted};
use crate::support::connected;

#[tokio::test]
async fn connecting_listing_and_calling_are_spans_with_attributes_and_without_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .finish();
    let _subscribed = tracing::subscriber::set_default(subscriber);
    // With only one, tracing asks the thread that comes by a span first, and that may be another test's without any.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let server = Scripted::start("shop", |request, before| match (request.method(), before) {
        ("tools/call", 1) => Reply::Now(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        _ => Reply::Well,
    });
    let mut config = server.config.clone();
    config.token = Some("hunter2".to_owned().into());
    let (_runtime, manager) = connected([config]).await;
    let call = || McpCall::new("shop", "pay").with_token("hunter3".to_owned());
    manager.call_tool(call()).await.expect("it answers");
    manager.call_tool(call()).await.expect_err("HTTP 500");
    let log = log.text();
    let closed = |span: &str, attribute: &str| {
        log.lines().any(|line| line.contains("close") && line.contains(span) && line.contains(attribute))
    };
    for (span, attribute) in [
        ("mcp.connect", "mcp.server=\"shop\""),
        ("mcp.connect", "mcp.protocol.version=\"2025-11-25\""),
        ("mcp.list", "mcp.method.name=\"tools/list\""),
        ("mcp.list", "mcp.tools=1"),
        ("mcp.call", "gen_ai.tool.name=\"pay\""),
        ("mcp.call", "mcp.protocol.version=\"2025-11-25\""),
        ("mcp.call", "error.type=Unavailable"),
    ] {
        assert!(closed(span, attribute), "{span} {attribute}: {log}");
    }
    assert!(!log.contains("hunter"), "{log}");
}
