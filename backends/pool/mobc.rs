//! A pool over mobc.

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::limits::PoolLimits;
use super::{check_health, closed_error};
use crate::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStats, PooledConnection,
    ReturnConnection,
};
use crate::support::OwnedPermit;
use crate::{CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase};

/// Keeps idle connections in mobc. Limits and health checks are in front of it, because mobc can neither lower a limit
/// nor say which step of a checkout timed out. It does not drop idle connections after `idle_timeout`, nor when the
/// limit falls, nor on close while another is in use; its [`PoolCapabilities`] say so.
///
/// mobc also reports unlabelled gauges to the `metrics` recorder of the process, if there is one.
pub(super) struct MobcPool(Arc<Inner>);

struct Inner {
    /// `None` once closed. A connection in use keeps mobc's pool alive, and with it the idle ones.
    mobc: Mutex<Option<::mobc::Pool<MobcManager>>>,
    limits: PoolLimits,
    counts: SharedCounts,
}

type SharedCounts = Arc<Mutex<Counts>>;

/// Counted here, because mobc's counters can underflow.
#[derive(Default)]
struct Counts {
    stats: PoolStats,
    connecting: u64,
    peak: u64,
}

impl MobcPool {
    pub(super) const NAME: &'static str = "mobc";

    pub(super) fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Result<Self> {
        let counts = SharedCounts::default();
        let mobc = ::mobc::Pool::builder()
            .max_open(Semaphore::MAX_PERMITS as u64)
            .max_idle(settings.max_idle as u64)
            .get_timeout(None)
            .test_on_check_out(false)
            .build(MobcManager { connector, counts: Arc::clone(&counts) });
        let limits = PoolLimits::new(settings)?;
        Ok(Self(Arc::new(Inner { mobc: Mutex::new(Some(mobc)), limits, counts })))
    }
}

#[async_trait]
impl ConnectionPool for MobcPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        self.0.acquire(deadline).await.map_err(|error| self.0.limits.acquire_error(error, deadline))
    }

    fn stats(&self) -> PoolStats {
        let counts = self.0.counts.lock();
        let mut stats = self.0.limits.stats(counts.stats.clone());
        stats.idle = stats.open - stats.in_use - counts.connecting;
        stats
    }

    fn capabilities(&self) -> PoolCapabilities {
        let mut capabilities = PoolCapabilities::default();
        (capabilities.bounded, capabilities.health_checks) = (true, true);
        capabilities
    }
}

#[async_trait]
impl Component for MobcPool {
    fn name(&self) -> Cow<'_, str> {
        self.0.limits.settings.name.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let counts = self.0.counts.lock();
        self.0.limits.usage(counts.stats.open, counts.peak)
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        check_health(self, deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.0.limits.set_limit(key, max)
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.begin_close();
        self.0.limits.wait_returned(deadline).await
    }
}

impl Inner {
    async fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<PooledConnection> {
        let permit = self.limits.acquire_permit(deadline).await?;
        let (connection, handle) = loop {
            let mut handle = self.checkout(deadline).await?;
            let Some((mut connection, idle_for)) = handle.take() else { continue };
            if self.is_usable(connection.as_mut(), idle_for, deadline).await? {
                break (connection, handle);
            }
        };
        self.counts.lock().stats.acquired += 1;
        let returner = MobcReturn { pool: Arc::clone(self), handle, _permit: permit };
        Ok(PooledConnection::new(connection, Box::new(returner)))
    }

    /// The connection that mobc returns: the one used last or, if none is idle, a new one.
    async fn checkout(&self, deadline: Deadline) -> Result<MobcHandle> {
        let mobc = self.mobc.lock().clone().ok_or_else(|| closed_error(self.limits.settings.name))?;
        let get = async { mobc.get().await.map_err(|error| self.map_error(error)) };
        // mobc's limit and checks are off, so it waits only to connect.
        match self.limits.connect(deadline, get).await {
            Ok(mobc) => Ok(MobcHandle::new(mobc, &self.counts)),
            Err(error) => {
                self.counts.lock().stats.failed += 1;
                Err(error)
            }
        }
    }

    async fn is_usable(
        &self,
        connection: &mut dyn Connection,
        idle_for: Option<Duration>,
        deadline: Deadline,
    ) -> Result<bool> {
        match idle_for {
            None => Ok(true),
            Some(_) if !connection.is_open() => Ok(false),
            Some(idle_for) if idle_for <= self.limits.settings.check_after => Ok(true),
            Some(_) => self.limits.passes_check(connection, deadline).await,
        }
    }

    /// Whether a connection that is returned may become idle.
    fn has_room(&self) -> bool {
        !self.limits.closing().is_cancelled()
            && self.counts.lock().stats.open <= self.limits.max_connections() as u64
            // To mobc, zero means unlimited.
            && self.limits.settings.max_idle > 0
    }

    fn map_error(&self, error: ::mobc::Error<Error>) -> Error {
        match error {
            ::mobc::Error::Inner(error) => error,
            error => {
                let message = "mobc returned no connection";
                Error::new(ErrorKind::Internal, self.limits.settings.name, message).with_source(error)
            }
        }
    }

    fn begin_close(&self) {
        self.limits.begin_close();
        let mobc = self.mobc.lock().take();
        drop(mobc);
    }
}

/// A connection as mobc stores it; `None` while it is in use.
struct IdleCell {
    connection: Option<Box<dyn Connection>>,
    since: Instant,
    /// Last, so that the connection is counted until it is gone.
    _open: OpenCount,
}

/// mobc's handle for a checked-out connection: `return_to_mobc` puts it back, drop removes it from mobc.
struct MobcHandle {
    mobc: Option<::mobc::Connection<MobcManager>>,
    counts: SharedCounts,
}

impl MobcHandle {
    fn new(mobc: ::mobc::Connection<MobcManager>, counts: &SharedCounts) -> Self {
        counts.lock().stats.in_use += 1;
        Self { mobc: Some(mobc), counts: Arc::clone(counts) }
    }

    /// The connection, with its idle time unless it is new.
    fn take(&mut self) -> Option<(Box<dyn Connection>, Option<Duration>)> {
        let mobc = self.mobc.as_mut()?;
        let idle_for = (!mobc.is_brand_new()).then(|| mobc.since.elapsed());
        Some((mobc.connection.take()?, idle_for))
    }

    fn return_to_mobc(&mut self, connection: Box<dyn Connection>) {
        if let Some(mut cell) = self.mobc.take() {
            cell.connection = Some(connection);
            cell.since = Instant::now();
        }
    }
}

impl Drop for MobcHandle {
    fn drop(&mut self) {
        self.counts.lock().stats.in_use -= 1;
        drop(self.mobc.take().map(::mobc::Connection::into_inner));
    }
}

/// The permit is released after the connection has been returned or dropped.
struct MobcReturn {
    pool: Arc<Inner>,
    handle: MobcHandle,
    _permit: OwnedPermit,
}

impl ReturnConnection for MobcReturn {
    fn return_connection(mut self: Box<Self>, connection: Box<dyn Connection>, reusable: bool) {
        if reusable && connection.is_open() && self.pool.has_room() {
            self.handle.return_to_mobc(connection);
        } else {
            drop(connection);
        }
    }
}

/// Opens connections for mobc.
struct MobcManager {
    connector: Arc<dyn Connector>,
    counts: SharedCounts,
}

#[::mobc::async_trait]
impl ::mobc::Manager for MobcManager {
    type Connection = IdleCell;
    type Error = Error;

    /// Runs mobc's only task, which returns a connection, to its end: it waits only for mobc's lock, which is never
    /// held across an await. Spawned, it would need a runtime, and end after the permit is released.
    fn spawn_task<T>(&self, task: T)
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let mut task = pin!(task);
        while task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            std::thread::yield_now();
        }
    }

    async fn connect(&self) -> Result<IdleCell, Error> {
        let mut open = OpenCount::connecting(&self.counts);
        let connection = self.connector.connect().await?;
        open.connected();
        Ok(IdleCell { connection: Some(connection), since: Instant::now(), _open: open })
    }

    /// Never called: checks are made within the caller's deadline.
    async fn check(&self, cell: IdleCell) -> Result<IdleCell, Error> {
        Ok(cell)
    }
}

/// Counts a connection from the attempt to open it until it is dropped.
struct OpenCount {
    counts: SharedCounts,
    is_connected: bool,
}

impl OpenCount {
    fn connecting(counts: &SharedCounts) -> Self {
        let mut count = counts.lock();
        count.connecting += 1;
        count.stats.open += 1;
        count.peak = count.peak.max(count.stats.open);
        Self { counts: Arc::clone(counts), is_connected: false }
    }

    fn connected(&mut self) {
        let mut count = self.counts.lock();
        count.connecting -= 1;
        count.stats.created += 1;
        self.is_connected = true;
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        let mut count = self.counts.lock();
        count.stats.open -= 1;
        match self.is_connected {
            true => count.stats.discarded += 1,
            false => count.connecting -= 1,
        }
    }
}

impl Drop for MobcPool {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

impl fmt::Debug for MobcPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MobcPool").field(&self.stats()).finish()
    }
}
