//! A server of the earlier era in this process, whose tools a test can change.

use std::sync::{Arc, Mutex};

use arshai::config::McpServerConfig;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct FakeServer {
    tools: Mutex<Vec<Value>>,
    called: Mutex<Vec<String>>,
}

impl FakeServer {
    /// Starts it on a free port; it ends with the test's runtime.
    pub(crate) async fn start(name: &str, tools: Vec<Value>) -> (Arc<Self>, McpServerConfig) {
        let server = Arc::new(Self { tools: tools.into(), ..Self::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
        let router = Router::new().route("/mcp", post(answer)).with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, McpServerConfig::http(name, url))
    }

    pub(crate) fn set_tools(&self, tools: Vec<Value>) {
        *self.tools.lock().expect("no panic") = tools;
    }

    /// Names of the tools that were called, as they were on the wire.
    pub(crate) fn called(&self) -> Vec<String> {
        self.called.lock().expect("no panic").clone()
    }
}

pub(crate) fn tool(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "inputSchema": {"type": "object"}})
}

async fn answer(State(server): State<Arc<FakeServer>>, Json(message): Json<Value>) -> Response {
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"}}),
        "tools/list" => json!({"tools": *server.tools.lock().expect("no panic")}),
        "tools/call" => {
            let name = message["params"]["name"].as_str().unwrap_or_default().to_owned();
            let text = format!("{name} was called");
            server.called.lock().expect("no panic").push(name);
            json!({"content": [{"type": "text", "text": text}]})
        }
        "server/discover" => return StatusCode::BAD_REQUEST.into_response(),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response()
}
