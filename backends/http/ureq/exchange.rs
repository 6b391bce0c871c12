//! One exchange, on the thread that blocks for it.

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Instant;

use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use ::ureq::Body;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::errors::{Step, cut_off, error, from_ureq, timed_out};
use super::lines::Call;
use crate::{Error, ErrorKind, Result};

/// Chunks of a body that may wait to be read.
pub(super) const CHUNKS: usize = 4;

/// The most bytes of a chunk.
const CHUNK_BYTES: usize = 16 << 10;

/// The head of a response.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// A request on its way, and where its answer goes.
pub(super) struct Exchange {
    pub(super) request: Request<Bytes>,
    pub(super) until: Instant,
    pub(super) call: Call,
    pub(super) head: oneshot::Sender<Result<Head>>,
    pub(super) chunks: mpsc::Sender<Result<Bytes>>,
}

impl Exchange {
    /// Sends the request, delivers the head, then the body as it is read. Whoever receives the end of either
    /// finds the permit free.
    pub(super) fn run(self) {
        let Self { request, until, call, head, chunks } = self;
        let mut ending = Ending::reserve(&chunks);
        let outcome = if call.is_over() { Err(cut_off()) } else { send(&call, request, until) };
        let body = match outcome {
            Err(error) => {
                call.fail();
                // Nobody listens if the future was dropped.
                let _ = head.send(Err(error));
                return ending.clean();
            }
            Ok(response) => {
                let (parts, body) = response.into_parts();
                if head.send(Ok(Head { status: parts.status, headers: parts.headers })).is_err() {
                    call.fail();
                    return;
                }
                body
            }
        };
        match deliver(&call, body, &chunks, until) {
            Ok(()) => {
                call.complete();
                ending.clean();
            }
            Err(error) => {
                call.fail();
                ending.error(error);
            }
        }
    }
}

fn send(call: &Call, request: Request<Bytes>, until: Instant) -> Result<Response<Body>> {
    let left = until.saturating_duration_since(Instant::now());
    let (parts, body) = request.into_parts();
    let bytes = body.len();
    call.switchboard.counters.sent(bytes);
    let agent = call.agent();
    let response = if bytes == 0 && !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
        let request = Request::from_parts(parts, ());
        agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
    } else {
        let request = Request::from_parts(parts, &body[..]);
        agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
    };
    response.map_err(|cause| failure(call, cause))
}

/// Reads the body to its end, handing on chunks. A reader who is gone ends it as an error does.
fn deliver(call: &Call, body: Body, chunks: &mpsc::Sender<Result<Bytes>>, until: Instant) -> Result<()> {
    call.stage().set(Step::Body);
    let limit = call.switchboard.settings.max_body_bytes;
    let (mut reader, mut buffer, mut total) = (body.into_reader(), vec![0; CHUNK_BYTES], 0_u64);
    loop {
        let read = reader.read(&mut buffer).map_err(|cause| failure(call, cause.into()))?;
        if read == 0 {
            return Ok(());
        }
        call.switchboard.counters.received(read);
        total += read as u64;
        if total > limit {
            return Err(error(ErrorKind::TooLarge, "the decoded body is larger than http.max_body_bytes")
                .with_context("limit", limit));
        }
        match wait_until(until, chunks.send(Ok(Bytes::copy_from_slice(&buffer[..read])))) {
            Some(Ok(())) => {}
            Some(Err(_)) => return Err(error(ErrorKind::Cancelled, "nobody reads the body any more")),
            None => return Err(timed_out(Step::Body, until.elapsed())),
        }
    }
}

fn failure(call: &Call, cause: ::ureq::Error) -> Error {
    if call.is_over() { cut_off() } else { from_ureq(cause, call.stage().get()) }
}

/// Delivers how a body ended. A channel that merely closes reads as a complete body, so the place for an
/// error is reserved at the start, and one is sent unless the body is known to be complete.
struct Ending(Option<mpsc::OwnedPermit<Result<Bytes>>>);

impl Ending {
    fn reserve(chunks: &mpsc::Sender<Result<Bytes>>) -> Self {
        Self(chunks.clone().try_reserve_owned().ok())
    }

    fn clean(&mut self) {
        self.0 = None;
    }

    fn error(&mut self, error: Error) {
        if let Some(place) = self.0.take() {
            place.send(Err(error));
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.error(error(ErrorKind::Transport, "the body was cut short"));
    }
}

/// Blocks this thread on `future`, at most until `until`. Needs no runtime, which may be gone.
fn wait_until<F: Future>(until: Instant, future: F) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}
