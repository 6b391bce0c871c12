//! The part that all transports share: the queue in front of their connections, and their lifecycle.

#![expect(private_bounds, reason = "drivers are not for use outside")]

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::connection_pool::{ActiveCall, ConnectionPool, PoolKey, PooledConnection};
use super::errors::{COMPONENT, error};
use super::settings::Settings;
use crate::http::{HttpRequest, HttpResponse, HttpStats, HttpTransport, check_public_host};
use crate::support::{LazyTask, OwnedPermit, PermitQueue, ResizableSemaphore};
use crate::{
    CloseReport, Component, Deadline, ErrorKind, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// A bounded HTTP transport. `D` sends its requests: see `UreqTransport` and `HyperTransport`.
pub struct Transport<D: Driver> {
    driver: D,
    queue: PermitQueue,
    pool: Arc<ConnectionPool<D::Connection>>,
    reaper: LazyTask,
}

/// How a transport sends a request.
pub(super) trait Driver: Send + Sync + Sized + 'static {
    /// A connection of the transport's pool.
    type Connection: PooledConnection;

    /// Sends a request once the transport has [admitted](Transport::admit) it.
    fn send(
        &self,
        transport: &Transport<Self>,
        request: HttpRequest,
    ) -> impl Future<Output = Result<HttpResponse>> + Send;
}

/// A request that has a connection and may start.
pub(super) struct Admitted<C: PooledConnection> {
    pub(super) call: ActiveCall<C>,
    pub(super) permit: OwnedPermit,
    pub(super) deadline: Deadline,
}

impl<D: Driver> Transport<D> {
    /// A transport whose driver runs its requests under the permits that it is given.
    pub(super) fn with_driver(
        settings: Arc<Settings>,
        driver: impl FnOnce(&ResizableSemaphore) -> D,
    ) -> Self {
        let permits =
            ResizableSemaphore::new("pool.max_connections", "connections", settings.max_connections);
        let waiters = ResizableSemaphore::new("http.max_waiting", "requests", settings.max_waiting);
        Self {
            driver: driver(&permits),
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
        new: impl FnOnce(&PoolKey) -> D::Connection,
    ) -> Result<Admitted<D::Connection>> {
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
}

#[async_trait]
impl<D: Driver> HttpTransport for Transport<D> {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        self.driver.send(self, request).await.inspect_err(|_| self.pool.counters.failed())
    }

    fn stats(&self) -> HttpStats {
        let mut stats = self.pool.counters.stats();
        stats.idle_connections = self.pool.idle() as u64;
        stats
    }
}

#[async_trait]
impl<D: Driver> Component for Transport<D> {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(COMPONENT)
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
        if max == 0 {
            return Err(error(ErrorKind::InvalidInput, "pool.max_connections must be at least 1"));
        }
        self.pool.set_max_connections(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.queue.close();
        let active = self.queue.permits().used();
        // Requests that are active at the deadline are aborted and counted next.
        let idle = self.queue.permits().wait_idle();
        let _ = deadline.run(COMPONENT, "waiting for active requests", idle).await;
        let aborted = self.pool.close();
        CloseReport::new(active.saturating_sub(aborted), aborted, Vec::new())
    }
}

impl<D: Driver> Drop for Transport<D> {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl<D: Driver> fmt::Debug for Transport<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("queue", &self.queue).finish_non_exhaustive()
    }
}
