//! Acquiring a connection from a pool and returning it, beside other pools. The connections have no server, so that
//! only the pools are measured.
//!
//! Every pool has [`SLOTS`] connections, all opened before anything is measured; none checks a connection. Ours are
//! called through `dyn ConnectionPool` with the caller's deadline, as backends call them.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::pool::{Connection, ConnectionPool, Connector, PoolSettings, PooledConnection};
use arshai::{BuildContext, Config, Deadline, Registry};
use arshai_benches::{Bench, Better};
use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};

const SLOTS: usize = 20;
const CALLERS: usize = 50;

fn main() {
    let mut bench = Bench::from_args("pool");
    let quick = bench.is_quick();
    let checkouts = if quick { 50_000 } else { 500_000 };
    let one = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    compare(&mut bench, "checkout_1caller", "ns/op", Better::Lower, &one, &Job::OneCaller { checkouts });
    let two = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let each = checkouts / 2 / CALLERS;
    let job = Job::Callers { each };
    compare(&mut bench, "checkout_50callers_20slots", "ns/op", Better::Lower, &two, &job);
    let job = Job::Fairness { time: Duration::from_millis(if quick { 100 } else { 500 }) };
    compare(&mut bench, "fairness_50callers_20slots", "min/max", Better::Higher, &two, &job);
    bench.finish();
}

/// A measured workload.
enum Job {
    /// One caller acquires and returns a connection repeatedly: nanoseconds for each.
    OneCaller { checkouts: usize },
    /// [`CALLERS`] do, yielding while they have it: nanoseconds for each, all callers together.
    Callers { each: usize },
    /// They do for `time`: checkouts of the caller with the fewest, divided by those of the one with the most.
    Fairness { time: Duration },
}

fn compare(bench: &mut Bench, case: &str, unit: &'static str, better: Better, runtime: &Runtime, job: &Job) {
    let ours = Arc::new(Ours::new("bounded"));
    let over_mobc = Arc::new(Ours::new("mobc"));
    let deadpool = Arc::new(deadpool_of_slots());
    let bb8 = Arc::new(runtime.block_on(bb8_of_slots()));
    let mobc = Arc::new(mobc_of_slots());
    bench.compare(
        case,
        unit,
        better,
        vec![
            ("ours", Box::new(|| run(runtime, &ours, job))),
            ("arshai mobc backend", Box::new(|| run(runtime, &over_mobc, job))),
            ("deadpool 0.13.1", Box::new(|| run(runtime, &deadpool, job))),
            ("bb8 0.9.1", Box::new(|| run(runtime, &bb8, job))),
            ("mobc 0.9.0", Box::new(|| run(runtime, &mobc, job))),
        ],
    );
}

/// A pool, ours or a peer's.
trait Pool: Send + Sync + 'static {
    type Held<'a>: Send;

    fn acquire(&self) -> impl Future<Output = Self::Held<'_>> + Send;
}

fn run(runtime: &Runtime, pool: &Arc<impl Pool>, job: &Job) -> f64 {
    runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..SLOTS {
            all.push(pool.acquire().await);
        }
        drop(all);
        match *job {
            Job::OneCaller { checkouts } => one_caller(pool.as_ref(), checkouts).await,
            Job::Callers { each } => callers(pool, each).await,
            Job::Fairness { time } => fairness(pool, time).await,
        }
    })
}

async fn one_caller(pool: &impl Pool, checkouts: usize) -> f64 {
    let began = Instant::now();
    for _ in 0..checkouts {
        drop(pool.acquire().await);
    }
    began.elapsed().as_nanos() as f64 / checkouts as f64
}

/// Every caller acquires connections while `go_on` of its count is true; returns all counts.
async fn checkouts(
    pool: &Arc<impl Pool>,
    go_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<usize> {
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (pool, go_on) = (Arc::clone(pool), go_on.clone());
            tokio::spawn(async move {
                let mut had = 0;
                while go_on(had) {
                    let held = pool.acquire().await;
                    tokio::task::yield_now().await;
                    drop(held);
                    had += 1;
                }
                had
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.push(caller.await.expect("no caller panics"));
    }
    all
}

async fn callers(pool: &Arc<impl Pool>, each: usize) -> f64 {
    let began = Instant::now();
    let all = checkouts(pool, move |had| had < each).await;
    began.elapsed().as_nanos() as f64 / all.iter().sum::<usize>() as f64
}

async fn fairness(pool: &Arc<impl Pool>, time: Duration) -> f64 {
    let until = Instant::now() + time;
    let all = checkouts(pool, move |_| Instant::now() < until).await;
    let (least, most) = (all.iter().min(), all.iter().max());
    least.zip(most).map_or(f64::NAN, |(least, most)| *least as f64 / *most as f64)
}

/// The connection of every pool.
struct NoopConnection;

#[derive(Debug)]
struct NoopConnector;

#[async_trait]
impl Connection for NoopConnection {
    fn is_open(&self) -> bool {
        true
    }

    async fn check(&mut self) -> arshai::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Connector for NoopConnector {
    async fn connect(&self) -> arshai::Result<Box<dyn Connection>> {
        Ok(Box::new(NoopConnection))
    }
}

/// One of arshai's own pools.
struct Ours {
    pool: Arc<dyn ConnectionPool>,
    deadline: Deadline,
}

impl Ours {
    fn new(name: &str) -> Self {
        let mut settings = PoolSettings::new("bench", &Config::default().pool);
        settings.max_connections = SLOTS;
        settings.max_idle = SLOTS;
        let context = BuildContext::new(Config::default());
        let factory = Registry::builtin().pool.build(name, &context).expect("a built-in pool");
        let pool = factory.build(Arc::new(NoopConnector), settings).expect("valid settings");
        Self { pool, deadline: Deadline::after(Duration::from_secs(600)) }
    }
}

impl Pool for Ours {
    type Held<'a> = PooledConnection;

    async fn acquire(&self) -> PooledConnection {
        self.pool.acquire(self.deadline).await.expect("one is returned")
    }
}

fn deadpool_of_slots() -> deadpool::managed::Pool<NoopConnector> {
    deadpool::managed::Pool::builder(NoopConnector).max_size(SLOTS).build().expect("valid settings")
}

impl deadpool::managed::Manager for NoopConnector {
    type Type = NoopConnection;
    type Error = Infallible;

    async fn create(&self) -> Result<NoopConnection, Infallible> {
        Ok(NoopConnection)
    }

    async fn recycle(
        &self,
        _: &mut NoopConnection,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl Pool for deadpool::managed::Pool<NoopConnector> {
    type Held<'a> = deadpool::managed::Object<NoopConnector>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one is returned")
    }
}

async fn bb8_of_slots() -> bb8::Pool<NoopConnector> {
    let size = u32::try_from(SLOTS).expect("few slots");
    bb8::Pool::builder()
        .max_size(size)
        .test_on_check_out(false)
        .build(NoopConnector)
        .await
        .expect("it starts")
}

impl bb8::ManageConnection for NoopConnector {
    type Connection = NoopConnection;
    type Error = Infallible;

    async fn connect(&self) -> Result<NoopConnection, Infallible> {
        Ok(NoopConnection)
    }

    async fn is_valid(&self, _: &mut NoopConnection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut NoopConnection) -> bool {
        false
    }
}

impl Pool for bb8::Pool<NoopConnector> {
    type Held<'a> = bb8::PooledConnection<'a, NoopConnector>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one is returned")
    }
}

/// With as many idle connections as it may open, or it would open new ones continually.
fn mobc_of_slots() -> mobc::Pool<NoopConnector> {
    let size = SLOTS as u64;
    mobc::Pool::builder().max_open(size).max_idle(size).test_on_check_out(false).build(NoopConnector)
}

#[mobc::async_trait]
impl mobc::Manager for NoopConnector {
    type Connection = NoopConnection;
    type Error = Infallible;

    async fn connect(&self) -> Result<NoopConnection, Infallible> {
        Ok(NoopConnection)
    }

    async fn check(&self, connection: NoopConnection) -> Result<NoopConnection, Infallible> {
        Ok(connection)
    }
}

impl Pool for mobc::Pool<NoopConnector> {
    type Held<'a> = mobc::Connection<NoopConnector>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one is returned")
    }
}
