//! A transport written outside: a small HTTP/1.1 client over tokio's sockets, one connection per request.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arshai::contract::http::{Setup, suite};
use arshai::http::{
    HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport, check_public_addresses, check_public_host,
    checked_origin,
};
use arshai::llm::{ChatRequest, Message};
use arshai::support::{OwnedPermit, PermitQueue, ResizableSemaphore};
use arshai::{
    Arshai, BuildContext, CloseReport, Component, Config, Deadline, Error, ErrorKind, Health, LimitUsage,
    Registry, Result, ShutdownPhase,
};
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const COMPONENT: &str = "http.plain";
const MAX_HEAD_BYTES: usize = 16 << 10;

#[derive(Debug)]
struct PlainHttp {
    config: Arc<Config>,
    queue: PermitQueue,
    closing: CancellationToken,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    responses: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
}

/// A connection with what was read from it. Dropping it closes the socket, then releases the permit.
struct Connection {
    socket: TcpStream,
    buffer: BytesMut,
    deadline: Deadline,
    closing: CancellationToken,
    _permit: OwnedPermit,
}

impl PlainHttp {
    fn new(context: &BuildContext) -> Self {
        let (pool, http) = (&context.config.pool, &context.config.http);
        let permits = ResizableSemaphore::new("pool.max_connections", "connections", pool.max_connections);
        let waiters = ResizableSemaphore::new("http.max_waiting", "requests", http.max_waiting);
        Self {
            config: Arc::clone(&context.config),
            queue: PermitQueue::new(permits, waiters).named(COMPONENT, "waiting for a connection"),
            closing: CancellationToken::new(),
            counters: Arc::default(),
        }
    }

    async fn connect(&self, request: &HttpRequest, wait: Deadline, deadline: Deadline) -> Result<Connection> {
        let permit = self.queue.acquire(wait).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Capacity {
                self.counters.rejected.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        let uri = request.request.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let connecting = async {
            let addresses: Vec<_> =
                tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80))).await?.collect();
            if request.deny_private_addresses {
                check_public_addresses(COMPONENT, addresses.iter().map(|address| address.ip()))
                    .map_err(std::io::Error::other)?;
            }
            TcpStream::connect(&addresses[..]).await
        };
        let socket = deadline
            .capped(self.config.http.connect_timeout)
            .run(COMPONENT, "connecting", connecting)
            .await
            .map_err(Error::not_sent)?
            .map_err(|cause| match cause.downcast::<Error>() {
                Ok(denied) => denied,
                Err(cause) => {
                    error(ErrorKind::Unavailable, "connection failed").with_source(cause).not_sent()
                }
            })?;
        let closing = self.closing.clone();
        Ok(Connection { socket, buffer: BytesMut::new(), deadline, closing, _permit: permit })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse> {
        let http = &self.config.http;
        let origin = checked_origin(COMPONENT, request.request.uri(), &http.insecure_hosts)?;
        if request.deny_private_addresses {
            check_public_host(COMPONENT, request.request.uri())?;
        }
        if !origin.starts_with("http://") {
            return Err(error(ErrorKind::Unsupported, "this client has no TLS").not_sent());
        }
        let total = Deadline::after(http.total_timeout);
        let deadline = request.deadline.map_or(total, |deadline| deadline.min(total));
        let wait = if request.deadline.is_some() { deadline } else { total.capped(http.pool_timeout) };
        let mut connection = self.connect(&request, wait, deadline).await?;

        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            request.request.method(),
            request.request.uri().path_and_query().map_or("/", |path| path.as_str()),
            request.request.uri().authority().expect("it was checked"),
            request.request.body().len(),
        )
        .into_bytes();
        for (name, value) in request.request.headers() {
            head.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend_from_slice(&[b"\r\n", &request.request.body()[..]].concat());
        connection.write("sending the request", &head).await?;
        self.counters.bytes_sent.fetch_add(request.request.body().len() as u64, Ordering::Relaxed);

        let (status, headers) = connection.read_head().await?;
        let length =
            headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        self.counters.responses.fetch_add(1, Ordering::Relaxed);
        let body = self.body(connection, length);
        Ok(HttpResponse { status, headers, body })
    }

    /// `length` bytes, or what comes until the server closes.
    fn body(&self, connection: Connection, length: Option<u64>) -> HttpBody {
        let (counters, max) = (Arc::clone(&self.counters), self.config.http.max_body_bytes);
        HttpBody::new(stream::try_unfold((connection, 0_u64), move |(mut connection, received)| {
            let counters = Arc::clone(&counters);
            async move {
                if length == Some(received) {
                    return Ok(None);
                }
                if connection.buffer.is_empty() && connection.read("reading the body").await? == 0 {
                    let early = error(ErrorKind::Transport, "response body ended early");
                    return if length.is_some() { Err(early) } else { Ok(None) };
                }
                let chunk = connection.buffer.split().freeze();
                let received = received + chunk.len() as u64;
                counters.bytes_received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if received > max {
                    return Err(error(ErrorKind::TooLarge, "the body exceeds http.max_body_bytes"));
                }
                Ok(Some((chunk, (connection, received))))
            }
        }))
    }
}

impl Connection {
    async fn write(&mut self, step: &'static str, bytes: &[u8]) -> Result<()> {
        tokio::select! {
            written = self.deadline.run(COMPONENT, step, self.socket.write_all(bytes)) => written?.map_err(lost),
            () = self.closing.cancelled() => Err(error(ErrorKind::Closed, "transport shut down during the request")),
        }
    }

    async fn read(&mut self, step: &'static str) -> Result<usize> {
        let reading = self.socket.read_buf(&mut self.buffer);
        tokio::select! {
            read = self.deadline.run(COMPONENT, step, reading) => read?.map_err(lost),
            () = self.closing.cancelled() => Err(error(ErrorKind::Closed, "transport shut down during the request")),
        }
    }

    async fn read_head(&mut self) -> Result<(http::StatusCode, http::HeaderMap)> {
        let malformed = || error(ErrorKind::Protocol, "malformed HTTP response");
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(error(ErrorKind::TooLarge, "response headers too large"));
            }
            if self.read("waiting for the response").await? == 0 {
                return Err(error(ErrorKind::Transport, "connection closed before the response"));
            }
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        let head = std::str::from_utf8(&head).map_err(|_| malformed())?;
        let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or_else(malformed)?;
        let mut headers = http::HeaderMap::new();
        for line in rest.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(malformed)?;
            let name = http::HeaderName::try_from(name).map_err(|_| malformed())?;
            headers.append(name, value.trim().try_into().map_err(|_| malformed())?);
        }
        Ok((status.parse().map_err(|_| malformed())?, headers))
    }
}

fn error(kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, COMPONENT, message)
}

fn lost(cause: std::io::Error) -> Error {
    error(ErrorKind::Transport, "connection lost").with_source(cause)
}

#[async_trait]
impl Component for PlainHttp {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("http")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.queue.limits()
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.queue.permits().is_closed() {
            true => Health::unhealthy("transport is shut down"),
            false => Health::Healthy,
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        match (key, usize::try_from(max).unwrap_or(usize::MAX)) {
            ("pool.max_connections", 0) => Err(error(ErrorKind::InvalidInput, "must be at least 1")),
            ("pool.max_connections", max) => {
                self.queue.permits().set_max(max);
                Ok(())
            }
            _ => Err(arshai::unsupported_limit_error(COMPONENT, key)),
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.queue.close();
        let active = self.queue.permits().used();
        let _ = tokio::time::timeout_at(deadline.instant(), self.queue.permits().wait_idle()).await;
        let aborted = self.queue.permits().used();
        self.closing.cancel();
        CloseReport::new(active.saturating_sub(aborted), aborted, Vec::new())
    }
}

#[async_trait]
impl HttpTransport for PlainHttp {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let result = self.exchange(request).await;
        if result.is_err() {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn stats(&self) -> HttpStats {
        let mut stats = HttpStats::default();
        stats.responses = self.counters.responses.load(Ordering::Relaxed);
        stats.failures = self.counters.failures.load(Ordering::Relaxed);
        stats.rejected = self.counters.rejected.load(Ordering::Relaxed);
        stats.bytes_sent = self.counters.bytes_sent.load(Ordering::Relaxed);
        stats.bytes_received = self.counters.bytes_received.load(Ordering::Relaxed);
        stats
    }
}

#[tokio::test]
async fn a_transport_written_outside_keeps_the_contract() {
    suite(|setup: Setup| async move {
        Arc::new(PlainHttp::new(&BuildContext::new(setup.config))) as Arc<dyn HttpTransport>
    })
    .await;
}

/// Answers one request like a model provider, and returns its URL.
async fn provider() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut request = BytesMut::new();
        while !request.ends_with(b"}") {
            socket.read_buf(&mut request).await.expect("a request");
        }
        let body = Bytes::from(r#"{"choices": [{"message": {"role": "assistant", "content": "hello"}}]}"#);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(&[head.as_bytes(), &body].concat()).await.expect("the client waits");
    });
    url
}

#[tokio::test]
async fn a_transport_written_outside_is_chosen_by_name_and_serves_the_model_clients() {
    let mut registry = Registry::builtin();
    registry.http.register("plain", |context| Ok(Arc::new(PlainHttp::new(context))));
    let url = provider().await;
    let vars =
        [("ARSHAI_HTTP__BACKEND", "plain"), ("OPENAI_API_KEY", "sk-test"), ("OPENAI_BASE_URL", url.as_str())];
    let config = Config::from_vars(vars.map(|(name, value)| (name.into(), value.into()))).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    let client = runtime.openai("any").expect("a transport and a key");
    let response = client
        .chat(
            ChatRequest::new(vec![Message::user("hi")])
                .with_deadline(Some(Deadline::after(Duration::from_secs(20)))),
        )
        .await
        .expect("a response");
    assert_eq!(response.content.as_deref(), Some("hello"));
}
