//! A request's way from the caller to the job that sends it, and the response's way back.

use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connection_pool::{AbortOnDrop, ActiveCall, ConnectionPool, PoolKey, PooledConnection};
use super::errors::{AtomicRequestPhase, COMPONENT, body_too_large, dropped_error, error, timed_out};
use super::settings::Settings;
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, check_public_host};
use crate::support::{LazyTask, OwnedPermit, PermitQueue, ResizableSemaphore};
use crate::{CloseReport, Deadline, ErrorKind, Health, LimitUsage, Result, unsupported_limit_error};

/// Chunks of a body that are read ahead of the caller.
const BODY_BUFFER_CHUNKS: usize = 4;

/// What the transports have in common: the queue in front of their connections, and its lifecycle.
pub(super) struct Exchange<C: PooledConnection> {
    pub(super) queue: PermitQueue,
    pub(super) pool: Arc<ConnectionPool<C>>,
    reaper: LazyTask,
}

/// A request that has a connection and may start.
pub(super) struct Admitted<C: PooledConnection> {
    pub(super) call: ActiveCall<C>,
    pub(super) permit: OwnedPermit,
    pub(super) deadline: Deadline,
}

impl<C: PooledConnection> Exchange<C> {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        let permits =
            ResizableSemaphore::new("pool.max_connections", "connections", settings.max_connections);
        let waiters = ResizableSemaphore::new("http.max_waiting", "requests", settings.max_waiting);
        Self {
            queue: PermitQueue::new(permits.clone(), waiters).named(COMPONENT, "waiting for a connection"),
            pool: Arc::new(ConnectionPool::new(settings, permits)),
            reaper: LazyTask::default(),
        }
    }

    /// Checks a request and waits for a connection, on which nothing is sent yet.
    pub(super) async fn admit(
        &self,
        request: &HttpRequest,
        runtime: Option<tokio::runtime::Id>,
        new: impl FnOnce(&PoolKey) -> C,
    ) -> Result<Admitted<C>> {
        let settings = &self.pool.settings;
        let origin = settings.checked_origin(&request.request)?;
        let deny_private = request.deny_private_addresses;
        if deny_private {
            check_public_host(COMPONENT, request.request.uri())?;
        }
        let total = Deadline::after(settings.total_timeout);
        let (deadline, queue_deadline) = match request.deadline {
            Some(deadline) => (deadline.min(total), deadline.min(total)),
            None => (total, total.capped(settings.pool_timeout)),
        };
        self.reaper.ensure(|| self.pool.reap());
        let permit = self.queue.acquire(queue_deadline).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Capacity {
                self.pool.counters.rejected();
            }
        })?;
        let call = self.pool.checkout(PoolKey { origin: origin.into(), runtime, deny_private }, new)?;
        Ok(Admitted { call, permit, deadline })
    }

    /// Counts a failed request.
    pub(super) fn counted(&self, result: Result<HttpResponse>) -> Result<HttpResponse> {
        result.inspect_err(|_| self.pool.counters.failed())
    }

    pub(super) fn stats(&self) -> HttpStats {
        let mut stats = self.pool.counters.stats();
        stats.idle_connections = self.pool.idle() as u64;
        stats
    }

    pub(super) fn limits(&self) -> Vec<LimitUsage> {
        self.queue.limits()
    }

    pub(super) fn health(&self) -> Health {
        if self.queue.permits().is_closed() {
            return Health::unhealthy("transport is shut down");
        }
        match self.queue.waiters().used() {
            0 => Health::Healthy,
            waiting => Health::degraded(format!("{waiting} requests are waiting for a connection")),
        }
    }

    pub(super) fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != self.queue.permits().key() {
            return Err(unsupported_limit_error(COMPONENT, key));
        }
        if max == 0 {
            return Err(error(ErrorKind::InvalidInput, "pool.max_connections must be at least 1"));
        }
        self.pool.set_max_connections(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    pub(super) async fn close(&self, deadline: Deadline) -> CloseReport {
        self.queue.close();
        let active = self.queue.permits().used();
        // Requests that are active at the deadline are aborted and counted next.
        let idle = self.queue.permits().wait_idle();
        let _ = deadline.run(COMPONENT, "waiting for active requests", idle).await;
        let aborted = self.pool.close();
        CloseReport::new(active.saturating_sub(aborted), aborted, Vec::new())
    }
}

impl<C: PooledConnection> Drop for Exchange<C> {
    fn drop(&mut self) {
        self.pool.close();
    }
}

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
