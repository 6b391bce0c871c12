//! The contract of [`ConnectionPool`].
//!
//! A backend author calls [`suite`] from a test with tokio's time paused, and [`crowd`] on a runtime of several
//! threads. A pool that has a [`Clock`](crate::Clock) is given a [`TokioClock`](super::doubles::TokioClock), so that
//! its time passes with tokio's:
//!
//! ```
//! use std::sync::Arc;
//! use arshai::backends::pool::LeanPool;
//! use arshai::contract::doubles::TokioClock;
//! use arshai::contract::pool;
//! use arshai::pool::{ConnectionPool, Connector, PoolSettings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # tokio::time::pause();
//! pool::suite(&|connector: Arc<dyn Connector>, settings: PoolSettings| {
//!     let clock = Arc::new(TokioClock::new());
//!     Ok(Arc::new(LeanPool::with_clock(connector, settings, clock)) as Arc<dyn ConnectionPool>)
//! })
//! .await;
//! # }
//! ```
//!
//! A promise that a pool does not make, by its [`PoolCapabilities`], is held to what it promises instead: an
//! unbounded pool, for example, must refuse `set_max_connections`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::doubles::{Scripted, ScriptedConnection, ScriptedConnector};
use super::random::Random;
use crate::config::Config;
use crate::pool::{
    ConnectionPool, Connector, PoolCapabilities, PoolFactory, PoolSettings, PoolStats, PooledConnection,
};
use crate::{Deadline, Error, ErrorKind, Result};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// A pool, its connector, and what it was told.
struct Bench {
    pool: Arc<dyn ConnectionPool>,
    connector: ScriptedConnector,
    settings: PoolSettings,
    capabilities: PoolCapabilities,
}

type Acquiring = Pin<Box<dyn Future<Output = Result<PooledConnection>> + Send>>;

impl Bench {
    fn new(factory: &dyn PoolFactory, change: impl FnOnce(&mut PoolSettings)) -> Self {
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
        let shared: Arc<dyn Connector> = Arc::new(connector.clone());
        let pool = factory.build(shared, settings.clone()).expect("the suite asks for valid settings");
        let capabilities = pool.capabilities();
        Self { pool, connector, settings, capabilities }
    }

    async fn acquire(&self) -> PooledConnection {
        self.try_acquire(LONG).await.expect("a connection")
    }

    async fn try_acquire(&self, timeout: Duration) -> Result<PooledConnection> {
        self.pool.acquire(Deadline::after(timeout)).await
    }

    /// Takes that many connections, gives them all back, and lets them grow idle for `idle`.
    async fn warm(&self, connections: usize, idle: Duration) {
        let mut held = Vec::new();
        for _ in 0..connections {
            held.push(self.acquire().await);
        }
        drop(held);
        tokio::time::sleep(idle).await;
    }

    /// An acquire that can be polled by hand.
    fn acquiring(&self) -> Acquiring {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move { pool.acquire(Deadline::after(LONG)).await })
    }

    /// An acquire that waits in the queue.
    async fn waiting(&self) -> Acquiring {
        let mut acquiring = self.acquiring();
        assert!(poll_once(&mut acquiring).await.is_none(), "no connection is free");
        acquiring
    }

    fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Checks every figure against the connector's own, while callers have `held` connections.
    fn account(&self, held: usize, max: usize) {
        let status = self.stats();
        let (open, connecting) = (self.connector.open(), self.connector.connecting());
        assert_eq!(status.open, open + connecting, "every connection is counted: {status:?}");
        assert!(status.in_use >= held as u64, "those held are in use: {status:?}");
        assert!(status.idle + status.in_use <= status.open, "none is counted twice: {status:?}");
        assert_eq!(status.created, self.connector.made(), "{status:?}");
        assert_eq!(status.created, open + status.discarded + status.reaped, "none is lost: {status:?}");
        let limits = self.pool.limits();
        for bound in &limits {
            assert!(bound.peak >= bound.used, "{bound:?}");
        }
        let bound = limits.iter().find(|bound| bound.key == "pool.max_connections");
        let bound = bound.expect("the bound of connections is reported");
        assert_eq!(bound.used, status.open);
        assert_eq!(bound.limit, self.capabilities.bounded.then_some(max as u64));
        if self.capabilities.bounded {
            assert!(status.open <= max as u64 || status.idle == 0, "at most {max}: {status:?}");
            assert!(status.waiting <= self.settings.max_waiting as u64, "{status:?}");
            assert!(status.idle <= self.settings.max_idle as u64 + status.waiting, "{status:?}");
        }
    }

    /// Checks that nobody holds or waits for a connection, and that as many as ever can be had.
    async fn all_is_free(&self, max: usize) {
        let status = self.stats();
        assert_eq!((status.in_use, status.waiting, self.connector.connecting()), (0, 0, 0), "{status:?}");
        assert_eq!(status.idle, status.open);
        self.account(0, max);
        let mut held = Vec::new();
        for _ in 0..max {
            held.push(self.try_acquire(SECOND).await.expect("every permit came back"));
        }
        self.account(max, max);
    }
}

/// Polls `future` once; its output if that ended it.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|context| match Pin::new(&mut *future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Tasks on this runtime.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn id(connection: &mut PooledConnection) -> u64 {
    connection.get_mut::<ScriptedConnection>().expect("the double's own").id()
}

/// Checks that `error` is a timeout that names `step`, and that it came when `timeout` had passed: to the millisecond
/// that tokio's timers are exact to.
fn timed_out(error: &Error, step: &str, began: Instant, timeout: Duration) {
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.message().contains(step), "the error names the step {step:?}: {error}");
    let waited = began.elapsed();
    assert!(waited >= timeout && waited <= timeout + SECOND / 1_000, "on time: {waited:?} of {timeout:?}");
}

/// Runs every test of the contract on pools made by `factory`.
///
/// # Panics
/// Where the pool breaks the contract, or where tokio's time is not paused.
pub async fn suite(factory: &dyn PoolFactory) {
    let began = std::time::Instant::now();
    tokio::time::sleep(SECOND).await;
    assert!(began.elapsed() < SECOND, "run the suite with tokio's time paused");

    let bench = || Bench::new(factory, |_| {});
    let small = || Bench::new(factory, |settings| settings.max_connections = 1);
    nothing_connects_before_the_first_acquire(&bench()).await;
    the_connection_used_last_goes_out_first(&bench()).await;
    a_connection_that_closed_is_not_used_again(&bench()).await;
    discarded_connections_are_gone_at_once(&bench()).await;
    connecting_fails_for_whom_it_fails(&bench()).await;
    a_connect_that_hangs_is_cut_at_the_deadline(&bench()).await;
    a_future_dropped_at_any_await_leaves_nothing(&bench()).await;
    a_hundred_thousand_cancelled_acquires_leave_every_permit(&bench()).await;
    closing_drops_what_is_idle_and_waits_for_the_rest(&bench()).await;
    dropping_the_last_handle_drops_what_is_idle(bench()).await;
    connections_may_be_dropped_outside_a_runtime(bench()).await;
    health_asks_through_a_connection(&bench()).await;
    let capabilities = bench().capabilities;
    if capabilities.bounded {
        bounds(factory).await;
    } else {
        an_unbounded_pool_says_so(&small()).await;
    }
    if capabilities.health_checks {
        what_was_idle_for_long_is_checked_first(&bench()).await;
        a_connection_that_fails_its_check_is_replaced(&bench()).await;
        a_check_that_hangs_is_cut_and_its_connection_replaced(&bench()).await;
        a_check_that_outlives_the_deadline_is_named(&bench()).await;
    }
    if capabilities.reaps_idle {
        idle_connections_are_reaped_and_used_ones_stay(&bench()).await;
        no_more_idle_connections_are_kept_than_allowed(&Bench::new(factory, |s| s.max_idle = 1)).await;
    }
    for seed in 1..=6 {
        random_operations_keep_every_bound(&bench(), seed).await;
        random_operations_keep_every_bound(&small(), seed).await;
        let crowded = |settings: &mut PoolSettings| {
            settings.max_connections = 8;
            settings.max_idle = 2;
            settings.max_waiting = 4;
        };
        random_operations_keep_every_bound(&Bench::new(factory, crowded), seed).await;
    }
}

async fn bounds(factory: &dyn PoolFactory) {
    let bench = || Bench::new(factory, |_| {});
    let small = || Bench::new(factory, |settings| settings.max_connections = 1);
    no_more_connections_than_the_limit(&bench()).await;
    waiters_are_served_in_the_order_they_came(&small()).await;
    waiting_is_cut_at_the_deadline(&small()).await;
    a_connect_that_hangs_is_cut_at_its_own_limit(&bench()).await;
    let stalled = |settings: &mut PoolSettings| {
        settings.max_connections = 20;
        settings.max_waiting = 980;
    };
    a_thousand_callers_of_stalled_connections_are_cut_on_time(&Bench::new(factory, stalled)).await;
    one_waiter_too_many_is_turned_away_at_once(&Bench::new(factory, |settings| {
        settings.max_connections = 1;
        settings.max_waiting = 2;
    }))
    .await;
    a_failure_to_connect_does_not_stop_the_next_waiter(&small()).await;
    a_raised_limit_serves_waiters_at_once(&small()).await;
    a_lowered_limit_drops_what_is_idle_at_once_and_the_rest_as_it_comes(&bench()).await;
    closing_turns_waiters_away(&small()).await;
}

async fn nothing_connects_before_the_first_acquire(bench: &Bench) {
    drop(bench.acquiring());
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.connector.made(), bench.connector.connecting()), (0, 0));
    bench.account(0, 3);
    drop(bench.acquire().await);
    let status = bench.stats();
    assert_eq!((status.name, status.created, status.acquired, status.idle), ("test", 1, 1, 1));
}

async fn the_connection_used_last_goes_out_first(bench: &Bench) {
    let mut held = [bench.acquire().await, bench.acquire().await, bench.acquire().await];
    let ids = held.each_mut().map(id);
    bench.account(3, 3);
    drop(held);
    let mut again = [bench.acquire().await, bench.acquire().await, bench.acquire().await];
    let again = again.each_mut().map(id);
    assert_eq!(again, [ids[2], ids[1], ids[0]], "last in, first out");
    assert_eq!(bench.connector.made(), 3);
    assert_eq!(bench.stats().acquired, 6);
}

async fn a_connection_that_closed_is_not_used_again(bench: &Bench) {
    let mut broken = bench.acquire().await;
    broken.get_mut::<ScriptedConnection>().expect("the double's own").break_it();
    drop(broken);
    assert_eq!(bench.connector.open(), 0, "it is dropped when it comes back");
    bench.account(0, 3);
    bench.warm(2, Duration::ZERO).await;
    bench.connector.break_all();
    let mut connection = bench.acquire().await;
    assert_eq!(id(&mut connection), 4, "what broke while it was idle does not go out");
    bench.account(1, 3);
    assert!(bench.stats().discarded >= 2);
}

async fn discarded_connections_are_gone_at_once(bench: &Bench) {
    // The tasks of pools dropped before are gone by then.
    tokio::time::sleep(SECOND).await;
    let before = tasks();
    for _ in 0..10_000 {
        let mut connection = bench.acquire().await;
        connection.keep(false);
        connection.keep(true);
        connection.discard();
        assert_eq!(bench.connector.open(), 0);
    }
    assert_eq!(bench.stats().discarded, 10_000);
    assert_eq!(tasks(), before, "none of them left a task");
    bench.all_is_free(3).await;
}

async fn connecting_fails_for_whom_it_fails(bench: &Bench) {
    bench.connector.connects(Scripted::Fails);
    for _ in 0..20 {
        let error = bench.try_acquire(LONG).await.expect_err("connecting fails");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "the connector's own error: {error}");
    }
    assert_eq!((bench.stats().failed, bench.connector.open()), (20, 0));
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn a_connect_that_hangs_is_cut_at_the_deadline(bench: &Bench) {
    bench.connector.connects(Scripted::Hangs);
    let began = Instant::now();
    let error = bench.try_acquire(2 * SECOND).await.expect_err("connecting hangs");
    timed_out(&error, "connecting", began, 2 * SECOND);
    assert_eq!((bench.stats().timed_out, bench.stats().failed), (1, 1));
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn a_connect_that_hangs_is_cut_at_its_own_limit(bench: &Bench) {
    bench.connector.connects(Scripted::Hangs);
    let began = Instant::now();
    let error = bench.try_acquire(LONG).await.expect_err("connecting hangs");
    timed_out(&error, "connecting", began, bench.settings.connect_timeout);
    assert_eq!(bench.stats().failed, 1);
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn a_future_dropped_at_any_await_leaves_nothing(bench: &Bench) {
    for script in [Scripted::Works, Scripted::Hangs] {
        // Connecting first; then, with something idle, checking; then waiting.
        for held in 0..=3 {
            bench.connector.connects(Scripted::Works);
            bench.warm(1, 2 * SECOND).await;
            let mut holds = Vec::new();
            for _ in 0..held {
                holds.push(bench.acquire().await);
            }
            bench.connector.connects(script);
            bench.connector.checks(script);
            for polls in 0..5 {
                let mut acquiring = bench.acquiring();
                for _ in 0..polls {
                    if poll_once(&mut acquiring).await.is_some() {
                        break;
                    }
                }
                drop(acquiring);
                assert_eq!(bench.connector.connecting(), 0, "a connection half made is gone");
                assert_eq!(bench.stats().waiting, 0, "its place in the queue is gone");
                bench.account(held, 3);
            }
            bench.connector.checks(Scripted::Works);
        }
    }
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn a_hundred_thousand_cancelled_acquires_leave_every_permit(bench: &Bench) {
    let mut random = Random::new(7);
    let (mut held, mut cancelled) = (Vec::new(), 0);
    while cancelled < 100_000 {
        match random.below(50) {
            0 => bench.connector.next_connects([Scripted::Hangs]),
            // What is idle grows old, so that it is checked.
            1 => tokio::time::sleep(2 * SECOND).await,
            2 => bench.connector.checks(Scripted::Hangs),
            3 => bench.connector.checks(Scripted::Works),
            _ => {}
        }
        let mut acquiring = bench.acquiring();
        for _ in 0..random.below(4) {
            if let Some(connection) = poll_once(&mut acquiring).await {
                held.push(connection.expect("there is room to wait"));
                break;
            }
        }
        cancelled += 1;
        drop(acquiring);
        while held.len() as u64 > random.below(4) {
            let connection: PooledConnection = held.swap_remove(random.below(held.len() as u64) as usize);
            if random.below(3) == 0 {
                connection.discard();
            }
        }
    }
    bench.account(held.len(), 3);
    drop(held);
    bench.connector.connects(Scripted::Works);
    bench.connector.checks(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn closing_drops_what_is_idle_and_waits_for_the_rest(bench: &Bench) {
    let out = bench.acquire().await;
    bench.warm(1, Duration::ZERO).await;
    let began = Instant::now();
    assert_eq!(bench.pool.close(Deadline::after(SECOND)).await.lost.len(), 1, "one is still in use");
    assert!(began.elapsed() >= SECOND, "it waited for it");
    assert_eq!(bench.connector.open(), 1, "what was idle is gone");
    let error = bench.try_acquire(LONG).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let closing = tokio::spawn({
        let pool = Arc::clone(&bench.pool);
        async move { pool.close(Deadline::after(LONG)).await }
    });
    tokio::task::yield_now().await;
    drop(out);
    assert!(closing.await.expect("it ends").is_clean());
    assert_eq!(bench.connector.open(), 0, "what comes back to a closed pool is dropped");
    bench.account(0, 3);
    assert!(!bench.pool.health(Deadline::after(SECOND)).await.is_usable());
}

async fn closing_turns_waiters_away(bench: &Bench) {
    let out = bench.acquire().await;
    let waiting = bench.waiting().await;
    let closing = tokio::spawn({
        let pool = Arc::clone(&bench.pool);
        async move { pool.close(Deadline::after(LONG)).await }
    });
    let error = waiting.await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    drop(out);
    assert!(closing.await.expect("it ends").is_clean());
}

async fn dropping_the_last_handle_drops_what_is_idle(bench: Bench) {
    let before = tasks();
    let out = bench.acquire().await;
    bench.warm(2, Duration::ZERO).await;
    let Bench { pool, connector, .. } = bench;
    drop(pool);
    assert_eq!(connector.open(), 1, "only the one in use is left");
    drop(out);
    assert_eq!(connector.open(), 0, "it is dropped when it comes back");
    tokio::time::sleep(SECOND).await;
    assert_eq!(tasks(), before, "no task of the pool is left a second later");
}

async fn connections_may_be_dropped_outside_a_runtime(bench: Bench) {
    let (kept, discarded) = (bench.acquire().await, bench.acquire().await);
    let elsewhere = std::thread::spawn(move || {
        drop(kept);
        discarded.discard();
    });
    elsewhere.join().expect("giving back needs no runtime");
    bench.account(0, 3);
    assert_eq!(bench.stats().idle, 1);
    let Bench { pool, connector, .. } = bench;
    let last = pool.acquire(Deadline::after(LONG)).await.expect("a connection");
    std::thread::spawn(move || drop((pool, last))).join().expect("nor does dropping the pool");
    assert_eq!(connector.open(), 0);
}

async fn health_asks_through_a_connection(bench: &Bench) {
    let health = async || bench.pool.health(Deadline::after(10 * SECOND)).await.is_usable();
    assert!(health().await);
    assert_eq!(bench.connector.checked(), 1, "the other side was asked");
    bench.account(0, 3);
    bench.connector.checks(Scripted::Fails);
    assert!(!health().await);
    bench.connector.checks(Scripted::Hangs);
    assert!(!health().await);
    bench.connector.checks(Scripted::Works);
    assert!(health().await, "it recovers");
    bench.connector.break_all();
    bench.connector.connects(Scripted::Fails);
    assert!(!health().await);
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn no_more_connections_than_the_limit(bench: &Bench) {
    let held = [bench.acquire().await, bench.acquire().await, bench.acquire().await];
    let waiting = bench.waiting().await;
    bench.account(3, 3);
    assert_eq!((bench.stats().waiting, bench.connector.peak()), (1, 3));
    drop(held);
    drop(waiting.await.expect("one came free"));
    assert_eq!(bench.connector.made(), 3, "the waiter got one that was there");
    bench.all_is_free(3).await;
}

async fn waiters_are_served_in_the_order_they_came(bench: &Bench) {
    let held = bench.acquire().await;
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (waiting, order) = (bench.waiting().await, Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let connection = waiting.await.expect("served");
            order.lock().push(n);
            drop(connection);
        }));
    }
    assert_eq!(bench.stats().waiting, 20);
    drop(held);
    for task in tasks {
        task.await.expect("served");
    }
    assert!(order.lock().iter().copied().eq(0..20), "{order:?}");
    assert_eq!(bench.connector.made(), 1);
    bench.all_is_free(1).await;
}

async fn waiting_is_cut_at_the_deadline(bench: &Bench) {
    let held = bench.acquire().await;
    let began = Instant::now();
    let error = bench.try_acquire(2 * SECOND).await.expect_err("none comes free");
    timed_out(&error, "waiting", began, 2 * SECOND);
    assert_eq!((bench.stats().timed_out, bench.stats().waiting), (1, 0));
    drop(held);
    bench.all_is_free(1).await;
}

/// Twenty hang while they connect, the others wait for them; then twenty have a connection and do not let go.
async fn a_thousand_callers_of_stalled_connections_are_cut_on_time(bench: &Bench) {
    for script in [Scripted::Hangs, Scripted::Works] {
        bench.connector.connects(script);
        let callers: Vec<_> = (0..1_000)
            .map(|_| {
                let pool = Arc::clone(&bench.pool);
                tokio::spawn(async move {
                    let began = Instant::now();
                    let error = match pool.acquire(Deadline::after(2 * SECOND)).await {
                        Ok(_stalled) => {
                            tokio::time::sleep(3 * SECOND).await;
                            return "had one";
                        }
                        Err(error) => error,
                    };
                    let step = if error.message().contains("waiting") { "waiting" } else { "connecting" };
                    timed_out(&error, step, began, 2 * SECOND);
                    step
                })
            })
            .collect();
        let mut ended = Vec::new();
        for caller in callers {
            ended.push(caller.await.expect("it is cut on time"));
        }
        let count = |how| ended.iter().filter(|ended| **ended == how).count();
        let stalled = if script == Scripted::Hangs { "connecting" } else { "had one" };
        assert_eq!((count(stalled), count("waiting")), (20, 980));
    }
    assert_eq!(bench.stats().timed_out, 1_000 + 980);
    bench.all_is_free(20).await;
}

async fn one_waiter_too_many_is_turned_away_at_once(bench: &Bench) {
    let held = bench.acquire().await;
    let waiting = [bench.waiting().await, bench.waiting().await];
    let began = Instant::now();
    let error = bench.try_acquire(LONG).await.expect_err("two wait already");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Capacity, Duration::ZERO), "{error}");
    let status = bench.stats();
    assert_eq!((status.rejected, status.waiting, status.timed_out), (1, 2, 0));
    drop(waiting);
    assert_eq!(bench.stats().waiting, 0);
    drop(held);
    bench.all_is_free(1).await;
}

async fn a_failure_to_connect_does_not_stop_the_next_waiter(bench: &Bench) {
    let held = bench.acquire().await;
    let (first, second) = (bench.waiting().await, bench.waiting().await);
    bench.connector.next_connects([Scripted::Fails]);
    held.discard();
    let error = first.await.expect_err("its connection could not be made");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(second.await.expect("the next one's could"));
    bench.all_is_free(1).await;
}

async fn a_raised_limit_serves_waiters_at_once(bench: &Bench) {
    let held = bench.acquire().await;
    let (first, second, mut third) = (bench.waiting().await, bench.waiting().await, bench.waiting().await);
    bench.pool.set_max_connections(3).expect("a valid limit");
    let served = [first.await.expect("served"), second.await.expect("served")];
    assert!(poll_once(&mut third).await.is_none(), "three are in use");
    bench.account(3, 3);
    drop((held, served, third));
    bench.all_is_free(3).await;
}

async fn a_lowered_limit_drops_what_is_idle_at_once_and_the_rest_as_it_comes(bench: &Bench) {
    let error = bench.pool.set_max_connections(0).expect_err("no connections at all");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let held = [bench.acquire().await, bench.acquire().await];
    bench.warm(1, Duration::ZERO).await;
    assert_eq!(bench.stats().idle, 1);
    bench.pool.set_max_connections(1).expect("a valid limit");
    assert_eq!(bench.connector.open(), 2, "what was idle is gone");
    bench.account(2, 1);
    let waiting = bench.waiting().await;
    let [first, second] = held;
    drop(first);
    assert_eq!(bench.connector.open(), 1, "the first to come back is one too many");
    drop(second);
    drop(waiting.await.expect("one is allowed"));
    bench.all_is_free(1).await;
    bench.pool.set_max_connections(4).expect("a valid limit");
    bench.all_is_free(4).await;
}

async fn an_unbounded_pool_says_so(bench: &Bench) {
    let held = [bench.acquire().await, bench.acquire().await, bench.acquire().await];
    bench.account(3, 1);
    let error = bench.pool.set_max_connections(5).expect_err("there is no limit to change");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    drop(held);
}

async fn what_was_idle_for_long_is_checked_first(bench: &Bench) {
    bench.warm(1, bench.settings.check_after / 2).await;
    bench.warm(1, 2 * bench.settings.check_after).await;
    assert_eq!(bench.connector.checked(), 0, "a fresh one goes out unchecked");
    let mut connection = bench.acquire().await;
    assert_eq!((id(&mut connection), bench.connector.checked()), (1, 1));
    bench.account(1, 3);
}

async fn a_connection_that_fails_its_check_is_replaced(bench: &Bench) {
    bench.warm(1, 2 * SECOND).await;
    bench.connector.checks(Scripted::Fails);
    let mut connection = bench.acquire().await;
    assert_eq!((id(&mut connection), bench.connector.open()), (2, 1), "another in its place");
    assert_eq!(bench.stats().discarded, 1);
    bench.account(1, 3);
}

async fn a_check_that_hangs_is_cut_and_its_connection_replaced(bench: &Bench) {
    bench.warm(1, 2 * SECOND).await;
    bench.connector.checks(Scripted::Hangs);
    let began = Instant::now();
    let mut connection = bench.try_acquire(2 * SECOND).await.expect("another within the same deadline");
    assert_eq!((id(&mut connection), bench.connector.open()), (2, 1));
    let waited = began.elapsed();
    assert!(waited >= bench.settings.check_timeout && waited < 2 * SECOND, "{waited:?}");
    assert_eq!((bench.stats().discarded, bench.stats().timed_out), (1, 0));
    bench.account(1, 3);
}

async fn a_check_that_outlives_the_deadline_is_named(bench: &Bench) {
    bench.warm(1, 2 * SECOND).await;
    bench.connector.checks(Scripted::Hangs);
    let began = Instant::now();
    let error = bench.try_acquire(SECOND / 2).await.expect_err("the check hangs");
    timed_out(&error, "checking", began, SECOND / 2);
    assert_eq!((bench.stats().timed_out, bench.connector.open()), (1, 0));
    bench.connector.checks(Scripted::Works);
    bench.all_is_free(3).await;
}

async fn idle_connections_are_reaped_and_used_ones_stay(bench: &Bench) {
    bench.warm(3, bench.settings.idle_timeout - SECOND).await;
    assert_eq!(bench.connector.open(), 3, "they are kept for their whole time");
    drop(bench.acquire().await);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((bench.connector.open(), bench.stats().reaped), (1, 2), "those not used are gone");
    bench.account(0, 3);
    tokio::time::sleep(bench.settings.idle_timeout).await;
    assert_eq!((bench.connector.open(), bench.stats().reaped), (0, 3));
    bench.warm(2, bench.settings.idle_timeout + SECOND).await;
    assert_eq!(bench.connector.open(), 0, "reaping goes on for as long as the pool is used");
    bench.all_is_free(3).await;
}

async fn no_more_idle_connections_are_kept_than_allowed(bench: &Bench) {
    bench.warm(3, Duration::ZERO).await;
    assert_eq!((bench.connector.open(), bench.stats().idle), (1, 1));
    assert_eq!(bench.stats().reaped, 2);
    bench.all_is_free(3).await;
}

/// Random operations against what must hold after each of them, whatever they are.
async fn random_operations_keep_every_bound(bench: &Bench, seed: u64) {
    let mut random = Random::new(seed);
    let mut max = bench.settings.max_connections;
    let mut held: Vec<PooledConnection> = Vec::new();
    let mut pending: Vec<Acquiring> = Vec::new();
    for _ in 0..3_000 {
        match random.below(12) {
            0..=3 if held.len() + pending.len() < 20 => pending.push(bench.acquiring()),
            0..=4 => drop(remove(&mut random, &mut held)),
            5 => drop(remove(&mut random, &mut pending)),
            6 => {
                if let Some(connection) = remove(&mut random, &mut held) {
                    connection.discard();
                }
            }
            7 => {
                if let Some(connection) = held.last_mut() {
                    connection.get_mut::<ScriptedConnection>().expect("the double's own").break_it();
                }
            }
            8 if random.below(4) == 0 => bench.connector.break_all(),
            8 => {
                let how = [Scripted::Fails, Scripted::Fails, Scripted::Hangs];
                bench.connector.next_connects([how[random.below(3) as usize]]);
            }
            9 if bench.capabilities.bounded => {
                max = 1 + random.below(8) as usize;
                bench.pool.set_max_connections(max).expect("a valid limit");
            }
            10 => {
                let checks = [Scripted::Works, Scripted::Works, Scripted::Fails, Scripted::Hangs];
                bench.connector.checks(checks[random.below(4) as usize]);
                tokio::time::sleep(Duration::from_millis(random.below(20_000))).await;
            }
            _ => {}
        }
        let mut at = 0;
        while at < pending.len() {
            // Some are polled, so that others lag behind.
            let polled = if random.below(3) == 0 { None } else { poll_once(&mut pending[at]).await };
            match polled {
                None => at += 1,
                Some(ended) => {
                    drop(pending.swap_remove(at));
                    held.extend(ended.ok());
                }
            }
        }
        bench.account(held.len(), max);
    }
    drop((pending, held));
    bench.connector.checks(Scripted::Works);
    bench.connector.connects(Scripted::Works);
    bench.all_is_free(max).await;
}

fn remove<T>(random: &mut Random, all: &mut Vec<T>) -> Option<T> {
    if all.is_empty() {
        return None;
    }
    Some(all.swap_remove(random.below(all.len() as u64) as usize))
}

/// Lets a crowd of tasks acquire, cancel, discard, break and give back at once, while the limit changes, and
/// checks that no bound was ever exceeded and nothing is left. Run it on a runtime of several threads, with time
/// running as it does.
///
/// # Panics
/// Where the pool breaks the contract.
pub async fn crowd(factory: &dyn PoolFactory) {
    const LARGEST: usize = 8;
    let bench = Arc::new(Bench::new(factory, |settings| {
        settings.max_connections = LARGEST;
        settings.max_idle = LARGEST;
        // The tasks below never wait on a clock; a machine that pauses them must not fail the test.
        settings.connect_timeout = LONG;
        settings.check_after = LONG;
        settings.idle_timeout = LONG;
    }));
    let tasks: Vec<_> = (0..24)
        .map(|seed| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let mut random = Random::new(seed);
                for _ in 0..1_000 {
                    one_of_a_crowd(&bench, &mut random).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    if bench.capabilities.bounded {
        assert!(bench.connector.peak() <= LARGEST as u64, "{} at once", bench.connector.peak());
        bench.pool.set_max_connections(LARGEST).expect("a valid limit");
    }
    bench.all_is_free(LARGEST).await;
}

async fn one_of_a_crowd(bench: &Bench, random: &mut Random) {
    let mut acquiring = bench.acquiring();
    if random.below(3) == 0 {
        for _ in 0..random.below(4) {
            if poll_once(&mut acquiring).await.is_some() {
                break;
            }
        }
        return;
    }
    let mut connection = acquiring.await.expect("there is room to wait");
    for _ in 0..random.below(3) {
        tokio::task::yield_now().await;
    }
    match random.below(20) {
        0 => connection.discard(),
        1 => connection.get_mut::<ScriptedConnection>().expect("the double's own").break_it(),
        2 if bench.capabilities.bounded => {
            let max = 1 + random.below(8) as usize;
            bench.pool.set_max_connections(max).expect("a valid limit");
        }
        _ => {}
    }
}
