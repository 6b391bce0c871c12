//! The limits of a bounded pool: connections, waiting callers, and the time that each step may take.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::{MAX_CONNECTIONS, close_report, closed_error};
use crate::pool::{Connection, PoolSettings, PoolStats};
use crate::support::{OwnedPermit, PermitQueue, ResizableSemaphore};
use crate::{CloseReport, Deadline, Error, ErrorKind, LimitUsage, Result, unsupported_limit_error};

/// Enforces the settings of a pool. The pool itself keeps and counts the connections.
pub(super) struct PoolLimits {
    pub(super) settings: PoolSettings,
    /// A permit for each caller that has a connection or is about to have one.
    queue: PermitQueue,
    closing: CancellationToken,
    timed_out: AtomicU64,
    rejected: AtomicU64,
}

impl PoolLimits {
    pub(super) fn new(settings: PoolSettings) -> Result<Self> {
        if settings.max_connections == 0 {
            return Err(zero_connections_error(ErrorKind::Config, settings.name));
        }
        let permits = ResizableSemaphore::new(MAX_CONNECTIONS, "connections", settings.max_connections);
        let waiters = ResizableSemaphore::new("pool.max_waiting", "callers", settings.max_waiting);
        Ok(Self {
            queue: PermitQueue::new(permits, waiters).named(settings.name, "waiting for a connection"),
            settings,
            closing: CancellationToken::new(),
            timed_out: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    pub(super) async fn acquire_permit(&self, deadline: Deadline) -> Result<OwnedPermit> {
        self.queue.acquire(deadline).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Capacity {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// The error of an acquire that failed with `error`.
    pub(super) fn acquire_error(&self, error: Error, deadline: Deadline) -> Error {
        if error.kind() == ErrorKind::Timeout && deadline.has_passed() {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
        }
        error.not_sent()
    }

    /// Runs one step of an acquire until it completes, its deadline passes or the pool is closed.
    pub(super) async fn run_step<T>(
        &self,
        deadline: Deadline,
        step: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let name = self.settings.name;
        let completed = self.closing.run_until_cancelled(deadline.run(name, step, work)).await;
        completed.unwrap_or_else(|| Err(closed_error(name)))
    }

    /// Runs `work`, which connects.
    pub(super) async fn connect<T>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let deadline = deadline.capped(self.settings.connect_timeout);
        self.run_step(deadline, "connecting", work).await?
    }

    /// Whether the server answers on this connection; an error at the caller's deadline and when the pool is closed.
    pub(super) async fn passes_check(
        &self,
        connection: &mut dyn Connection,
        deadline: Deadline,
    ) -> Result<bool> {
        let step_deadline = deadline.capped(self.settings.check_timeout);
        match self.run_step(step_deadline, "checking a connection", connection.check()).await {
            Ok(checked) => Ok(checked.is_ok()),
            Err(error) if error.kind() == ErrorKind::Timeout && !deadline.has_passed() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The limits, with the connections that the pool counts.
    pub(super) fn usage(&self, open: u64, peak: u64) -> Vec<LimitUsage> {
        let max = self.max_connections() as u64;
        vec![
            LimitUsage::new(MAX_CONNECTIONS, "connections", open, peak, Some(max)),
            self.queue.waiters().usage(),
        ]
    }

    /// `counted` with what is counted here.
    pub(super) fn stats(&self, mut counted: PoolStats) -> PoolStats {
        counted.name = self.settings.name;
        counted.waiting = self.waiting() as u64;
        counted.timed_out = self.timed_out.load(Ordering::Relaxed);
        counted.rejected = self.rejected.load(Ordering::Relaxed);
        counted
    }

    pub(super) fn max_connections(&self) -> usize {
        self.queue.permits().max()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.waiters().used()
    }

    pub(super) fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != MAX_CONNECTIONS {
            return Err(unsupported_limit_error(self.settings.name, key));
        }
        if max == 0 {
            return Err(zero_connections_error(ErrorKind::InvalidInput, self.settings.name));
        }
        self.queue.permits().set_max(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Cancelled once the pool is closed.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Ends the callers that wait, connect or check, and rejects further ones.
    pub(super) fn begin_close(&self) {
        self.closing.cancel();
        self.queue.close();
    }

    /// Waits until the connections in use have been returned.
    pub(super) async fn wait_returned(&self, deadline: Deadline) -> CloseReport {
        let permits = self.queue.permits();
        // Whether it timed out shows in how many are in use.
        let _ = deadline.run(self.settings.name, "waiting for connections in use", permits.wait_idle()).await;
        close_report(permits.used())
    }
}

fn zero_connections_error(kind: ErrorKind, name: &'static str) -> Error {
    Error::new(kind, name, "max_connections must be at least 1")
}
