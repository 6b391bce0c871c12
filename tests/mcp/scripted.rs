//! HTTP servers that answer as a test says, and well where the test says nothing.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arshai::config::McpServerConfig;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request as HttpRequest;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The revision of the stateless era.
pub(crate) const STATELESS: &str = "2026-07-28";

/// A request that arrived.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) verb: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Value,
    pub(crate) body: String,
    pub(crate) at: Instant,
}

impl Request {
    pub(crate) fn new(parts: Parts, body: &[u8]) -> Self {
        Self {
            verb: parts.method,
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            message: serde_json::from_slice(body).unwrap_or_default(),
            body: String::from_utf8_lossy(body).into_owned(),
            at: Instant::now(),
        }
    }

    /// The JSON-RPC method; the HTTP method where there is none.
    pub(crate) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or(self.verb.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a test answers.
pub(crate) enum Reply {
    /// As a well-behaved server of the earlier era.
    Well,
    Now(Response),
    After(Duration, Response),
    Never,
}

/// Answers a request; the number is how many with the same method came before.
type Answer = Box<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

/// What a server answers, the tools that it lists, and what arrived.
pub(crate) struct Script {
    answer: Answer,
    tools: Mutex<Vec<Value>>,
    seen: Mutex<Vec<Request>>,
}

impl Script {
    /// Answers each request as `answer` says; the number is how many with the same method came before.
    pub(crate) fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        let tools = Mutex::new(vec![tool("pay")]);
        Arc::new(Self { answer: Box::new(answer), tools, seen: Mutex::default() })
    }

    pub(crate) async fn answer(&self, request: Request) -> Response {
        let before = {
            let mut seen = self.seen.lock().expect("no panic");
            let before = seen.iter().filter(|other| other.method() == request.method()).count();
            seen.push(request.clone());
            before
        };
        match (self.answer)(&request, before) {
            Reply::Well => self.well(&request),
            Reply::Now(response) => response,
            Reply::After(delay, response) => {
                tokio::time::sleep(delay).await;
                response
            }
            Reply::Never => std::future::pending().await,
        }
    }

    fn well(&self, request: &Request) -> Response {
        match request.method() {
            "initialize" => initialized(request, "2025-11-25", Some("s1")),
            "server/discover" => StatusCode::BAD_REQUEST.into_response(),
            "tools/list" => reply(request, json!({"tools": *self.tools.lock().expect("no panic")})),
            "tools/call" => reply(request, text("done")),
            "ping" => reply(request, json!({})),
            "GET" => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            "DELETE" => StatusCode::OK.into_response(),
            _ => StatusCode::ACCEPTED.into_response(),
        }
    }

    /// What it lists from now on.
    pub(crate) fn set_tools(&self, tools: impl IntoIterator<Item = Value>) {
        *self.tools.lock().expect("no panic") = tools.into_iter().collect();
    }

    /// The requests with this method that arrived.
    pub(crate) fn seen(&self, method: &str) -> Vec<Request> {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|request| request.method() == method).cloned().collect()
    }

    /// Names of the tools that were called, as they were on the wire.
    pub(crate) fn called(&self) -> Vec<String> {
        let name = |request: Request| request.message["params"]["name"].as_str().map(str::to_owned);
        self.seen("tools/call").into_iter().filter_map(name).collect()
    }

    /// How many requests arrived, without those for a stream that stays open.
    pub(crate) fn answered(&self) -> u64 {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|request| request.verb != Method::GET || request.path != "/mcp").count() as u64
    }
}

/// A server that answers as a script says, on a runtime of its own, so that a test can count the tasks of the client.
/// Dropping it ends it.
pub(crate) struct Scripted {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) config: McpServerConfig,
    pub(crate) origin: String,
    script: Arc<Script>,
}

impl Scripted {
    /// See [`Script::new`].
    pub(crate) fn start(
        name: &str,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        let script = Script::new(answer);
        let answering = Arc::clone(&script);
        let handler = move |request: HttpRequest| {
            let script = Arc::clone(&answering);
            async move { script.answer(read(request).await).await }
        };
        let router = Router::new().fallback(handler);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, router).await
        });
        let config = McpServerConfig::http(name, format!("{origin}/mcp"));
        Self { runtime: Some(runtime), config, origin, script }
    }

    /// A well-behaved server with these tools.
    pub(crate) fn with_tools(name: &str, tools: impl IntoIterator<Item = Value>) -> Self {
        let server = Self::start(name, |_, _| Reply::Well);
        server.set_tools(tools);
        server
    }
}

impl Deref for Scripted {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.script
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.runtime.take().expect("it is taken only here").shutdown_background();
    }
}

async fn read(request: HttpRequest) -> Request {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    Request::new(parts, &body)
}

/// Answers as a server of the stateless era, except for what `None` leaves to the test.
pub(crate) fn stateless(request: &Request) -> Option<Response> {
    let result = match request.method() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": [STATELESS],
            "capabilities": {"tools": {"listChanged": true}}, "ttlMs": 0, "cacheScope": "private"}),
        "tools/list" => json!({"resultType": "complete", "tools": [tool("pay")]}),
        "tools/call" => json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]}),
        _ => return None,
    };
    Some(reply(request, result))
}

pub(crate) fn initialized(request: &Request, version: &str, session: Option<&str>) -> Response {
    let result = json!({"protocolVersion": version, "capabilities": {"tools": {"listChanged": true}},
        "serverInfo": {"name": "scripted", "version": "1"}});
    let mut response = reply(request, result);
    if let Some(session) = session {
        response.headers_mut().insert("mcp-session-id", session.parse().expect("a header"));
    }
    response
}

pub(crate) fn reply(request: &Request, result: Value) -> Response {
    axum::Json(json!({"jsonrpc": "2.0", "id": request.message["id"], "result": result})).into_response()
}

pub(crate) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

pub(crate) fn tool(name: &str) -> Value {
    described(name, "")
}

pub(crate) fn described(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "inputSchema": {"type": "object"}})
}

pub(crate) fn json_body(body: impl Into<Body>) -> Response {
    ([("content-type", "application/json")], body.into()).into_response()
}

/// A response of server-sent events: it stays open until the sender is dropped.
pub(crate) fn events() -> (mpsc::UnboundedSender<String>, Response) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), receiver))
    });
    let response = ([("content-type", "text/event-stream")], Body::from_stream(chunks)).into_response();
    (sender, response)
}

/// One event that holds a message.
pub(crate) fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}
