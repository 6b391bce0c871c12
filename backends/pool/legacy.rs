//! The legacy pool: a vector of idle connections behind a mutex, without limits.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{check_health, close_report, closed_error};
use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStats, PooledConnection,
    ReturnConnection,
};
use crate::{CloseReport, Component, Deadline, ErrorKind, Health, LimitUsage, Result, ShutdownPhase};

/// Pools as Python arshai 1.15.0 does: a caller that finds no idle connection opens another; connections are neither
/// checked nor dropped for being idle or too many. `ARSHAI_USE_LEGACY_CONNECTIONS` selects it.
pub(super) struct LegacyPool(Arc<Inner>);

struct Inner {
    connector: Arc<dyn Connector>,
    name: &'static str,
    /// Callers that have a connection or are opening one.
    callers: TaskTracker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Box<dyn Connection>>,
    /// `open` counts those being opened and in use.
    stats: PoolStats,
    peak: u64,
}

impl LegacyPool {
    pub(super) const NAME: &'static str = "legacy";

    pub(super) fn new(connector: Arc<dyn Connector>, settings: &PoolSettings) -> Self {
        let (callers, state) = (TaskTracker::new(), Mutex::default());
        Self(Arc::new(Inner { connector, name: settings.name, callers, state }))
    }
}

#[async_trait]
impl ConnectionPool for LegacyPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        let mut caller = self.0.enter();
        while let Some(connection) = caller.checkout()? {
            if connection.is_open() {
                return Ok(caller.hand_out(connection));
            }
            drop(connection);
            caller = self.0.enter();
        }
        let connected = deadline.run(self.0.name, "connecting", self.0.connector.connect()).await;
        match connected.and_then(|connected| connected) {
            Ok(connection) => {
                caller.connected();
                Ok(caller.hand_out(connection))
            }
            Err(error) => {
                let mut state = self.0.state.lock();
                state.stats.failed += 1;
                state.stats.timed_out += u64::from(error.kind() == ErrorKind::Timeout);
                Err(error.not_sent())
            }
        }
    }

    fn stats(&self) -> PoolStats {
        let state = self.0.state.lock();
        let mut stats = state.stats.clone();
        stats.name = self.0.name;
        stats.idle = state.idle.len() as u64;
        stats.open += stats.idle;
        stats
    }

    fn capabilities(&self) -> PoolCapabilities {
        let mut capabilities = PoolCapabilities::default();
        capabilities.drops_idle = true;
        capabilities
    }
}

#[async_trait]
impl Component for LegacyPool {
    fn name(&self) -> Cow<'_, str> {
        self.0.name.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let (open, peak) = (self.stats().open, self.0.state.lock().peak);
        vec![LimitUsage::new("pool.max_connections", "connections", open, peak, None)]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        check_health(self, deadline).await
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.begin_close();
        let _ = deadline.run(self.0.name, "waiting for connections in use", self.0.callers.wait()).await;
        close_report(self.0.callers.len())
    }
}

impl Inner {
    fn enter(self: &Arc<Self>) -> Caller {
        Caller { pool: Arc::clone(self), counted: false, in_use: false, _token: self.callers.token() }
    }

    fn begin_close(&self) {
        self.callers.close();
        let mut state = self.state.lock();
        state.stats.reaped += state.idle.len() as u64;
        state.idle.clear();
    }
}

/// A caller that has a connection or opens one. Dropping it counts the connection as discarded.
struct Caller {
    pool: Arc<Inner>,
    /// Whether `open` counts it.
    counted: bool,
    in_use: bool,
    _token: TaskTrackerToken,
}

impl Caller {
    /// Takes the connection used last; `None` counts one that is being opened.
    fn checkout(&mut self) -> Result<Option<Box<dyn Connection>>> {
        let mut state = self.pool.state.lock();
        if self.pool.callers.is_closed() {
            return Err(closed_error(self.pool.name));
        }
        let idle = state.idle.pop();
        (self.counted, self.in_use) = (true, idle.is_some());
        state.stats.open += 1;
        state.stats.in_use += u64::from(self.in_use);
        state.peak = state.peak.max(state.stats.open + state.idle.len() as u64);
        Ok(idle)
    }

    fn connected(&mut self) {
        let mut state = self.pool.state.lock();
        self.in_use = true;
        state.stats.in_use += 1;
        state.stats.created += 1;
    }

    fn hand_out(self, connection: Box<dyn Connection>) -> PooledConnection {
        self.pool.state.lock().stats.acquired += 1;
        PooledConnection::new(connection, Box::new(self))
    }
}

impl ReturnConnection for Caller {
    fn return_connection(mut self: Box<Self>, connection: Box<dyn Connection>, reusable: bool) {
        let reusable = reusable && connection.is_open();
        let mut state = self.pool.state.lock();
        if !reusable || self.pool.callers.is_closed() {
            drop(state);
            // Counted until it is gone, by `self`.
            drop(connection);
            return;
        }
        state.idle.push(connection);
        state.stats.open -= 1;
        state.stats.in_use -= 1;
        drop(state);
        self.counted = false;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.counted {
            let mut state = self.pool.state.lock();
            state.stats.open -= 1;
            state.stats.in_use -= u64::from(self.in_use);
            state.stats.discarded += u64::from(self.in_use);
        }
    }
}

impl Drop for LegacyPool {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl fmt::Debug for LegacyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LegacyPool").field(&self.stats()).finish()
    }
}
