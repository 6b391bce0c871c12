//! One request, on the thread that blocks for it.

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use ::ureq::Body;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::agent_pool::ActiveCall;
use super::errors::{RequestPhase, error, from_ureq, shut_down_error, timed_out};
use crate::{Error, ErrorKind, Result};

/// Chunks of a body that are read ahead of the caller.
pub(super) const BODY_BUFFER_CHUNKS: usize = 4;

/// Maximum size of a chunk.
const CHUNK_BYTES: usize = 16 << 10;

/// The head of a response.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// A request, and where its response goes.
pub(super) struct RequestJob {
    pub(super) request: Request<Bytes>,
    pub(super) deadline: Instant,
    pub(super) call: ActiveCall,
    pub(super) head: oneshot::Sender<Head>,
    pub(super) chunks: mpsc::Sender<Bytes>,
}

impl RequestJob {
    /// Sends the request, delivers the head, then the body as it is read. `Ok` means that the body is complete.
    pub(super) fn run(self) -> Result<()> {
        let Self { request, deadline, call, head, chunks } = self;
        if call.is_aborted() {
            return Err(shut_down_error(RequestPhase::Connecting));
        }
        let (parts, body) = send(&call, request, deadline)?.into_parts();
        head.send(Head { status: parts.status, headers: parts.headers }).map_err(|_| dropped_error())?;
        stream_body(&call, body, &chunks, deadline)?;
        call.complete();
        Ok(())
    }
}

fn send(call: &ActiveCall, request: Request<Bytes>, deadline: Instant) -> Result<Response<Body>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let (parts, body) = request.into_parts();
    let bytes = body.len();
    call.pool.counters.sent(bytes);
    // Unless a new connection has to be made, which sets the phase again.
    call.phase().set(RequestPhase::Response);
    let agent = call.agent();
    let response = if bytes == 0 && !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
        let request = Request::from_parts(parts, ());
        agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
    } else {
        let request = Request::from_parts(parts, &body[..]);
        agent.run(agent.configure_request(request).timeout_global(Some(left)).build())
    };
    response.map_err(|cause| map_error(call, cause))
}

/// Reads the body to its end and sends it in chunks, waiting for the caller to read them.
fn stream_body(call: &ActiveCall, body: Body, chunks: &mpsc::Sender<Bytes>, deadline: Instant) -> Result<()> {
    call.phase().set(RequestPhase::Body);
    let limit = call.pool.settings.max_body_bytes;
    let (mut reader, mut buffer, mut total) = (body.into_reader(), vec![0; CHUNK_BYTES], 0_u64);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        let read = reader.read(&mut buffer).map_err(|cause| map_error(call, cause.into()))?;
        if read == 0 {
            // An aborted connection can look like the end of a body without a length.
            return if call.is_aborted() { Err(shut_down_error(RequestPhase::Body)) } else { Ok(()) };
        }
        call.pool.counters.received(read);
        total += read as u64;
        if total > limit {
            let message = "the decoded body exceeds http.max_body_bytes";
            return Err(error(ErrorKind::TooLarge, message).with_context("limit", limit));
        }
        let sending = chunks.send(Bytes::copy_from_slice(&buffer[..read]));
        match block_on_until(deadline, &waker, sending) {
            Some(sent) => sent.map_err(|_| dropped_error())?,
            None => return Err(timed_out(RequestPhase::Body, deadline.elapsed())),
        }
    }
}

fn map_error(call: &ActiveCall, cause: ::ureq::Error) -> Error {
    let phase = call.phase().get();
    if call.is_aborted() { shut_down_error(phase) } else { from_ureq(cause, phase) }
}

fn dropped_error() -> Error {
    error(ErrorKind::Cancelled, "response dropped by the caller")
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks this thread, which `waker` unparks, on `future` until `deadline`. Works after the runtime has ended.
fn block_on_until<F: Future>(deadline: Instant, waker: &Waker, future: F) -> Option<F::Output> {
    let mut context = Context::from_waker(waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}
