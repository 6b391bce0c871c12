//! HTTP over [ureq], bounded.
//!
//! ureq blocks, so each request runs on a thread of the transport's own pool, one thread per connection in use. Every
//! connection has a ureq agent to itself (a [`PooledAgent`](agent_pool::PooledAgent)): `Agent::shutdown` closes all
//! sockets of an agent for good, which with one connection per agent aborts exactly one call, and idle connections can
//! be counted against the limit together with active ones.
//!
//! [ureq]: https://docs.rs/ureq

mod agent_pool;
mod connector;
mod counters;
mod dns_cache;
mod errors;
mod request_job;
mod settings;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::stream;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use self::agent_pool::{AbortOnDrop, AgentPool};
use self::errors::{error, timed_out};
use self::request_job::{BODY_BUFFER_CHUNKS, Head, RequestJob};
use self::settings::Settings;
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport, check_public_host};
use crate::support::{BlockingPool, JobHandle, LazyTask, OwnedPermit, PermitQueue, ResizableSemaphore};
use crate::{
    BuildContext, CloseReport, Component, Deadline, ErrorKind, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// The component's name in errors.
const COMPONENT: &str = "http.ureq";

/// HTTP/1.1 over bounded, reused connections.
///
/// At most `pool.max_connections` connections are open, idle ones included; at most `http.max_waiting` requests wait
/// for one. Idle connections are closed after `pool.idle_timeout`, those beyond `pool.max_idle` after a second. There is
/// one thread per connection in use, started when needed and ended after ten idle seconds. Building a transport touches
/// neither network nor disk.
///
/// The system's resolver cannot be interrupted: a dropped call that is resolving a name or connecting releases its
/// permit when that step ends. Resolved addresses are cached for 30 s.
///
/// Response headers are limited to 16 KiB in all, request headers to 16 KiB each.
///
/// ureq writes records through the `log` crate. They leave out headers that may be secret; at level
/// `trace`, and only there, they hold paths and queries: keep `ureq` below it where a query holds a secret.
///
/// Dropping the transport aborts its requests, those whose body is still being read included.
pub struct UreqTransport {
    queue: PermitQueue,
    threads: BlockingPool,
    agents: Arc<AgentPool>,
    reaper: LazyTask,
}

impl UreqTransport {
    /// The name of this backend.
    pub const NAME: &'static str = "ureq";

    /// The name of the legacy transport.
    pub const LEGACY_NAME: &'static str = "legacy";

    /// A transport as `context` configures it.
    ///
    /// # Errors
    /// `Config` when `http.proxy` is not the URL of a proxy.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Ok(Self::new(Settings::new(&context.config)?, context))
    }

    /// The legacy transport: the same code without limits on the queue. With a rollback flag, the
    /// [effective](crate::Config::effective) configuration has the pool sizes of Python arshai too: 50 connections, of
    /// which 20 are kept idle for 30 s.
    ///
    /// # Errors
    /// As [`from_context`](Self::from_context).
    pub fn legacy(context: &BuildContext) -> Result<Self> {
        Ok(Self::new(Settings::new(&context.config)?.with_unlimited_queue(), context))
    }

    fn new(settings: Settings, context: &BuildContext) -> Self {
        let permits =
            ResizableSemaphore::new("pool.max_connections", "connections", settings.max_connections);
        let waiters = ResizableSemaphore::new("http.max_waiting", "requests", settings.max_waiting);
        Self {
            queue: PermitQueue::new(permits.clone(), waiters).named(COMPONENT, "waiting for a connection"),
            threads: BlockingPool::with_permits("http.ureq", permits.clone()),
            agents: Arc::new(AgentPool::new(settings, permits, Arc::clone(&context.clock))),
            reaper: LazyTask::default(),
        }
    }

    async fn acquire_permit(&self, deadline: Deadline) -> Result<OwnedPermit> {
        let acquired = self.queue.acquire(deadline).await;
        if acquired.as_ref().is_err_and(|error| error.kind() == ErrorKind::Capacity) {
            self.agents.counters.rejected();
        }
        acquired
    }

    async fn send_request(&self, request: HttpRequest) -> Result<HttpResponse> {
        let HttpRequest { request, deadline, deny_private_addresses } = request;
        let settings = &self.agents.settings;
        let origin = settings.checked_origin(&request)?;
        if deny_private_addresses {
            check_public_host(COMPONENT, request.uri())?;
        }
        let total = Deadline::after(settings.total_timeout);
        let (deadline, queue_deadline) = match deadline {
            Some(deadline) => (deadline.min(total), deadline.min(total)),
            None => (total, total.capped(settings.pool_timeout)),
        };
        self.reaper.ensure(|| self.agents.reap());
        let permit = self.acquire_permit(queue_deadline).await?;

        let began = Instant::now();
        let call = self.agents.checkout(origin, deny_private_addresses)?;
        let (abort, phase) = (call.abort_on_drop(), Arc::clone(call.phase()));
        let (head_sender, head) = oneshot::channel();
        let (chunk_sender, chunks) = mpsc::channel(BODY_BUFFER_CHUNKS);
        let job = RequestJob {
            request,
            deadline: began + deadline.remaining(),
            call,
            head: head_sender,
            chunks: chunk_sender,
        };
        let mut job = self.threads.spawn_job(permit, move || job.run())?;
        let received = async {
            match head.await {
                Ok(head) => Ok(head),
                Err(_) => Err((&mut job).await.and_then(|result| result).err().unwrap_or_else(ended_early)),
            }
        };
        let Head { status, headers } = tokio::time::timeout_at(deadline.instant(), received)
            .await
            .unwrap_or_else(|_| Err(timed_out(phase.get(), began.elapsed())))?;
        self.agents.counters.responded(began.elapsed());
        Ok(HttpResponse { status, headers, body: body(chunks, job, abort) })
    }

    fn set_max_connections(&self, max: usize) -> Result<()> {
        if max == 0 {
            return Err(error(ErrorKind::InvalidInput, "pool.max_connections must be at least 1"));
        }
        self.agents.set_max_connections(max);
        Ok(())
    }
}

/// The chunks of the job, then its result. Dropped before the end, it aborts the call.
fn body(chunks: mpsc::Receiver<bytes::Bytes>, job: JobHandle<Result<()>>, abort: AbortOnDrop) -> HttpBody {
    HttpBody::new(stream::try_unfold((chunks, job, abort), async |(mut chunks, job, abort)| {
        match chunks.recv().await {
            Some(chunk) => Ok(Some((chunk, (chunks, job, abort)))),
            None => job.await.and_then(|result| result).map(|()| None),
        }
    }))
}

/// The job succeeded without a head, which it never does.
fn ended_early() -> crate::Error {
    error(ErrorKind::Internal, "request ended without a response")
}

#[async_trait]
impl Component for UreqTransport {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("http")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.queue.limits()
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        if self.queue.permits().is_closed() {
            return Health::unhealthy("transport is shut down");
        }
        match self.queue.waiters().used() {
            0 => Health::Healthy,
            waiting => Health::degraded(format!("{waiting} requests are waiting for a connection")),
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != self.queue.permits().key() {
            return Err(unsupported_limit_error(COMPONENT, key));
        }
        self.set_max_connections(usize::try_from(max).unwrap_or(usize::MAX))
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.queue.close();
        let active = self.queue.permits().used();
        // Requests that are active at the deadline are aborted and counted next.
        let idle = self.queue.permits().wait_idle();
        let _ = deadline.run(COMPONENT, "waiting for active requests", idle).await;
        let aborted = self.agents.close();
        CloseReport::new(active.saturating_sub(aborted), aborted, Vec::new())
    }
}

#[async_trait]
impl HttpTransport for UreqTransport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let result = self.send_request(request).await;
        if result.is_err() {
            self.agents.counters.failed();
        }
        result
    }

    fn stats(&self) -> HttpStats {
        let mut stats = self.agents.counters.stats();
        stats.idle_connections = self.agents.idle() as u64;
        stats
    }
}

impl Drop for UreqTransport {
    fn drop(&mut self) {
        self.agents.close();
    }
}

impl fmt::Debug for UreqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqTransport").field("queue", &self.queue).finish_non_exhaustive()
    }
}
