//! The pool from before there were bounds.

use crate::{CloseReport, Component, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStats, PooledConnection,
    ReturnConnection,
};
use crate::support::{OwnedPermit, ResizableSemaphore};
use crate::{Deadline, Error, ErrorKind, Health, LimitUsage, Result};

/// The name that `pool.backend` chooses this pool by.
pub const NAME: &str = "legacy";

/// Pools as Python arshai 1.15.0 does: whoever finds no idle connection makes another, none is asked whether it
/// still works, and none is dropped for being idle or too many. Of the deadlines it keeps the caller's own.
///
/// It is what `ARSHAI_USE_LEGACY_CONNECTIONS` goes back to.
pub struct LegacyPool(Arc<Inner>);

struct Inner {
    connector: Arc<dyn Connector>,
    name: &'static str,
    /// Counted, not bounded.
    slots: ResizableSemaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one used last at the end.
    idle: Vec<Box<dyn Connection>>,
    making: u64,
    out: u64,
    peak: u64,
    closed: bool,
    created: u64,
    acquired: u64,
    discarded: u64,
    reaped: u64,
    failed: u64,
    timed_out: u64,
}

impl LegacyPool {
    /// A pool over `connector`. Nothing connects before the first acquire. Of the settings it heeds the name.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Self {
        Self(Arc::new(Inner {
            connector,
            name: settings.name,
            slots: ResizableSemaphore::new("pool.max_connections", "connections", ResizableSemaphore::MAX),
            state: Mutex::default(),
        }))
    }
}

#[async_trait]
impl Component for LegacyPool {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0.name)
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let state = self.0.state.lock();
        vec![LimitUsage::new("pool.max_connections", "connections", state.open(), state.peak, None)]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        match self.0.ask(deadline).await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.shut();
        // Whether time ran out shows in how many are still out.
        let _ = deadline.run(self.0.name, "closing", self.0.slots.wait_idle()).await;
        super::closed_with(self.0.slots.used())
    }
}

#[async_trait]
impl ConnectionPool for LegacyPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        let (connection, home) = self.0.acquire(deadline).await?;
        Ok(PooledConnection::new(connection, Box::new(home)))
    }

    fn stats(&self) -> PoolStats {
        self.0.state.lock().status(self.0.name)
    }

    fn capabilities(&self) -> PoolCapabilities {
        PoolCapabilities::default()
    }
}

impl Inner {
    async fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<(Box<dyn Connection>, Home)> {
        let slot = self.slots.try_acquire_owned().ok_or_else(|| self.closed())?;
        let mut home = Home { inner: Arc::clone(self), counted: Counted::Nothing, _slot: slot };
        if let Some(connection) = home.take()? {
            return Ok((connection, home));
        }
        let connected = deadline.run(self.name, "connecting", self.connector.connect()).await;
        match connected {
            Ok(Ok(connection)) => {
                home.made()?;
                Ok((connection, home))
            }
            Ok(Err(error)) => {
                self.state.lock().failed += 1;
                Err(error)
            }
            Err(error) => {
                let mut state = self.state.lock();
                state.failed += 1;
                state.timed_out += 1;
                Err(error.with_context("in_use", state.out))
            }
        }
    }

    async fn ask(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let (mut connection, home) = self.acquire(deadline).await?;
        let answer = deadline.run(self.name, "checking a connection", connection.check()).await;
        let answer = answer.and_then(|answer| answer);
        Box::new(home).give_back(connection, answer.is_ok());
        answer
    }

    fn shut(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.closed = true;
            state.reaped += state.idle.len() as u64;
            std::mem::take(&mut state.idle)
        };
        self.slots.close();
        drop(idle);
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, self.name, "the pool is closed")
    }
}

impl State {
    fn open(&self) -> u64 {
        self.making + self.out + self.idle.len() as u64
    }

    fn status(&self, name: &'static str) -> PoolStats {
        let mut status = PoolStats::default();
        status.name = name;
        status.open = self.open();
        status.idle = self.idle.len() as u64;
        status.in_use = self.out;
        status.created = self.created;
        status.acquired = self.acquired;
        status.discarded = self.discarded;
        status.reaped = self.reaped;
        status.failed = self.failed;
        status.timed_out = self.timed_out;
        status
    }
}

/// Where a connection goes when its user drops it. However it ends, it is counted out; its slot is given back
/// last.
struct Home {
    inner: Arc<Inner>,
    counted: Counted,
    _slot: OwnedPermit,
}

/// What a home stands for in the pool's counts.
#[derive(Clone, Copy)]
enum Counted {
    Nothing,
    Making,
    /// If it does not come back it was discarded.
    Out,
}

impl Home {
    /// The connection used last that is still open; without one, another is counted as being made.
    fn take(&mut self) -> Result<Option<Box<dyn Connection>>> {
        loop {
            let mut state = self.inner.state.lock();
            if state.closed {
                return Err(self.inner.closed());
            }
            let popped = state.idle.pop();
            match popped {
                Some(connection) if connection.is_open() => {
                    state.out += 1;
                    state.acquired += 1;
                    self.counted = Counted::Out;
                    return Ok(Some(connection));
                }
                Some(broken) => {
                    state.discarded += 1;
                    drop(state);
                    drop(broken);
                }
                None => {
                    state.making += 1;
                    state.peak = state.peak.max(state.open());
                    self.counted = Counted::Making;
                    return Ok(None);
                }
            }
        }
    }

    fn made(&mut self) -> Result<()> {
        let mut state = self.inner.state.lock();
        state.created += 1;
        state.making -= 1;
        state.out += 1;
        self.counted = Counted::Out;
        if state.closed {
            return Err(self.inner.closed());
        }
        state.acquired += 1;
        Ok(())
    }

    /// Keeps a connection that came back, or gives it back to be dropped.
    fn keep(&mut self, connection: Box<dyn Connection>) -> Option<Box<dyn Connection>> {
        let mut state = self.inner.state.lock();
        if state.closed {
            return Some(connection);
        }
        state.idle.push(connection);
        state.out -= 1;
        self.counted = Counted::Nothing;
        None
    }
}

impl ReturnConnection for Home {
    fn give_back(mut self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        let unkept = match keep && connection.is_open() {
            true => self.keep(connection),
            false => Some(connection),
        };
        // Dropped before it is counted out.
        drop(unkept);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        match self.counted {
            Counted::Nothing => {}
            Counted::Making => state.making -= 1,
            Counted::Out => {
                state.out -= 1;
                state.discarded += 1;
            }
        }
    }
}

impl Drop for LegacyPool {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl fmt::Debug for LegacyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyPool").field("status", &self.stats()).finish_non_exhaustive()
    }
}
