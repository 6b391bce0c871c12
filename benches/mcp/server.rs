//! Servers of MCP in a process of their own, so that theirs is not counted as the client's work.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The argument that makes this program a server.
pub(crate) const ARGUMENT: &str = "--serve-mcp";

/// A running process of servers. Dropping it ends it.
pub(crate) struct Servers {
    process: Child,
    /// The URL of each server: one path per server.
    pub(crate) urls: Vec<String>,
}

impl Servers {
    /// Starts a process with `count` servers.
    pub(crate) fn start(count: usize) -> Self {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut process = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut origin = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut origin).expect("it says where it listens");
        let urls = (0..count).map(|n| format!("{}/mcp{n}", origin.trim())).collect();
        Self { process, urls }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until the parent closes the input.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("http://{}", listener.local_addr().expect("bound"));
        let parent_is_gone = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            _ = axum::serve(listener, Router::new().fallback(answer)) => {}
            _ = parent_is_gone => {}
        }
    });
    std::process::exit(0);
}

/// A server of the revision 2025-11-25 with one tool, which answers with JSON.
async fn answer(method: Method, body: Bytes) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"},
        }),
        Some("tools/list") => json!({"tools": [{
            "name": "pay",
            "description": "Pays an amount.",
            "inputSchema": {"type": "object", "properties": {"amount": {"type": "integer"}}},
        }]}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "paid"}], "isError": false}),
        Some("ping") => json!({}),
        Some(method) if method.starts_with("notifications/") => return StatusCode::ACCEPTED.into_response(),
        _ => return StatusCode::BAD_REQUEST.into_response(),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}
