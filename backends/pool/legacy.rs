//! The pool that Python arshai has: as many connections as callers, kept for ever.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStatus, PooledConnection,
    ReturnConnection,
};
use crate::{Bound, Deadline, Error, ErrorKind, Health, Result, Slot, Slots};

/// The name that `pool.backend` chooses this pool by.
pub const NAME: &str = "legacy";

/// The pool before arshai had bounds: every caller that finds no idle connection makes another, none is checked,
/// and none that works is ever dropped. The caller's own deadline still holds.
pub struct LegacyPool(Arc<Inner>);

struct Inner {
    connector: Arc<dyn Connector>,
    name: &'static str,
    /// Never runs out: it counts what is in use.
    slots: Slots,
    /// `None` once the pool is closed.
    idle: Mutex<Option<Vec<Box<dyn Connection>>>>,
    created: AtomicU64,
    acquired: AtomicU64,
    discarded: AtomicU64,
    failed: AtomicU64,
}

impl LegacyPool {
    /// A pool over `connector`; of the settings only the name is heeded.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Self {
        Self(Arc::new(Inner {
            connector,
            name: settings.name,
            slots: Slots::new("pool.max_connections", "connections", Slots::MAX),
            idle: Mutex::new(Some(Vec::new())),
            created: AtomicU64::new(0),
            acquired: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }
}

#[async_trait]
impl ConnectionPool for LegacyPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        let inner = &self.0;
        let slot = inner.slots.try_acquire().map_err(|_| inner.closed())?;
        let connection = match inner.pop()? {
            Some(connection) => connection,
            None => inner.connect(deadline).await?,
        };
        inner.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(PooledConnection::new(connection, Box::new(Home { inner: Arc::clone(inner), slot })))
    }

    fn status(&self) -> PoolStatus {
        let inner = &self.0;
        let mut status = PoolStatus::default();
        status.name = inner.name;
        status.idle = inner.idle.lock().as_ref().map_or(0, Vec::len) as u64;
        status.in_use = inner.slots.used() as u64;
        status.open = status.idle + status.in_use;
        status.created = inner.created.load(Ordering::Relaxed);
        status.acquired = inner.acquired.load(Ordering::Relaxed);
        status.discarded = inner.discarded.load(Ordering::Relaxed);
        status.failed = inner.failed.load(Ordering::Relaxed);
        let peak = inner.slots.bound().peak;
        status.bounds = vec![Bound::new("pool.max_connections", "connections", status.open, peak, None)];
        status
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let check = async { self.acquire(deadline).await?.check(deadline).await };
        match check.await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    fn capabilities(&self) -> PoolCapabilities {
        PoolCapabilities::default()
    }

    fn set_max_connections(&self, _: usize) -> Result<()> {
        let message =
            "this pool has no limit; a rollback flag (ARSHAI_USE_LEGACY_CONNECTIONS) may have chosen it";
        Err(Error::new(ErrorKind::Unsupported, self.0.name, message))
    }

    async fn close(&self, deadline: Deadline) -> usize {
        self.0.shut();
        let _ = deadline.bound(self.0.name, "closing", self.0.slots.idle()).await;
        self.0.slots.used()
    }
}

impl Inner {
    /// The connection used last that is still open.
    fn pop(&self) -> Result<Option<Box<dyn Connection>>> {
        loop {
            let popped = self.idle.lock().as_mut().ok_or_else(|| self.closed())?.pop();
            match popped {
                Some(connection) if !connection.is_open() => {
                    drop(connection);
                    self.discarded.fetch_add(1, Ordering::Relaxed);
                }
                found => return Ok(found),
            }
        }
    }

    async fn connect(&self, deadline: Deadline) -> Result<Box<dyn Connection>> {
        let connected = deadline.bound(self.name, "connecting", self.connector.connect()).await;
        let connected = connected.and_then(|result| result);
        let count = if connected.is_ok() { &self.created } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
        connected
    }

    fn shut(&self) {
        self.slots.close();
        let idle = self.idle.lock().take();
        drop(idle);
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, self.name, "the pool is closed")
    }
}

struct Home {
    inner: Arc<Inner>,
    slot: Slot,
}

impl ReturnConnection for Home {
    fn give_back(self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        let mut connection = Some(connection);
        if keep && let Some(idle) = self.inner.idle.lock().as_mut() {
            idle.extend(connection.take());
        }
        if connection.is_some() {
            drop(connection);
            self.inner.discarded.fetch_add(1, Ordering::Relaxed);
        }
        drop(self.slot);
    }
}

impl Drop for LegacyPool {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl fmt::Debug for LegacyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyPool").field("status", &self.status()).finish_non_exhaustive()
    }
}
