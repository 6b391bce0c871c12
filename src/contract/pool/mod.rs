//! The contract of [`ConnectionPool`].
//!
//! A backend author calls [`suite`] from a test with tokio's time paused, and [`stress`] on a runtime with several
//! threads:
//!
//! ```
//! use std::sync::Arc;
//! use arshai::backends::pool::BoundedPool;
//! use arshai::contract::pool::{Setup, suite};
//! use arshai::pool::ConnectionPool;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # tokio::time::pause();
//! suite(|setup: Setup| async move {
//!     let pool = BoundedPool::new(setup.connector, setup.settings).expect("valid settings");
//!     Arc::new(pool) as Arc<dyn ConnectionPool>
//! })
//! .await;
//! # }
//! ```
//!
//! Where the [`PoolCapabilities`] exclude a promise, the suite checks what the pool promises instead: an unbounded pool,
//! for example, must return an error from `set_max_connections`.

mod idle;
mod lifecycle;
mod limits;
mod random;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::doubles::{ScriptedConnection, ScriptedConnector};
use crate::config::Config;
use crate::pool::{ConnectionPool, Connector, PoolCapabilities, PoolSettings, PoolStats, PooledConnection};
use crate::{Deadline, Error, ErrorKind, Outcome, Result};

pub use random::stress;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// The arguments to build a pool from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setup {
    /// Opens the connections.
    pub connector: Arc<dyn Connector>,
    /// The settings to keep.
    pub settings: PoolSettings,
}

/// Runs every test of the contract on pools built by `make`.
///
/// # Panics
/// Where the pool breaks the contract, or where tokio's time is not paused.
pub async fn suite<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    let began = std::time::Instant::now();
    tokio::time::sleep(SECOND).await;
    assert!(began.elapsed() < SECOND, "run the suite with tokio's time paused");

    let maker = Maker(make);
    let capabilities = maker.pool().await.capabilities;
    lifecycle::suite(&maker).await;
    if capabilities.bounded {
        limits::suite(&maker).await;
    } else {
        limits::an_unbounded_pool_says_so(&maker.single().await).await;
    }
    if capabilities.health_checks {
        idle::checks(&maker).await;
    }
    if capabilities.reaps_idle {
        idle::connections_are_reaped_unless_they_are_used(&maker.pool().await).await;
    }
    random::suite(&maker).await;
}

/// Builds pools for the tests.
struct Maker<F>(F);

impl<F, Fut> Maker<F>
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn ConnectionPool>>,
{
    /// A pool of three connections.
    async fn pool(&self) -> Fixture {
        self.with(|_| {}).await
    }

    /// A pool of one connection.
    async fn single(&self) -> Fixture {
        self.with(|settings| settings.max_connections = 1).await
    }

    async fn with(&self, change: impl FnOnce(&mut PoolSettings)) -> Fixture {
        let connector = ScriptedConnector::new();
        let mut settings = PoolSettings::new("test", &Config::default().pool);
        settings.max_connections = 3;
        settings.max_idle = 3;
        settings.max_waiting = 100;
        settings.idle_timeout = 30 * SECOND;
        settings.connect_timeout = 5 * SECOND;
        settings.check_after = SECOND;
        settings.check_timeout = SECOND;
        change(&mut settings);
        let setup = Setup { connector: Arc::new(connector.clone()), settings: settings.clone() };
        let pool = (self.0)(setup).await;
        let capabilities = pool.capabilities();
        Fixture { pool, connector, settings, capabilities }
    }
}

/// A pool, its connector and its settings.
struct Fixture {
    pool: Arc<dyn ConnectionPool>,
    connector: ScriptedConnector,
    settings: PoolSettings,
    capabilities: PoolCapabilities,
}

type Acquire = Pin<Box<dyn Future<Output = Result<PooledConnection>> + Send>>;

impl Fixture {
    async fn acquire(&self) -> PooledConnection {
        self.try_acquire(LONG).await.expect("a connection")
    }

    async fn try_acquire(&self, timeout: Duration) -> Result<PooledConnection> {
        self.pool.acquire(Deadline::after(timeout)).await
    }

    /// The error of an acquire that fails.
    async fn acquire_error(&self, timeout: Duration) -> Error {
        not_sent(self.try_acquire(timeout).await)
    }

    /// Acquires that many connections, returns them, and lets them be idle for that long.
    async fn warm(&self, connections: usize, idle: Duration) {
        let mut held = Vec::new();
        for _ in 0..connections {
            held.push(self.acquire().await);
        }
        drop(held);
        tokio::time::sleep(idle).await;
    }

    /// An acquire that can be polled by hand.
    fn start_acquire(&self) -> Acquire {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move { pool.acquire(Deadline::after(LONG)).await })
    }

    /// An acquire that is waiting in the queue.
    async fn waiting(&self) -> Acquire {
        let mut acquire = self.start_acquire();
        assert!(futures_util::poll!(&mut acquire).is_pending(), "no connection is available");
        acquire
    }

    fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Compares every figure with the connector's, while callers hold `held` connections.
    fn check_counts(&self, held: usize, max: usize) {
        let stats = self.stats();
        let (open, connecting) = (self.connector.open(), self.connector.connecting());
        assert_eq!(stats.open, open + connecting, "every connection is counted: {stats:?}");
        assert!(stats.in_use >= held as u64, "those held are in use: {stats:?}");
        assert!(stats.idle + stats.in_use <= stats.open, "none is counted twice: {stats:?}");
        assert_eq!(stats.created, self.connector.created(), "{stats:?}");
        assert_eq!(stats.created, open + stats.discarded + stats.reaped, "none is lost: {stats:?}");
        let limits = self.pool.limits();
        for limit in &limits {
            assert!(limit.peak >= limit.used, "{limit:?}");
        }
        let limit = limits.iter().find(|limit| limit.key == "pool.max_connections");
        let limit = limit.expect("the limit of connections is reported");
        assert_eq!(limit.used, stats.open);
        assert_eq!(limit.limit, self.capabilities.bounded.then_some(max as u64));
        if self.capabilities.bounded {
            let lowered = stats.idle == 0 || !self.capabilities.drops_idle;
            assert!(stats.open <= max as u64 || lowered, "at most {max}: {stats:?}");
            assert!(stats.waiting <= self.settings.max_waiting as u64, "{stats:?}");
            assert!(stats.idle <= self.settings.max_idle as u64 + stats.waiting, "{stats:?}");
        }
    }

    /// Checks that no caller has or waits for a connection, and that all `max` can be acquired.
    async fn check_all_free(&self, max: usize) {
        let stats = self.stats();
        assert_eq!((stats.in_use, stats.waiting, self.connector.connecting()), (0, 0, 0), "{stats:?}");
        assert_eq!(stats.idle, stats.open);
        self.check_counts(0, max);
        let mut held = Vec::new();
        for _ in 0..max {
            held.push(self.try_acquire(SECOND).await.expect("every permit was released"));
        }
        self.check_counts(max, max);
    }
}

/// Polls an acquire up to `polls` times.
async fn poll_times(acquire: &mut Acquire, polls: u64) -> Option<Result<PooledConnection>> {
    for _ in 0..polls {
        if let Poll::Ready(acquired) = futures_util::poll!(&mut *acquire) {
            return Some(acquired);
        }
    }
    None
}

/// Tasks on this runtime.
fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn scripted(connection: &mut PooledConnection) -> &mut ScriptedConnection {
    connection.get_mut().expect("opened by the scripted connector")
}

fn id(connection: &mut PooledConnection) -> u64 {
    scripted(connection).id()
}

/// The error of an acquire that fails.
fn not_sent(acquired: Result<PooledConnection>) -> Error {
    let error = acquired.expect_err("no connection");
    assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
    error
}

/// Checks that `error` is a timeout that names `step`, raised after `timeout`: to the millisecond that tokio's timers
/// are exact to.
fn check_timeout(error: &Error, step: &str, began: Instant, timeout: Duration) {
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.message().contains(step), "the error names the step {step:?}: {error}");
    let waited = began.elapsed();
    assert!(waited >= timeout && waited <= timeout + SECOND / 1_000, "on time: {waited:?} of {timeout:?}");
}
