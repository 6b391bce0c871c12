//! The way of a response from the job that reads it to the caller.

use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connection_pool::{AbortOnDrop, ActiveCall, ConnectionPool, PooledConnection};
use super::errors::{AtomicRequestPhase, body_too_large, dropped_error, error, timed_out};
use crate::http::{HttpBody, HttpResponse};
use crate::{Deadline, ErrorKind, Result};

/// Chunks of a body that are read ahead of the caller.
const BODY_BUFFER_CHUNKS: usize = 4;

/// The head of a response.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// Where a job delivers the response.
pub(super) struct ResponseSender {
    head: Option<oneshot::Sender<Head>>,
    chunks: mpsc::Sender<Bytes>,
    decoded: u64,
    max_body_bytes: u64,
}

impl ResponseSender {
    pub(super) fn head(&mut self, head: Head) -> Result<()> {
        let sender = self.head.take();
        sender.and_then(|sender| sender.send(head).ok()).ok_or_else(dropped_error)
    }

    /// Delivers a chunk of the decoded body, waiting for the caller to read those before it.
    ///
    /// # Errors
    /// `TooLarge` for a body beyond the limit.
    pub(super) async fn chunk(&mut self, chunk: Bytes) -> Result<()> {
        self.decoded += chunk.len() as u64;
        if self.decoded > self.max_body_bytes {
            return Err(body_too_large(self.max_body_bytes));
        }
        self.chunks.send(chunk).await.map_err(|_| dropped_error())
    }
}

/// Where the caller receives the response.
pub(super) struct ResponseReceiver<C: PooledConnection> {
    head: oneshot::Receiver<Head>,
    chunks: mpsc::Receiver<Bytes>,
    phase: Arc<AtomicRequestPhase>,
    abort: AbortOnDrop<C>,
    pool: Arc<ConnectionPool<C>>,
    deadline: Deadline,
    began: Instant,
}

/// The result of a job: `Ok` when the body is complete.
pub(super) type JobResult = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

pub(super) fn response_channel<C: PooledConnection>(
    call: &ActiveCall<C>,
    deadline: Deadline,
) -> (ResponseSender, ResponseReceiver<C>) {
    let (head_sender, head) = oneshot::channel();
    let (chunk_sender, chunks) = mpsc::channel(BODY_BUFFER_CHUNKS);
    let max_body_bytes = call.pool.settings.max_body_bytes;
    let sender = ResponseSender { head: Some(head_sender), chunks: chunk_sender, decoded: 0, max_body_bytes };
    let receiver = ResponseReceiver {
        head,
        chunks,
        phase: Arc::clone(call.phase()),
        abort: call.abort_on_drop(),
        pool: Arc::clone(&call.pool),
        deadline,
        began: Instant::now(),
    };
    (sender, receiver)
}

impl<C: PooledConnection> ResponseReceiver<C> {
    /// Waits for the head. Dropped before the end of the body, the response aborts the call.
    pub(super) async fn response(self, mut job: JobResult) -> Result<HttpResponse> {
        let Self { head, chunks, phase, abort, pool, deadline, began } = self;
        let received = async {
            match head.await {
                Ok(head) => Ok(head),
                Err(_) => Err((&mut job).await.err().unwrap_or_else(ended_early)),
            }
        };
        let Head { status, headers } = tokio::time::timeout_at(deadline.instant(), received)
            .await
            .unwrap_or_else(|_| Err(timed_out(phase.get(), began.elapsed())))?;
        pool.counters.responded(began.elapsed());
        let body = stream::try_unfold((chunks, job, abort), async |(mut chunks, job, abort)| {
            match chunks.recv().await {
                Some(chunk) => Ok(Some((chunk, (chunks, job, abort)))),
                None => job.await.map(|()| None),
            }
        });
        Ok(HttpResponse { status, headers, body: HttpBody::new(body) })
    }
}

/// The job succeeded without a head, which it never does.
fn ended_early() -> crate::Error {
    error(ErrorKind::Internal, "request ended without a response")
}
