//! Connection pools: a limited number of connections that callers take turns with.
//!
//! [`ConnectionPool`] is the backend trait. A pool is independent of what it pools: a [`Connector`] opens
//! [`Connection`]s, and the caller that acquires one downcasts it with [`PooledConnection::get_mut`]. Pools are built by
//! a [`PoolFactory`], selected by `pool.backend`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::component::Component;
use crate::config::PoolConfig;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::support::opaque_debug;

/// A connection that a pool can keep.
///
/// Dropping one closes it: a second later no task, thread or socket of it is left. A pool drops connections on any
/// thread and while it holds its lock, so dropping must not block, must not need an async runtime and must not call the
/// pool.
#[async_trait]
pub trait Connection: Any + Send {
    /// Whether it can still be used, as far as is known without a round trip. Called when it is returned to the pool
    /// and before it is handed out; must not block.
    fn is_open(&self) -> bool;

    /// Checks with the server whether the connection can still be used. The pool limits how long this may take: it then
    /// drops the future and the connection.
    ///
    /// # Errors
    /// Any error means that it cannot be used; the pool drops it and opens another.
    async fn check(&mut self) -> Result<()>;
}

/// Opens connections for a pool.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Connects. The pool limits how long this may take; a dropped future must leave nothing behind.
    ///
    /// # Errors
    /// Errors from connecting. The pool returns the error to the caller that needed the connection and tries again only
    /// for the next one.
    async fn connect(&self) -> Result<Box<dyn Connection>>;
}

/// A limited number of connections that callers take turns with.
///
/// # Contract
/// - **Limits.** Connections being opened, idle and in use together are never more than `max_connections`, counting a
///   connection until it has been dropped. Callers waiting for one are never more than `max_waiting`.
/// - **Order.** Waiting callers are served first in, first out. Idle connections are handed out last in, first out, so
///   that those not needed reach `idle_timeout`.
/// - **Deadlines.** [`acquire`](Self::acquire) ends by its deadline. The error names the step that took too long:
///   waiting for a connection, connecting, or checking.
/// - **Errors.** Every error of `acquire` is [`Outcome::NotSent`](crate::Outcome::NotSent).
/// - **Health checks.** A connection idle for longer than `check_after` is checked before it is handed out; one that
///   fails is dropped and replaced within the same deadline. One that is not open when it is returned is dropped.
/// - **Idle connections.** A connection that is idle for `idle_timeout` is dropped within another second, whether or not
///   the pool is used. At most `max_idle` are kept, and one more for each waiting caller.
/// - **Cancellation.** Dropping the `acquire` future leaves the queue, releases its permit and drops a connection being
///   opened, immediately.
/// - **Dropping** the last handle of a pool drops its idle connections; those in use are dropped when they are
///   returned.
///
/// `arshai::contract::pool` (feature `contract`) tests all of this on any pool. [`PoolCapabilities`] says which parts a
/// pool does not keep.
#[async_trait]
pub trait ConnectionPool: Component {
    /// Takes a connection: an idle one, a new one below the limit, or the next that is returned.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) at the deadline, naming the step;
    /// [`ErrorKind::Capacity`](crate::ErrorKind::Capacity) immediately when `max_waiting` callers are waiting;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) once the pool is closed; errors from [`Connector::connect`].
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection>;

    /// A snapshot of its counters.
    fn stats(&self) -> PoolStats;

    /// The parts of the contract that it keeps.
    fn capabilities(&self) -> PoolCapabilities;

    /// Changes the number of connections: [`Component::set_limit`] of `pool.max_connections`. When it falls, idle
    /// connections above it are dropped immediately and those in use when they are returned.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for zero,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the pool is unbounded.
    fn set_max_connections(&self, max: usize) -> Result<()> {
        self.set_limit("pool.max_connections", max as u64)
    }
}

/// Builds pools. Implemented for closures, so that registering one is
/// `registry.pool.register("mine", |_| Ok(Arc::new(|connector, settings| …)))`.
pub trait PoolFactory: Send + Sync {
    /// A pool over `connector`. Nothing connects and no task starts before the first acquire.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for settings that it does not support.
    fn build(&self, connector: Arc<dyn Connector>, settings: PoolSettings)
    -> Result<Arc<dyn ConnectionPool>>;
}

impl<F> PoolFactory for F
where
    F: Fn(Arc<dyn Connector>, PoolSettings) -> Result<Arc<dyn ConnectionPool>> + Send + Sync,
{
    fn build(
        &self,
        connector: Arc<dyn Connector>,
        settings: PoolSettings,
    ) -> Result<Arc<dyn ConnectionPool>> {
        self(connector, settings)
    }
}

/// Pool configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSettings {
    /// Name of the pool in errors and statistics: `redis`.
    pub name: &'static str,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of idle connections.
    pub max_idle: usize,
    /// Maximum number of callers waiting for a connection.
    pub max_waiting: usize,
    /// Time after which an idle connection is dropped.
    pub idle_timeout: Duration,
    /// Timeout for connecting, within the caller's deadline.
    pub connect_timeout: Duration,
    /// Idle time after which a connection is checked before it is handed out.
    pub check_after: Duration,
    /// Timeout for a check, within the caller's deadline.
    pub check_timeout: Duration,
}

impl PoolSettings {
    /// The settings of `config` for a pool called `name`.
    #[must_use]
    pub fn new(name: &'static str, config: &PoolConfig) -> Self {
        Self {
            name,
            max_connections: config.max_connections,
            max_idle: config.max_idle,
            max_waiting: config.max_waiting,
            idle_timeout: config.idle_timeout,
            connect_timeout: config.connect_timeout,
            check_after: Duration::from_secs(1),
            check_timeout: Duration::from_secs(1),
        }
    }
}

/// The parts of the contract that a pool keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolCapabilities {
    /// Keeps its limits: `max_connections`, `max_idle`, `max_waiting` and `connect_timeout`; `set_max_connections`
    /// works.
    pub bounded: bool,
    /// Checks connections before they are handed out.
    pub health_checks: bool,
    /// Drops connections after `idle_timeout`.
    pub reaps_idle: bool,
    /// Drops idle connections immediately when the limit falls and when the pool is closed or dropped. Without it they
    /// are dropped later: above the limit when they have been used once more, of a closed pool together with the last
    /// connection in use.
    pub drops_idle: bool,
}

/// Pool statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Name of the pool: `redis`.
    pub name: &'static str,
    /// Connections now: being opened, idle and in use.
    pub open: u64,
    /// Idle connections now.
    pub idle: u64,
    /// Connections in use now.
    pub in_use: u64,
    /// Callers waiting for a connection now.
    pub waiting: u64,
    /// Connections opened so far.
    pub created: u64,
    /// Connections handed out so far.
    pub acquired: u64,
    /// Connections dropped because they were broken, failed a check or were discarded by their user.
    pub discarded: u64,
    /// Connections dropped because they were idle for too long or too many.
    pub reaped: u64,
    /// Failed attempts to connect.
    pub failed: u64,
    /// Acquires that ended at their deadline.
    pub timed_out: u64,
    /// Acquires rejected because too many callers were waiting.
    pub rejected: u64,
}

/// Returns a connection to its pool; a pool hands out one with each connection.
pub trait ReturnConnection: Send {
    /// Takes the connection back. `reusable` is `false` when its user knows it to be unusable. Must not block; may be
    /// called outside an async runtime.
    fn return_connection(self: Box<Self>, connection: Box<dyn Connection>, reusable: bool);
}

/// A connection in use; dropping it returns it to its pool.
#[must_use = "dropping the connection returns it to its pool"]
pub struct PooledConnection {
    /// Taken when it is dropped.
    inner: Option<(Box<dyn Connection>, Box<dyn ReturnConnection>)>,
    reusable: bool,
}

impl PooledConnection {
    /// A connection that is returned through `returner`.
    pub fn new(connection: Box<dyn Connection>, returner: Box<dyn ReturnConnection>) -> Self {
        Self { inner: Some((connection, returner)), reusable: true }
    }

    /// The connection, if it is a `C`.
    #[must_use]
    pub fn get_mut<C: Connection>(&mut self) -> Option<&mut C> {
        let (connection, _) = self.inner.as_mut()?;
        let connection: &mut dyn Any = connection.as_mut();
        connection.downcast_mut()
    }

    /// Checks with the server whether the connection can still be used.
    ///
    /// # Errors
    /// As [`Connection::check`]; [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) at the deadline. After either the
    /// connection is not reused.
    pub async fn check(&mut self, deadline: Deadline) -> Result<()> {
        let Some((connection, _)) = self.inner.as_mut() else { return Ok(()) };
        self.reusable = false;
        deadline.run("pool", "checking a connection", connection.check()).await??;
        self.reusable = true;
        Ok(())
    }

    /// Sets whether the connection may be reused after it is returned. Set `false` before an operation that would leave
    /// it in an unknown state if cancelled, and `true` when it completes.
    pub fn set_reusable(&mut self, reusable: bool) {
        self.reusable = reusable;
    }

    /// Whether the connection may be reused after it is returned.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Drops the connection instead of returning it.
    pub fn discard(mut self) {
        self.reusable = false;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some((connection, returner)) = self.inner.take() {
            returner.return_connection(connection, self.reusable);
        }
    }
}

opaque_debug!(PooledConnection { reusable });
