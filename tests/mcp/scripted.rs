//! An HTTP server in this process that answers as a test says, and well where the test says nothing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

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

/// The server, on a runtime of its own, so that a test can count the tasks of the client. Dropping it ends it.
pub(crate) struct Scripted {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) config: McpServerConfig,
    pub(crate) origin: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Answers each request as `answer` says; the number is how many with the same method came before.
    pub(crate) fn start(
        name: &str,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        let handler = move |request: HttpRequest| {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            async move {
                let request = read(request).await;
                let before = {
                    let mut log = log.lock().expect("no panic");
                    let before = log.iter().filter(|other| other.method() == request.method()).count();
                    log.push(request.clone());
                    before
                };
                match answer(&request, before) {
                    Reply::Well => well(&request),
                    Reply::Now(response) => response,
                    Reply::After(delay, response) => {
                        tokio::time::sleep(delay).await;
                        response
                    }
                    Reply::Never => std::future::pending().await,
                }
            }
        };
        let router = Router::new().fallback(handler);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, router).await
        });
        Self {
            runtime: Some(runtime),
            config: McpServerConfig::http(name, format!("{origin}/mcp")),
            origin,
            seen,
        }
    }

    /// How many requests arrived, without those for a stream that stays open.
    pub(crate) fn answered(&self) -> u64 {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|request| request.verb != Method::GET || request.path != "/mcp").count() as u64
    }

    /// The requests with this method that arrived.
    pub(crate) fn seen(&self, method: &str) -> Vec<Request> {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|request| request.method() == method).cloned().collect()
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
    let message = serde_json::from_slice(&body).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let path = parts.uri.path().to_owned();
    Request { verb: parts.method, path, headers: parts.headers, message, body, at: Instant::now() }
}

fn well(request: &Request) -> Response {
    match request.method() {
        "initialize" => initialized(request, "2025-11-25", Some("s1")),
        "server/discover" => StatusCode::BAD_REQUEST.into_response(),
        "tools/list" => reply(request, json!({"tools": [tool("pay")]})),
        "tools/call" => reply(request, text("done")),
        "ping" => reply(request, json!({})),
        "GET" => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        "DELETE" => StatusCode::OK.into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
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
    json!({"name": name, "inputSchema": {"type": "object"}})
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

/// Waits until `holds`, with a deadline that only a broken promise reaches.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
