//! One request, on the thread that blocks for it.

use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use ::http::{Method, Request, Response};
use ::ureq::Body;
use bytes::Bytes;

use super::connection::PooledAgent;
use super::errors::from_ureq;
use crate::backends::http::connection_pool::ActiveCall;
use crate::backends::http::errors::{RequestPhase, shut_down_error, timed_out};
use crate::backends::http::response::{Head, ResponseSender};
use crate::{Error, Result};

/// Size of the first chunk: the tokens of a stream come in less, and a thousand streams have as many buffers.
const FIRST_CHUNK_BYTES: usize = 1 << 10;
/// Maximum size of a chunk.
const MAX_CHUNK_BYTES: usize = 16 << 10;

/// A request, and where its response goes.
pub(super) struct RequestJob {
    pub(super) request: Request<Bytes>,
    pub(super) deadline: Instant,
    pub(super) call: ActiveCall<PooledAgent>,
    pub(super) response: ResponseSender,
}

impl RequestJob {
    /// Sends the request, delivers the head, then the body as it is read. `Ok` means that the body is complete.
    pub(super) fn run(self) -> Result<()> {
        let Self { request, deadline, call, mut response } = self;
        if call.is_aborted() {
            return Err(shut_down_error(RequestPhase::Connecting));
        }
        let (parts, body) = send(&call, request, deadline)?.into_parts();
        response.head(Head { status: parts.status, headers: parts.headers })?;
        stream_body(&call, body, &mut response, deadline)?;
        call.complete();
        Ok(())
    }
}

fn send(
    call: &ActiveCall<PooledAgent>,
    request: Request<Bytes>,
    deadline: Instant,
) -> Result<Response<Body>> {
    let left = deadline.saturating_duration_since(Instant::now());
    let (parts, body) = request.into_parts();
    let bytes = body.len();
    call.pool.counters.sent(bytes);
    // Unless a new connection has to be made, which sets the phase again.
    call.phase().set(RequestPhase::Response);
    let agent = &call.connection().agent;
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
fn stream_body(
    call: &ActiveCall<PooledAgent>,
    body: Body,
    response: &mut ResponseSender,
    deadline: Instant,
) -> Result<()> {
    call.phase().set(RequestPhase::Body);
    let (mut reader, mut buffer) = (body.into_reader(), vec![0; FIRST_CHUNK_BYTES]);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        let read = reader.read(&mut buffer).map_err(|cause| map_error(call, cause.into()))?;
        if read == 0 {
            // An aborted connection can look like the end of a body without a length.
            return if call.is_aborted() { Err(shut_down_error(RequestPhase::Body)) } else { Ok(()) };
        }
        call.pool.counters.received(read);
        let sending = response.chunk(Bytes::copy_from_slice(&buffer[..read]));
        block_on_until(deadline, &waker, sending)
            .unwrap_or_else(|| Err(timed_out(RequestPhase::Body, deadline.elapsed())))?;
        if read == buffer.len() && read < MAX_CHUNK_BYTES {
            buffer = vec![0; 4 * read];
        }
    }
}

fn map_error(call: &ActiveCall<PooledAgent>, cause: ::ureq::Error) -> Error {
    let phase = call.phase().get();
    if call.is_aborted() {
        return shut_down_error(phase);
    }
    from_ureq(cause, phase, call.pool.settings.has_proxy_credentials())
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
