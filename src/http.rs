//! HTTP: the seam that model clients send their requests through.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::component::Component;
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Sends requests over a bounded pool of connections.
///
/// # Contract
/// - **Bounds.** At most the configured number of requests is active at once; at most a bounded number waits;
///   one more is refused with [`ErrorKind::Capacity`](crate::ErrorKind::Capacity) at once. Bodies are capped
///   in decoded bytes.
/// - **Deadlines.** Connecting, waiting for a connection, each read (idle, so that long streams live) and the
///   whole call have limits; the request's own deadline is never extended.
/// - **Any status is an answer**, not an error. Redirects are not followed. Nothing is retried.
/// - **Cancellation.** Dropping the future, or the body of the response, closes the connection and frees its
///   permit.
/// - **Safety.** Plain `http` is refused unless the host is loopback or explicitly allowed. Headers and query
///   strings appear in no error and no log of arshai's.
#[async_trait]
pub trait HttpTransport: Component {
    /// Sends a request and waits for the response's head; the body is read from the response.
    ///
    /// # Errors
    /// `InvalidInput` for a bad or refused URL, `Capacity` when too many requests wait, `Timeout` naming the
    /// step, `Unavailable` when the host cannot be reached, `Transport` when bytes could not be sent or received.
    /// One raised before a byte was sent is marked by [`nothing_was_sent`].
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse>;

    /// Counters and bounds, as of now.
    fn stats(&self) -> HttpStats;
}

/// Marks an error as raised before a byte of the request was sent, so that even an unsafe request may be
/// tried again: for transports.
#[must_use]
pub fn nothing_was_sent(error: Error) -> Error {
    error.not_sent()
}

/// Whether the transport says that no byte of the request was sent.
#[must_use]
pub fn was_nothing_sent(error: &Error) -> bool {
    error.outcome() == crate::error::Outcome::NotSent
}

/// A request: method, URL, headers and a whole body, with an optional deadline.
pub struct HttpRequest {
    /// Method, URL, headers and body.
    pub request: http::Request<Bytes>,
    /// When the call, body included, must have ended; besides the transport's own total limit.
    pub deadline: Option<Deadline>,
}

impl HttpRequest {
    /// A request without a deadline of its own.
    #[must_use]
    pub fn new(request: http::Request<Bytes>) -> Self {
        Self { request, deadline: None }
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Shows the method, host and path; never the query, headers or body.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.request.uri();
        write!(f, "HttpRequest({} {}{})", self.request.method(), uri.host().unwrap_or_default(), uri.path())
    }
}

/// A response: status and headers at once, the body as it comes.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: HttpBody,
}

/// A response's body, in chunks as they arrive.
///
/// At most a few chunks are buffered; the connection waits while nobody reads, until the call's deadline. Dropping
/// the body before its end closes the connection.
pub struct HttpBody {
    chunks: mpsc::Receiver<Result<Bytes>>,
    /// Dropped with the body: lets the transport know that nobody reads any more.
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl HttpBody {
    /// A body fed by a transport through `chunks`; closing the channel ends it. `guard` is dropped with the body.
    #[must_use]
    pub fn new(chunks: mpsc::Receiver<Result<Bytes>>, guard: Option<Box<dyn Any + Send + Sync>>) -> Self {
        Self { chunks, _guard: guard }
    }

    /// A body that is all there: for test doubles.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        // The channel has room for one and its receiver is alive.
        let _ = sender.try_send(Ok(bytes.into()));
        Self::new(chunks, None)
    }

    /// The next chunk; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`HttpTransport::send`]; after an error the body has ended.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.chunks.recv().await.transpose()
    }

    /// Everything that is left. Bounded by the transport's cap on decoded bytes. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    pub async fn bytes(mut self) -> Result<Bytes> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = Vec::from(first);
        all.extend_from_slice(&second);
        while let Some(more) = self.chunk().await? {
            all.extend_from_slice(&more);
        }
        Ok(all.into())
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpBody")
    }
}

/// What a transport is doing and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HttpStats {
    /// Requests that got a response, whatever its status.
    pub responses: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Requests refused because too many were waiting.
    pub rejected: u64,
    /// Bytes of request bodies sent.
    pub bytes_sent: u64,
    /// Decoded bytes of response bodies received.
    pub bytes_received: u64,
    /// The longest time from sending to the response's head.
    pub slowest_response: Duration,
    /// Connections open and not in use.
    pub idle_connections: u64,
}
