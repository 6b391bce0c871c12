//! Servers over HTTP: real ones, and one that misbehaves as each test says.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Config, Deadline, ErrorKind, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::scripted::{Reply, Scripted};
use crate::support::{arguments, connected, connected_with, everything, python, soon};

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
async fn http_servers_of_both_eras_are_connected_and_called_over_both_transports() {
    let npm = HttpServer::start(|port| {
        let mut command = command(&everything("npm"), &["streamableHttp"]);
        command.env("PORT", port.to_string());
        command
    });
    let python = HttpServer::start(|port| command(&python("python"), &["http", &port.to_string()]));
    let (npm, python) = tokio::join!(npm, python);
    for backend in ["ureq", "hyper"] {
        let servers = [McpServerConfig::http("npm", &npm.1), McpServerConfig::http("python", &python.1)];
        let backend = |config: &mut Config| config.http.backend = backend.to_owned();
        let (runtime, manager) = connected_with(servers, backend).await;
        let versions: Vec<_> = manager.servers().into_iter().map(|server| server.protocol_version).collect();
        assert_eq!(
            versions,
            [Some("2025-11-25".into()), Some("2026-07-28".into())],
            "{:?}",
            manager.servers()
        );
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_executes_and_then_answers_404_is_executed_once_and_the_session_is_renewed() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let server = Scripted::start("fake", move |request, _| match request.method() {
        "tools/call" if counter.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::Now(StatusCode::NOT_FOUND.into_response())
        }
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let error = manager.call_tool(McpCall::new("fake", "pay")).await.expect_err("404");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::Unknown), "{error}");
    assert_eq!(executed.load(Ordering::SeqCst), 1);
    let done = manager.call_tool(McpCall::new("fake", "pay")).await.expect("a new session");
    assert_eq!(done.first_text(), Some("done"));
    assert_eq!(executed.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_is_needs_authorization_and_is_not_asked_again() {
    let server = Scripted::start("fake", |_, _| {
        Reply::Now((StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=\"mcp\"")]).into_response())
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::NeedsAuthorization, "{:?}", manager.servers());
    let error = manager.call_tool(McpCall::new("fake", "any")).await.expect_err("not authorized");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::NotSent), "{error}");
    assert_eq!((manager.servers()[0].next_attempt, server.seen("server/discover").len()), (None, 1));
    assert_eq!(manager.servers()[0].challenge.as_deref(), Some("Bearer realm=\"mcp\""));
}
