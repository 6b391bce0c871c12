//! Pools of connections: how many there may be, who has one, and what happens when none is free.
//!
//! [`ConnectionPool`] is the seam. A pool knows nothing of what it pools: a [`Connector`] makes
//! [`Connection`]s, and whoever acquires one asks for its own type back with
//! [`PooledConnection::get_mut`]. Pools are made by a [`PoolFactory`], chosen by `pool.backend`.

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

/// A connection that a pool can keep.
///
/// Dropping one closes it at once: no task, thread or socket of it is left a second later. A pool drops
/// connections wherever it happens to be, so dropping must neither block nor need an async runtime.
#[async_trait]
pub trait Connection: Any + Send {
    /// Whether it can still be used, as far as is known without asking the other side. Called when it comes
    /// back to the pool and before it goes out; must not block.
    fn is_open(&self) -> bool;

    /// Asks the other side whether it can still be used. The pool bounds how long this may take and drops
    /// the future and the connection when it takes longer.
    ///
    /// # Errors
    /// Whatever shows that it cannot be used; the pool drops it and makes another.
    async fn check(&mut self) -> Result<()>;
}

/// Makes connections for a pool.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Connects. The pool bounds how long this may take; a dropped future must leave nothing behind.
    ///
    /// # Errors
    /// Whatever keeps it from connecting. The pool hands the error to the caller who was waiting and tries
    /// again only for the next one.
    async fn connect(&self) -> Result<Box<dyn Connection>>;
}

/// A bounded number of connections that callers take in turn.
///
/// # Contract
/// - **Bound.** Connections being made, idle and in use together are never more than `max_connections`,
///   counting a connection until it has been dropped. Callers waiting for one are never more than
///   `max_waiting`.
/// - **Order.** Waiters are served in the order they came. An idle connection that was used most recently
///   goes out first, so that those not needed grow old and are reaped.
/// - **Deadlines.** [`acquire`](Self::acquire) ends by its deadline. The error says which step was under
///   way: waiting for a connection to come free, connecting, or checking.
/// - **Health.** A connection idle for longer than `check_after` is checked before it goes out; one that
///   fails is dropped and replaced within the same deadline. One that is no longer open when it comes back
///   is dropped.
/// - **Reaping.** A connection idle for `idle_timeout` is dropped within about a second more, used or not.
///   Of connections that come back, at most `max_idle` are kept.
/// - **Cancellation.** A dropped `acquire` leaves nothing behind: its place in the queue, its permit and a
///   connection half made are gone at once.
/// - **Dropping** the last handle of a pool drops its idle connections; those in use are dropped when they
///   come back.
///
/// `arshai::contract::pool` (feature `contract`) tests all of this on any pool. What one does not do, its
/// [`PoolCapabilities`] say.
#[async_trait]
pub trait ConnectionPool: Component {
    /// Takes a connection: an idle one, a new one while there is room, or the next that comes back.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) at the deadline, naming the step;
    /// [`ErrorKind::Capacity`](crate::ErrorKind::Capacity) at once when `max_waiting` callers wait already;
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) once the pool is closed; whatever connecting fails
    /// with.
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection>;

    /// Counters.
    fn stats(&self) -> PoolStats;

    /// What this pool does beyond or short of the contract.
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

/// Makes pools. Implemented for closures, so registering one is
/// `registry.pool.register("mine", |_| Ok(Arc::new(|connector, settings| …)))`.
pub trait PoolFactory: Send + Sync {
    /// A pool over `connector`. Nothing connects and no task starts until the first acquire.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for settings it cannot honour.
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

/// What a pool is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSettings {
    /// What it pools, for errors and statistics: `redis`.
    pub name: &'static str,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most idle connections kept.
    pub max_idle: usize,
    /// The most callers that wait for a connection.
    pub max_waiting: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long connecting may take, within the caller's deadline.
    pub connect_timeout: Duration,
    /// How long a connection may have been idle and still go out unchecked.
    pub check_after: Duration,
    /// How long a check may take, within the caller's deadline.
    pub check_timeout: Duration,
}

impl PoolSettings {
    /// Settings for a pool of `name`, as the configuration has them.
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

/// What a pool does beyond or short of the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolCapabilities {
    /// It holds `max_connections` and `max_waiting`; `set_max_connections` works.
    pub bounded: bool,
    /// It checks connections before they go out.
    pub health_checks: bool,
    /// It drops connections that were idle too long.
    pub reaps_idle: bool,
}

impl PoolCapabilities {
    /// Sets whether the pool holds bounds.
    #[must_use]
    pub const fn bounded(mut self, yes: bool) -> Self {
        self.bounded = yes;
        self
    }

    /// Sets whether it checks connections before they go out.
    #[must_use]
    pub const fn health_checks(mut self, yes: bool) -> Self {
        self.health_checks = yes;
        self
    }

    /// Sets whether it drops connections that were idle too long.
    #[must_use]
    pub const fn reaps_idle(mut self, yes: bool) -> Self {
        self.reaps_idle = yes;
        self
    }
}

/// What a pool holds and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// What it pools: `redis`.
    pub name: &'static str,
    /// Connections there are: being made, idle and in use.
    pub open: u64,
    /// Connections waiting to be used.
    pub idle: u64,
    /// Connections out with callers.
    pub in_use: u64,
    /// Callers waiting for a connection.
    pub waiting: u64,
    /// Connections made since the pool was built.
    pub created: u64,
    /// Times a connection went out.
    pub acquired: u64,
    /// Connections dropped because they were broken, failed a check or were discarded by their user.
    pub discarded: u64,
    /// Connections dropped because they were idle too long or too many.
    pub reaped: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Acquires that ended at their deadline.
    pub timed_out: u64,
    /// Acquires turned away because too many waited.
    pub rejected: u64,
}

/// Takes a connection back: what a pool hands out with each one.
pub trait ReturnConnection: Send {
    /// Takes it back. `keep` says whether its user found nothing wrong with it. Must not block; may be
    /// called outside an async runtime.
    fn give_back(self: Box<Self>, connection: Box<dyn Connection>, keep: bool);
}

/// A connection out of a pool; dropping it gives it back.
#[must_use = "dropping the connection gives it back"]
pub struct PooledConnection {
    /// Taken out once, when it is dropped.
    inner: Option<(Box<dyn Connection>, Box<dyn ReturnConnection>)>,
    keep: bool,
}

impl PooledConnection {
    /// A connection that goes back through `home`.
    pub fn new(connection: Box<dyn Connection>, home: Box<dyn ReturnConnection>) -> Self {
        Self { inner: Some((connection, home)), keep: true }
    }

    /// The connection, if it is a `C`.
    #[must_use]
    pub fn get_mut<C: Connection>(&mut self) -> Option<&mut C> {
        let (connection, _) = self.inner.as_mut()?;
        let connection: &mut dyn Any = connection.as_mut();
        connection.downcast_mut()
    }

    /// Asks the other side whether it can still be used.
    ///
    /// # Errors
    /// As [`Connection::check`]; [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) at the deadline. Either way
    /// it is not used again.
    pub async fn check(&mut self, deadline: Deadline) -> Result<()> {
        let Some((connection, _)) = self.inner.as_mut() else { return Ok(()) };
        self.keep = false;
        deadline.run("pool", "checking a connection", connection.check()).await??;
        self.keep = true;
        Ok(())
    }

    /// Says whether it may be used again once it is given back. Say `false` before work that leaves it in a
    /// state of its own when cut short, and `true` when that work has ended.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Whether it will be used again once it is given back, as far as its user said.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Drops the connection in place of giving it back; the pool has room for another at once.
    pub fn discard(mut self) {
        self.keep = false;
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if let Some((connection, home)) = self.inner.take() {
            home.give_back(connection, self.keep);
        }
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection").field("keep", &self.keep).finish_non_exhaustive()
    }
}
