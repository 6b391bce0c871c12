//! What every manager promises, the legacy one included: what it has no bounds for is not asked here.

use std::sync::Arc;
use std::time::Duration;

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpContent, McpServerHealth, McpServerManager};
use arshai::{Arshai, Config, Deadline, ErrorKind, Health, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::scripted::{Reply, Scripted, text};
use crate::support::{arguments, connected_with, everything, python, soon};

const BACKENDS: [&str; 2] = ["rmcp", "legacy"];

async fn connected(backend: &str, servers: Vec<McpServerConfig>) -> (Arshai, Arc<dyn McpServerManager>) {
    connected_with(servers, |config| config.mcp.backend = backend.to_owned()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_are_connected_listed_called_checked_and_closed() {
    for backend in BACKENDS {
        let (runtime, manager) = connected(backend, vec![everything("npm"), python("python")]).await;
        assert!(manager.is_enabled());
        assert_eq!(manager.connected_servers(), ["npm", "python"], "{backend}: {:?}", manager.servers());
        let tools = manager.get_all_available_tools();
        let add = tools.iter().find(|tool| tool.name == "add").expect("it is listed");
        assert_eq!((add.server_name.as_str(), add.description.as_str()), ("python", "Adds two numbers."));
        assert_eq!(add.input_schema["properties"]["a"]["type"], "integer");

        let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 2, "b": 3})));
        assert_eq!(manager.call_tool(call).await.expect("it adds").first_text(), Some("5"), "{backend}");
        let failed = McpCall::new("python", "fail").with_arguments(arguments(json!({"reason": "x"})));
        assert!(manager.call_tool(failed).await.expect("a result").is_error, "{backend}");
        let image = manager.call_tool(McpCall::new("npm", "get-tiny-image")).await.expect("an image");
        let is_image =
            |content: &McpContent| matches!(content, McpContent::Image { data, .. } if data.len() > 100);
        assert!(image.content.iter().any(is_image), "{backend}");
        let unknown = manager.call_tool(McpCall::new("nobody", "any")).await.expect_err("not configured");
        assert_eq!((unknown.kind(), unknown.outcome()), (ErrorKind::NotFound, Outcome::NotSent));

        let checked = manager.health_check(soon()).await;
        assert!(checked.iter().all(|server| server.health == McpServerHealth::Healthy), "{checked:?}");
        assert!(runtime.health(soon()).await.components.values().all(|health| *health == Health::Healthy));
        assert!(runtime.shutdown(soon()).await.is_clean(), "{backend}");
        let closed = manager.call_tool(McpCall::new("npm", "echo")).await.expect_err("closed");
        assert_eq!((closed.kind(), closed.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_leaves_the_others_usable_and_is_connected_when_asked_again() {
    for backend in BACKENDS {
        let is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let well = Arc::clone(&is_well);
        let ill = Scripted::start("ill", move |_, _| match well.load(std::sync::atomic::Ordering::SeqCst) {
            true => Reply::Well,
            false => Reply::Now(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        });
        let good = Scripted::start("good", |_, _| Reply::Well);
        let mut configs =
            [ill.config.clone(), good.config.clone(), McpServerConfig::stdio("missing", "/nonexistent", [])];
        configs.iter_mut().for_each(|config| config.max_retries = Some(1));
        let (_runtime, manager) = connected(backend, configs.to_vec()).await;
        assert_eq!(manager.connected_servers(), ["good"], "{backend}: {:?}", manager.servers());
        let failed: Vec<_> = manager.failed_servers().into_iter().map(|server| server.name).collect();
        assert_eq!(failed, ["ill", "missing"]);
        assert!(manager.get_all_available_tools().iter().all(|tool| tool.server_name == "good"));
        for down in ["ill", "missing"] {
            let error = manager.call_tool(McpCall::new(down, "pay")).await.expect_err("down");
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::Unavailable, Outcome::NotSent),
                "{error}"
            );
        }
        manager.call_tool(McpCall::new("good", "pay")).await.expect("usable");
        is_well.store(true, std::sync::atomic::Ordering::SeqCst);
        manager.reconnect("ill", soon()).await.expect("it is well");
        assert_eq!(
            manager.call_tool(McpCall::new("ill", "pay")).await.expect("usable").first_text(),
            Some("done")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_server_that_is_down_is_named_and_a_rejected_token_is_needs_authorization() {
    for backend in BACKENDS {
        let server = Scripted::start("locked", |request, _| match request.header("authorization") {
            Some("Bearer right") => Reply::Well,
            _ => Reply::Now((StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response()),
        });
        let (mut right, mut wrong) = (server.config.clone(), server.config.clone());
        (right.name, right.token) = ("right".into(), Some("right".to_owned().into()));
        (wrong.token, wrong.required) = (Some("wrong".to_owned().into()), true);
        let mut config = Config::default();
        (config.mcp.enabled, config.mcp.backend) = (true, backend.to_owned());
        config.mcp.servers = vec![wrong, right];
        let runtime = Arshai::builder(config).build().expect("valid");
        let manager = runtime.mcp().expect("compiled in");
        let error = manager.initialize(soon()).await.expect_err("one is required");
        assert!(error.to_string().contains("locked"), "{backend}: {error}");
        assert_eq!(manager.connected_servers(), ["right"], "{backend}: {:?}", manager.servers());
        assert_eq!(manager.servers()[0].health, McpServerHealth::NeedsAuthorization, "{backend}");
        let error = manager.call_tool(McpCall::new("locked", "pay")).await.expect_err("not authorized");
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Authentication, Outcome::NotSent),
            "{backend}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_caller_applies_and_the_connection_stays_usable() {
    for backend in BACKENDS {
        let (_runtime, manager) = connected(backend, vec![python("python")]).await;
        let slow = McpCall::new("python", "slow")
            .with_arguments(arguments(json!({"seconds": 3})))
            .with_deadline(Deadline::after(Duration::from_millis(300)));
        let error = manager.call_tool(slow).await.expect_err("it takes longer");
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Timeout, Outcome::Unknown),
            "{backend}: {error}"
        );
        let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
        assert_eq!(manager.call_tool(call).await.expect("it answers").first_text(), Some("2"), "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_token_and_meta_of_a_call_reach_it_and_nothing_of_the_protocol_is_overridden() {
    for backend in BACKENDS {
        let server = Scripted::start("server", |_, _| Reply::Well);
        let (_runtime, manager) = connected(backend, vec![server.config.clone()]).await;
        let call = McpCall::new("server", "pay")
            .with_header("x-tenant", "acme".to_owned())
            .with_token("user".to_owned())
            .with_meta("tenant", json!("acme"));
        manager.call_tool(call).await.expect("it answers");
        manager.call_tool(McpCall::new("server", "pay")).await.expect("it answers");
        let calls = server.seen("tools/call");
        assert_eq!(calls[0].header("x-tenant"), Some("acme"), "{backend}");
        assert_eq!(calls[0].header("authorization"), Some("Bearer user"), "{backend}");
        assert_eq!(calls[0].message["params"]["_meta"]["tenant"], "acme", "{backend}");
        assert_eq!(
            (calls[1].header("x-tenant"), calls[1].header("authorization")),
            (None, None),
            "{backend}"
        );
        let hijack = McpCall::new("server", "pay").with_header("mcp-session-id", "other".to_owned());
        let _ = manager.call_tool(hijack).await;
        let sessions = server.seen("tools/call");
        assert!(sessions.iter().all(|call| call.header("mcp-session-id") == Some("s1")), "{backend}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_in_a_stream_after_something_else_is_found_whatever_ends_its_lines() {
    for (backend, end) in BACKENDS.iter().flat_map(|backend| [(backend, "\n"), (backend, "\r\n")]) {
        let server = Scripted::start("server", move |request, _| match request.method() {
            "tools/call" => {
                let logged = json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": "info", "data": "line\nbreak"}});
                let answer = json!({"jsonrpc": "2.0", "id": request.message["id"], "result": text("a\r\nb")});
                let stream =
                    format!(": hello{end}{end}data: {logged}{end}{end}id: 1{end}data: {answer}{end}{end}");
                Reply::Now(([("content-type", "text/event-stream")], stream).into_response())
            }
            _ => Reply::Well,
        });
        let (_runtime, manager) = connected(backend, vec![server.config.clone()]).await;
        let done = manager.call_tool(McpCall::new("server", "pay")).await.expect("it answers");
        assert_eq!(done.first_text(), Some("a\r\nb"), "{backend} {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rollback_flag_selects_the_legacy_manager_and_keeps_the_servers() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let (runtime, manager) = connected_with([server.config.clone()], |config| {
        config.rollback.use_legacy_connections = true;
    })
    .await;
    assert_eq!(runtime.config().mcp.backend, "legacy");
    assert_eq!(
        manager.call_tool(McpCall::new("server", "pay")).await.expect("usable").first_text(),
        Some("done")
    );
    assert!(server.seen("server/discover").is_empty(), "it knows the handshake only");
}
