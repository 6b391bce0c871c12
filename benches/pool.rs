//! Taking a connection out of a pool and giving it back, beside other pools. The connections lead nowhere, so that
//! only the pools are measured.
//!
//! Every pool has [`SLOTS`] connections, all of them made before anything is measured, and waits as long as it takes
//! or its usual time; none asks a connection whether it still works. Ours is called through `dyn ConnectionPool`, as
//! backends call it, with a deadline that comes from further up, as theirs do.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::backends::pool::{lean, mobc as over_mobc};
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

/// What a contender has to do.
enum Job {
    /// One caller takes a connection and gives it back, again and again: nanoseconds for each time.
    OneCaller { checkouts: usize },
    /// [`CALLERS`] do, and let others run while they have it: nanoseconds for each time, all callers together.
    Callers { each: usize },
    /// They do for `time`: how often the unluckiest came to its turn for each turn of the luckiest.
    Fairness { time: Duration },
}

fn compare(bench: &mut Bench, case: &str, unit: &'static str, better: Better, runtime: &Runtime, job: &Job) {
    let ours = Arc::new(Ours::new(lean::NAME));
    let mobc_backend = Arc::new(Ours::new(over_mobc::NAME));
    let deadpool = Arc::new(deadpool_of_slots());
    let bb8 = Arc::new(runtime.block_on(bb8_of_slots()));
    let mobc = Arc::new(mobc_of_slots());
    bench.compare(
        case,
        unit,
        better,
        vec![
            ("ours", Box::new(|| run(runtime, &ours, job))),
            ("arshai mobc backend", Box::new(|| run(runtime, &mobc_backend, job))),
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

/// Every caller takes turns for as long as `go_on` says of the number it had; gives all their numbers.
async fn turns(pool: &Arc<impl Pool>, go_on: impl Fn(usize) -> bool + Clone + Send + 'static) -> Vec<usize> {
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
    let all = turns(pool, move |had| had < each).await;
    began.elapsed().as_nanos() as f64 / all.iter().sum::<usize>() as f64
}

async fn fairness(pool: &Arc<impl Pool>, time: Duration) -> f64 {
    let until = Instant::now() + time;
    let all = turns(pool, move |_| Instant::now() < until).await;
    let (least, most) = (all.iter().min(), all.iter().max());
    least.zip(most).map_or(f64::NAN, |(least, most)| *least as f64 / *most as f64)
}

/// The connection of every pool.
struct Nowhere;

#[derive(Debug)]
struct ToNowhere;

#[async_trait]
impl Connection for Nowhere {
    fn is_open(&self) -> bool {
        true
    }

    async fn check(&mut self) -> arshai::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Connector for ToNowhere {
    async fn connect(&self) -> arshai::Result<Box<dyn Connection>> {
        Ok(Box::new(Nowhere))
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
        let pool = factory.build(Arc::new(ToNowhere), settings).expect("valid settings");
        Self { pool, deadline: Deadline::after(Duration::from_secs(600)) }
    }
}

impl Pool for Ours {
    type Held<'a> = PooledConnection;

    async fn acquire(&self) -> PooledConnection {
        self.pool.acquire(self.deadline).await.expect("one comes free")
    }
}

fn deadpool_of_slots() -> deadpool::managed::Pool<ToNowhere> {
    deadpool::managed::Pool::builder(ToNowhere).max_size(SLOTS).build().expect("valid settings")
}

impl deadpool::managed::Manager for ToNowhere {
    type Type = Nowhere;
    type Error = Infallible;

    async fn create(&self) -> Result<Nowhere, Infallible> {
        Ok(Nowhere)
    }

    async fn recycle(
        &self,
        _: &mut Nowhere,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

impl Pool for deadpool::managed::Pool<ToNowhere> {
    type Held<'a> = deadpool::managed::Object<ToNowhere>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one comes free")
    }
}

async fn bb8_of_slots() -> bb8::Pool<ToNowhere> {
    let size = u32::try_from(SLOTS).expect("few slots");
    bb8::Pool::builder().max_size(size).test_on_check_out(false).build(ToNowhere).await.expect("it starts")
}

impl bb8::ManageConnection for ToNowhere {
    type Connection = Nowhere;
    type Error = Infallible;

    async fn connect(&self) -> Result<Nowhere, Infallible> {
        Ok(Nowhere)
    }

    async fn is_valid(&self, _: &mut Nowhere) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Nowhere) -> bool {
        false
    }
}

impl Pool for bb8::Pool<ToNowhere> {
    type Held<'a> = bb8::PooledConnection<'a, ToNowhere>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one comes free")
    }
}

/// With as many idle connections as it may open, or it would open new ones all the time.
fn mobc_of_slots() -> mobc::Pool<ToNowhere> {
    let size = SLOTS as u64;
    mobc::Pool::builder().max_open(size).max_idle(size).test_on_check_out(false).build(ToNowhere)
}

#[mobc::async_trait]
impl mobc::Manager for ToNowhere {
    type Connection = Nowhere;
    type Error = Infallible;

    async fn connect(&self) -> Result<Nowhere, Infallible> {
        Ok(Nowhere)
    }

    async fn check(&self, connection: Nowhere) -> Result<Nowhere, Infallible> {
        Ok(connection)
    }
}

impl Pool for mobc::Pool<ToNowhere> {
    type Held<'a> = mobc::Connection<ToNowhere>;

    async fn acquire(&self) -> Self::Held<'_> {
        self.get().await.expect("one comes free")
    }
}
