//! The default pool: a semaphore in front of a stack.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStatus, PooledConnection,
    ReturnConnection,
};
use crate::{Bound, Deadline, Error, ErrorKind, Health, Result, Slot, Slots};

/// The name that `pool.backend` chooses this pool by.
pub const NAME: &str = "lean";

/// A bounded pool that hands out the connection used last.
///
/// # Contract
/// That of [`ConnectionPool`], whole. A task of its own runs only while connections are idle, to drop those that
/// are idle too long.
pub struct LeanPool(Arc<Inner>);

struct Inner {
    connector: Arc<dyn Connector>,
    settings: PoolSettings,
    /// One for each connection in use or being made.
    slots: Slots,
    /// One for each caller that waits.
    waiting: Slots,
    stack: Mutex<Stack>,
    counts: Counts,
}

/// The idle connections, the one used last on top. Together with the slots in use they are never more than the
/// slots there are: whoever has a slot takes from here before making another.
#[derive(Default)]
struct Stack {
    idle: Vec<Idle>,
    closed: bool,
    /// Whether a reaper runs or is about to.
    reaping: bool,
    reaper: Option<AbortHandle>,
    /// Where the reaper runs: known from the first acquire on.
    runtime: Option<Handle>,
}

struct Idle {
    connection: Box<dyn Connection>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    created: AtomicU64,
    acquired: AtomicU64,
    discarded: AtomicU64,
    reaped: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    rejected: AtomicU64,
}

fn add(count: &AtomicU64, n: usize) {
    count.fetch_add(n as u64, Ordering::Relaxed);
}

impl LeanPool {
    /// A pool over `connector`. Nothing connects before the first acquire.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Self {
        Self(Arc::new(Inner {
            slots: Slots::new("pool.max_connections", "connections", settings.max_connections),
            waiting: Slots::new("pool.max_waiting", "callers", settings.max_waiting),
            connector,
            settings,
            stack: Mutex::default(),
            counts: Counts::default(),
        }))
    }
}

#[async_trait]
impl ConnectionPool for LeanPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        let inner = &self.0;
        let slot = inner.slot(deadline).await?;
        let connection = inner.idle_or_new(deadline).await.inspect_err(|error| {
            if error.kind() == ErrorKind::Timeout {
                add(&inner.counts.timed_out, 1);
            }
        })?;
        add(&inner.counts.acquired, 1);
        Ok(PooledConnection::new(connection, Box::new(Home { inner: Arc::clone(inner), slot })))
    }

    fn status(&self) -> PoolStatus {
        self.0.status()
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let check = async {
            let mut connection = self.acquire(deadline).await?;
            connection.check(deadline.at_most(self.0.settings.check_timeout)).await
        };
        match check.await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    fn capabilities(&self) -> PoolCapabilities {
        PoolCapabilities::default().bounded(true).health_checks(true).reaps_idle(true)
    }

    fn set_max_connections(&self, max: usize) -> Result<()> {
        if max == 0 {
            let message = "max_connections = 0 would stop all work; the least is 1";
            return Err(Error::new(ErrorKind::InvalidInput, self.0.settings.name, message));
        }
        let surplus = {
            let mut stack = self.0.stack.lock();
            self.0.slots.set_max(max);
            let room = max.saturating_sub(self.0.slots.used());
            // The oldest lie at the bottom.
            let surplus = stack.idle.len().saturating_sub(room);
            stack.idle.drain(..surplus).collect::<Vec<_>>()
        };
        add(&self.0.counts.reaped, surplus.len());
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> usize {
        self.0.shut();
        let _ = deadline.bound(self.0.settings.name, "closing", self.0.slots.idle()).await;
        self.0.slots.used()
    }
}

impl Inner {
    /// Waits for a slot, in turn.
    async fn slot(&self, deadline: Deadline) -> Result<Slot> {
        match self.slots.try_acquire() {
            Err(error) if error.kind() == ErrorKind::Capacity => {}
            other => return other.map_err(|_| self.closed()),
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            add(&self.counts.rejected, 1);
            let message =
                format!("all connections are in use and {} callers wait already", self.waiting.max());
            return Err(self.described(Error::new(ErrorKind::Capacity, self.settings.name, message)));
        };
        let slot =
            deadline.bound(self.settings.name, "waiting for a free connection", self.slots.acquire()).await;
        match slot {
            Ok(slot) => slot.map_err(|_| self.closed()),
            Err(error) => {
                add(&self.counts.timed_out, 1);
                Err(self.described(error))
            }
        }
    }

    /// A connection that works: the one used last, or a new one.
    async fn idle_or_new(&self, deadline: Deadline) -> Result<Box<dyn Connection>> {
        while let Some(mut idle) = self.pop()? {
            let sound = idle.connection.is_open()
                && (idle.since.elapsed() <= self.settings.check_after
                    || self.check(&mut idle, deadline).await?);
            if sound {
                return Ok(idle.connection);
            }
            drop(idle);
            add(&self.counts.discarded, 1);
        }
        self.connect(deadline).await
    }

    fn pop(&self) -> Result<Option<Idle>> {
        let mut stack = self.stack.lock();
        if stack.closed {
            return Err(self.closed());
        }
        if stack.runtime.is_none() {
            stack.runtime = Handle::try_current().ok();
        }
        Ok(stack.idle.pop())
    }

    /// Whether a connection answers; an error only when the caller's own deadline has passed.
    async fn check(&self, idle: &mut Idle, deadline: Deadline) -> Result<bool> {
        let patience = deadline.at_most(self.settings.check_timeout);
        match patience.bound(self.settings.name, "checking a connection", idle.connection.check()).await {
            Ok(checked) => Ok(checked.is_ok()),
            Err(error) if deadline.has_passed() => {
                add(&self.counts.discarded, 1);
                Err(self.described(error))
            }
            Err(_) => Ok(false),
        }
    }

    async fn connect(&self, deadline: Deadline) -> Result<Box<dyn Connection>> {
        let patience = deadline.at_most(self.settings.connect_timeout);
        let connected = patience.bound(self.settings.name, "connecting", self.connector.connect()).await;
        match connected {
            Ok(Ok(connection)) => {
                add(&self.counts.created, 1);
                Ok(connection)
            }
            Ok(Err(error)) => {
                add(&self.counts.failed, 1);
                Err(error)
            }
            Err(error) => {
                add(&self.counts.failed, 1);
                Err(self.described(error))
            }
        }
    }

    /// Keeps a connection that came back, if it may be kept.
    fn keep(self: &Arc<Self>, connection: Box<dyn Connection>) {
        let mut stack = self.stack.lock();
        // Its own slot is still counted as used.
        let fits = self.slots.used() + stack.idle.len() <= self.slots.max();
        if stack.closed || !fits || stack.idle.len() >= self.settings.max_idle {
            drop(stack);
            drop(connection);
            add(&self.counts.reaped, 1);
            return;
        }
        stack.idle.push(Idle { connection, since: Instant::now() });
        if !stack.reaping
            && let Some(runtime) = stack.runtime.clone()
        {
            stack.reaping = true;
            // Not under the lock: on a runtime that has ended the task is dropped at once, and takes it.
            drop(stack);
            let reaper = runtime.spawn(Reaper(Arc::clone(self)).run()).abort_handle();
            let mut stack = self.stack.lock();
            if stack.closed {
                reaper.abort();
            }
            stack.reaper = Some(reaper);
        }
    }

    /// Drops what is idle too long; when to look again, if anything is still idle.
    fn reap(&self) -> Option<Instant> {
        let idle_timeout = self.settings.idle_timeout;
        let (old, next) = {
            let mut stack = self.stack.lock();
            let now = Instant::now();
            let old = stack.idle.iter().take_while(|idle| now - idle.since >= idle_timeout).count();
            let old: Vec<_> = stack.idle.drain(..old).collect();
            let next = stack.idle.first().map(|oldest| oldest.since + idle_timeout);
            stack.reaping = next.is_some();
            (old, next)
        };
        add(&self.counts.reaped, old.len());
        next
    }

    fn shut(&self) {
        self.slots.close();
        let idle = {
            let mut stack = self.stack.lock();
            stack.closed = true;
            if let Some(reaper) = stack.reaper.take() {
                reaper.abort();
            }
            std::mem::take(&mut stack.idle)
        };
        drop(idle);
    }

    fn status(&self) -> PoolStatus {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut status = PoolStatus::default();
        status.name = self.settings.name;
        {
            let stack = self.stack.lock();
            status.idle = stack.idle.len() as u64;
            status.in_use = self.slots.used() as u64;
        }
        status.open = status.idle + status.in_use;
        status.waiting = self.waiting.used() as u64;
        status.created = count(&self.counts.created);
        status.acquired = count(&self.counts.acquired);
        status.discarded = count(&self.counts.discarded);
        status.reaped = count(&self.counts.reaped);
        status.failed = count(&self.counts.failed);
        status.timed_out = count(&self.counts.timed_out);
        status.rejected = count(&self.counts.rejected);
        status.bounds = vec![self.connections(), self.waiting.bound()];
        status
    }

    /// Open connections against their limit. Idle ones count too, which the slots know nothing of.
    fn connections(&self) -> Bound {
        let in_use = self.slots.bound();
        let open = self.slots.used() + self.stack.lock().idle.len();
        Bound::new(in_use.name, in_use.unit, open as u64, in_use.peak, in_use.limit)
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, self.settings.name, "the pool is closed")
    }

    fn described(&self, error: Error) -> Error {
        error
            .with_context("in_use", self.slots.used())
            .with_context("limit", self.slots.max())
            .with_context("waiting", self.waiting.used())
    }
}

/// Where a connection goes when its user drops it.
struct Home {
    inner: Arc<Inner>,
    slot: Slot,
}

impl ReturnConnection for Home {
    fn give_back(self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        if keep && connection.is_open() {
            self.inner.keep(connection);
        } else {
            drop(connection);
            add(&self.inner.counts.discarded, 1);
        }
        // Only now may another be made in its place.
        drop(self.slot);
    }
}

/// Drops connections as they grow too old, for as long as any are idle and the pool is there.
struct Reaper(Arc<Inner>);

impl Reaper {
    async fn run(self) {
        while let Some(next) = self.0.reap() {
            tokio::time::sleep_until(next).await;
        }
    }
}

/// The runtime may end first: another one may then take over.
impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.stack.lock().reaping = false;
    }
}

impl Drop for LeanPool {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl fmt::Debug for LeanPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeanPool").field("status", &self.status()).finish_non_exhaustive()
    }
}
