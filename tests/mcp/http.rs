//! Servers over HTTP: real ones, and one that misbehaves as each test says.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Deadline, ErrorKind, Outcome};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::{arguments, connected, everything, python, soon};

/// A real server on a free port. Dropping it kills it.
pub(crate) struct HttpServer(Child, pub(crate) String);

impl HttpServer {
    pub(crate) async fn start(command: impl FnOnce(u16) -> Command) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("a free port")
            .local_addr()
            .expect("bound")
            .port();
        let mut command = command(port);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let server = Self(child, format!("http://127.0.0.1:{port}/mcp"));
        let began = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the server does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command of a configured child process, for HTTP.
pub(crate) fn command(config: &McpServerConfig, args: &[&str]) -> Command {
    let mut command = Command::new(config.command.as_deref().expect("a program"));
    command.arg(&config.args[0]).args(args);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_servers_of_both_eras_are_connected_and_called() {
    let npm = HttpServer::start(|port| {
        let mut command = command(&everything("npm"), &["streamableHttp"]);
        command.env("PORT", port.to_string());
        command
    });
    let python = HttpServer::start(|port| command(&python("python"), &["http", &port.to_string()]));
    let (npm, python) = tokio::join!(npm, python);
    let (runtime, manager) =
        connected([McpServerConfig::http("npm", &npm.1), McpServerConfig::http("python", &python.1)]).await;
    let versions: Vec<_> = manager.servers().into_iter().map(|server| server.protocol_version).collect();
    assert_eq!(versions, [Some("2025-11-25".into()), Some("2026-07-28".into())], "{:?}", manager.servers());
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 2, "b": 3})));
    assert_eq!(manager.call_tool(call).await.expect("it adds").first_text(), Some("5"));
    let echo = McpCall::new("npm", "echo").with_arguments(arguments(json!({"message": "hello"})));
    assert_eq!(manager.call_tool(echo).await.expect("it echoes").first_text(), Some("Echo: hello"));
    let slow = McpCall::new("python", "slow")
        .with_arguments(arguments(json!({"seconds": 60})))
        .with_deadline(Deadline::after(Duration::from_millis(300)));
    let began = Instant::now();
    let error = manager.call_tool(slow).await.expect_err("it takes a minute");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(
        manager.health_check(soon()).await.iter().all(|server| server.health == McpServerHealth::Healthy)
    );
    assert!(runtime.shutdown(soon()).await.is_clean());
}

/// A server of the earlier era in this process: `answer` gets the method and the message.
async fn fake(answer: impl Fn(&str, &Value) -> Response + Clone + Send + Sync + 'static) -> McpServerConfig {
    let handler = move |headers: HeaderMap, body: String| async move {
        let _ = headers;
        let message: Value = serde_json::from_str(&body).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default();
        match method {
            "initialize" => {
                let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "1"}});
                let mut response = reply(&message, result);
                response.headers_mut().insert("mcp-session-id", "s1".parse().expect("a header"));
                response
            }
            "" | "notifications/initialized" | "notifications/cancelled" => {
                StatusCode::ACCEPTED.into_response()
            }
            "server/discover" => StatusCode::BAD_REQUEST.into_response(),
            method => answer(method, &message),
        }
    };
    serve(Router::new().route("/mcp", axum::routing::post(handler))).await
}

async fn serve(router: Router) -> McpServerConfig {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    McpServerConfig::http("fake", url)
}

fn reply(message: &Value, result: Value) -> Response {
    Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response()
}

fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_executes_and_then_answers_404_is_executed_once_and_the_session_is_renewed() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let server = fake(move |method, message| match method {
        "tools/call" if counter.fetch_add(1, Ordering::SeqCst) == 0 => StatusCode::NOT_FOUND.into_response(),
        "tools/call" => reply(message, json!({"content": [{"type": "text", "text": "done"}]})),
        _ => reply(message, json!({"tools": [tool("pay")]})),
    })
    .await;
    let (_runtime, manager) = connected([server]).await;
    let error = manager.call_tool(McpCall::new("fake", "pay")).await.expect_err("404");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    let began = Instant::now();
    while manager.servers()[0].connects < 2 || manager.connected_servers().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", manager.servers());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let done = manager.call_tool(McpCall::new("fake", "pay")).await.expect("a new session");
    assert_eq!(done.first_text(), Some("done"));
    assert_eq!(executed.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_is_needs_authorization_and_is_not_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let handler = move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
        (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=\"mcp\"")])
    };
    let server = serve(Router::new().route("/mcp", axum::routing::any(handler))).await;
    let (_runtime, manager) = connected([server]).await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::NeedsAuthorization, "{:?}", manager.servers());
    let error = manager.call_tool(McpCall::new("fake", "any")).await.expect_err("not authorized");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::NotSent), "{error}");
    assert_eq!((manager.servers()[0].next_attempt, asked.load(Ordering::SeqCst)), (None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_cursor_and_hostile_tools_lose_only_themselves() {
    let server = fake(|_, message| {
        let hostile = json!({"name": "n".repeat(10_000)});
        let page = json!([tool("good"), hostile, {"description": "no name"}, {"name": "no schema"}, 7]);
        reply(message, json!({"tools": page, "nextCursor": "again"}))
    })
    .await;
    let (_runtime, manager) = connected([server]).await;
    let names: Vec<_> =
        manager.get_all_available_tools().into_iter().map(|tool| tool.original_name).collect();
    assert_eq!(names, ["good", "no schema"], "{:?}", manager.servers());
}
