//! The default pool: a bounded queue of callers in front of a stack of idle connections.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use super::limits::PoolLimits;
use super::{check_health, closed_error};
use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStats, PooledConnection,
    ReturnConnection,
};
use crate::support::{IdleStack, LazyTask, OwnedPermit};
use crate::{CloseReport, Component, Deadline, Health, LimitUsage, Result, ShutdownPhase};

/// Minimum interval between two passes of the reaper, and thereby the most by which `idle_timeout` is exceeded.
const MIN_REAP_INTERVAL: Duration = Duration::from_secs(1);

/// A pool that keeps the whole contract of [`ConnectionPool`].
///
/// Beyond the contract, a check that fails also drops the connections that were idle for as long as the one checked:
/// they are as likely to be broken. One background task drops idle connections; the first acquire starts it, and it
/// ends with the pool.
pub struct BoundedPool(Arc<Inner>);

struct Inner {
    connector: Arc<dyn Connector>,
    limits: PoolLimits,
    state: Mutex<State>,
    reaper: LazyTask,
}

/// Connections, counted exactly. They are never more than the limit: one is only opened by a caller with a permit,
/// while none is idle.
#[derive(Default)]
struct State {
    idle: IdleStack<(), Box<dyn Connection>>,
    connecting: usize,
    in_use: usize,
    peak: usize,
    /// The counters that never fall.
    totals: PoolStats,
}

impl BoundedPool {
    /// Its name in `pool.backend`.
    pub const NAME: &'static str = "bounded";

    /// A pool over `connector`. Nothing connects before the first acquire.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for `max_connections` of zero.
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            connector,
            limits: PoolLimits::new(settings)?,
            state: Mutex::default(),
            reaper: LazyTask::default(),
        })))
    }
}

#[async_trait]
impl ConnectionPool for BoundedPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        self.0.acquire(deadline).await.map_err(|error| self.0.limits.acquire_error(error, deadline))
    }

    fn stats(&self) -> PoolStats {
        let state = self.0.state.lock();
        let mut stats = self.0.limits.stats(state.totals.clone());
        stats.open = state.open() as u64;
        stats.idle = state.idle.len() as u64;
        stats.in_use = state.in_use as u64;
        stats
    }

    fn capabilities(&self) -> PoolCapabilities {
        let mut all = PoolCapabilities::default();
        (all.bounded, all.health_checks, all.reaps_idle, all.drops_idle) = (true, true, true, true);
        all
    }
}

#[async_trait]
impl Component for BoundedPool {
    fn name(&self) -> Cow<'_, str> {
        self.0.limits.settings.name.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let state = self.0.state.lock();
        self.0.limits.usage(state.open() as u64, state.peak as u64)
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        check_health(self, deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let mut state = self.0.state.lock();
        self.0.limits.set_limit(key, max)?;
        self.0.drop_excess(&mut state);
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.begin_close();
        self.0.limits.wait_returned(deadline).await
    }
}

impl Inner {
    async fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<PooledConnection> {
        let _excess = DropExcess(self);
        let permit = self.limits.acquire_permit(deadline).await?;
        let mut permit = PoolPermit { pool: Arc::clone(self), counted: Counted::Nothing, _permit: permit };
        let connection = self.ready_connection(&mut permit, deadline).await?;
        self.start_reaper();
        self.state.lock().totals.acquired += 1;
        Ok(PooledConnection::new(connection, Box::new(permit)))
    }

    /// The connection used last that is usable, or a new one.
    async fn ready_connection(
        &self,
        permit: &mut PoolPermit,
        deadline: Deadline,
    ) -> Result<Box<dyn Connection>> {
        while let Some((mut connection, idle_for)) = permit.checkout()? {
            if connection.is_open() {
                if idle_for <= self.limits.settings.check_after {
                    return Ok(connection);
                }
                if self.limits.passes_check(connection.as_mut(), deadline).await? {
                    return Ok(connection);
                }
                self.discard_idle_for(idle_for);
            }
            drop(connection);
            permit.discarded();
        }
        self.connect(permit, deadline).await
    }

    async fn connect(&self, permit: &mut PoolPermit, deadline: Deadline) -> Result<Box<dyn Connection>> {
        match self.limits.connect(deadline, self.connector.connect()).await {
            Ok(connection) => {
                permit.connected();
                Ok(connection)
            }
            Err(error) => {
                self.state.lock().totals.failed += 1;
                Err(error)
            }
        }
    }

    /// Drops what was idle for as long as a connection that failed its check.
    fn discard_idle_for(&self, idle_for: Duration) {
        let state = &mut *self.state.lock();
        state.totals.discarded += state.idle.trim(idle_for, usize::MAX).len() as u64;
    }

    /// Drops idle connections above the limits: under the lock, so that no other is opened until they are gone.
    fn drop_excess(&self, state: &mut State) {
        let max_idle = match self.limits.closing().is_cancelled() {
            true => 0,
            // A waiting caller is about to take one.
            false => self.limits.settings.max_idle.saturating_add(self.limits.waiting()),
        };
        let excess = state.open().saturating_sub(self.limits.max_connections());
        let max_idle = max_idle.min(state.idle.len().saturating_sub(excess));
        if state.idle.len() > max_idle {
            state.totals.reaped += state.idle.trim(Duration::MAX, max_idle).len() as u64;
        }
    }

    /// Drops what was idle for too long; returns when to look again.
    fn reap(&self) -> Duration {
        let state = &mut *self.state.lock();
        let idle_timeout = self.limits.settings.idle_timeout;
        state.totals.reaped += state.idle.trim(idle_timeout, usize::MAX).len() as u64;
        let oldest = state.idle.oldest_since().map_or(Duration::ZERO, |since| since.elapsed());
        idle_timeout.saturating_sub(oldest).max(MIN_REAP_INTERVAL)
    }

    fn start_reaper(self: &Arc<Self>) {
        self.reaper.ensure(|| {
            let (pool, closing) = (Arc::downgrade(self), self.limits.closing().clone());
            let reap = async move {
                while let Some(delay) = pool.upgrade().map(|pool| pool.reap()) {
                    tokio::time::sleep(delay).await;
                }
            };
            async move {
                closing.run_until_cancelled(reap).await;
            }
        });
    }

    fn begin_close(&self) {
        self.limits.begin_close();
        self.drop_excess(&mut self.state.lock());
    }
}

impl State {
    fn open(&self) -> usize {
        self.connecting + self.in_use + self.idle.len()
    }
}

/// Drops, at the end of an acquire, what was kept for it while it waited.
struct DropExcess<'a>(&'a Inner);

impl Drop for DropExcess<'_> {
    fn drop(&mut self) {
        self.0.drop_excess(&mut self.0.state.lock());
    }
}

/// RAII permit for one connection. Dropping it returns or discards the connection, updates the counters, and only then
/// releases the permit.
struct PoolPermit {
    pool: Arc<Inner>,
    counted: Counted,
    _permit: OwnedPermit,
}

/// How the pool counts a permit.
enum Counted {
    Nothing,
    Connecting,
    InUse,
}

impl PoolPermit {
    /// Takes the connection used last, with its idle time; `None` counts one that is being opened.
    fn checkout(&mut self) -> Result<Option<(Box<dyn Connection>, Duration)>> {
        let mut state = self.pool.state.lock();
        if self.pool.limits.closing().is_cancelled() {
            return Err(closed_error(self.pool.limits.settings.name));
        }
        let checked_out = state.idle.pop(&());
        match checked_out {
            Some(_) => {
                state.in_use += 1;
                self.counted = Counted::InUse;
            }
            None => {
                state.connecting += 1;
                self.counted = Counted::Connecting;
                state.peak = state.peak.max(state.open());
            }
        }
        Ok(checked_out)
    }

    fn connected(&mut self) {
        let mut state = self.pool.state.lock();
        state.connecting -= 1;
        state.in_use += 1;
        state.totals.created += 1;
        self.counted = Counted::InUse;
    }

    /// Counts that the connection was dropped.
    fn discarded(&mut self) {
        let mut state = self.pool.state.lock();
        match std::mem::replace(&mut self.counted, Counted::Nothing) {
            Counted::Nothing => {}
            Counted::Connecting => state.connecting -= 1,
            Counted::InUse => {
                state.in_use -= 1;
                state.totals.discarded += 1;
            }
        }
    }
}

impl ReturnConnection for PoolPermit {
    fn return_connection(mut self: Box<Self>, connection: Box<dyn Connection>, reusable: bool) {
        if !reusable || !connection.is_open() {
            // Counted until it is gone, by `self`.
            drop(connection);
            return;
        }
        let mut state = self.pool.state.lock();
        state.in_use -= 1;
        state.idle.push((), connection);
        self.pool.drop_excess(&mut state);
        drop(state);
        self.counted = Counted::Nothing;
    }
}

impl Drop for PoolPermit {
    fn drop(&mut self) {
        self.discarded();
    }
}

impl Drop for BoundedPool {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl fmt::Debug for BoundedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoundedPool").field(&self.stats()).finish()
    }
}
