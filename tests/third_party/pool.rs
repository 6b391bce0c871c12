//! A pool of one's own: as many connections as callers, kept until it is closed.

use std::sync::{Arc, Mutex, MutexGuard};

use arshai::contract::doubles::{ScriptedConnection, ScriptedConnector};
use arshai::contract::pool::{crowd, suite};
use arshai::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolFactory, PoolSettings, PoolStats,
    PooledConnection, ReturnConnection,
};
use arshai::{BuildContext, Config, Deadline, Error, ErrorKind, Health, LimitUsage, Registry, Result};
use async_trait::async_trait;
use tokio::sync::watch;

#[derive(Debug)]
struct OpenPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Arc<dyn Connector>,
    state: Mutex<State>,
    /// How many callers are inside.
    callers: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    idle: Vec<Box<dyn Connection>>,
    figures: PoolStats,
    peak: u64,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.figures.fmt(f)
    }
}

/// A caller inside the pool, and what is counted for it: its connection, in use or still being made.
struct Caller {
    pool: Arc<Inner>,
    counted: bool,
    in_use: bool,
}

impl OpenPool {
    fn new(connector: Arc<dyn Connector>, settings: &PoolSettings) -> Self {
        let mut state = State::default();
        state.figures.name = settings.name;
        Self(Arc::new(Inner { connector, state: Mutex::new(state), callers: watch::Sender::new(0) }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is locked")
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, "open_pool", "the pool is closed")
    }

    fn shut(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            let idle = std::mem::take(&mut state.idle);
            state.figures.reaped += idle.len() as u64;
            state.figures.open -= idle.len() as u64;
            idle
        };
        drop(idle);
    }
}

impl Caller {
    fn enter(pool: &Arc<Inner>) -> Self {
        pool.callers.send_modify(|callers| *callers += 1);
        Self { pool: Arc::clone(pool), counted: false, in_use: false }
    }

    /// The connection used last, if any is idle; without one, counts the one that is to be made.
    fn take(&mut self) -> Result<Option<Box<dyn Connection>>> {
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        if state.closed {
            return Err(self.pool.closed());
        }
        self.counted = true;
        let taken = state.idle.pop();
        match taken {
            Some(_) => self.used(&mut state),
            None => state.figures.open += 1,
        }
        state.peak = state.peak.max(state.figures.open);
        Ok(taken)
    }

    fn used(&mut self, state: &mut State) {
        self.in_use = true;
        state.figures.in_use += 1;
    }

    async fn connect(&mut self, deadline: Deadline) -> Result<Box<dyn Connection>> {
        let made = deadline.run("open_pool", "connecting", self.pool.connector.connect()).await;
        let timed_out = made.is_err();
        let made = made.and_then(|made| made);
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        match &made {
            Ok(_) => {
                state.figures.created += 1;
                self.used(&mut state);
            }
            Err(_) => {
                state.figures.failed += 1;
                state.figures.timed_out += u64::from(timed_out);
            }
        }
        made
    }
}

impl ReturnConnection for Caller {
    fn give_back(mut self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        let keep = keep && connection.is_open();
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        if keep && !state.closed {
            state.idle.push(connection);
            state.figures.in_use -= 1;
            self.counted = false;
        } else {
            drop(state);
            drop(connection);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.counted {
            let mut state = self.pool.state();
            state.figures.open -= 1;
            state.figures.in_use -= u64::from(self.in_use);
            state.figures.discarded += u64::from(self.in_use);
        }
        self.pool.callers.send_modify(|callers| *callers -= 1);
    }
}

#[async_trait]
impl ConnectionPool for OpenPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        loop {
            let mut caller = Caller::enter(&self.0);
            let connection = match caller.take()? {
                Some(connection) => connection,
                None => caller.connect(deadline).await?,
            };
            if connection.is_open() {
                self.0.state().figures.acquired += 1;
                return Ok(PooledConnection::new(connection, Box::new(caller)));
            }
            drop(connection);
        }
    }

    fn status(&self) -> PoolStats {
        let state = self.0.state();
        let mut status = state.figures.clone();
        status.idle = state.idle.len() as u64;
        status.limits =
            vec![LimitUsage::new("pool.max_connections", "connections", status.open, state.peak, None)];
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
        Err(Error::new(ErrorKind::Unsupported, "open_pool", "it has no limit"))
    }

    async fn close(&self, deadline: Deadline) -> usize {
        self.0.shut();
        let mut callers = self.0.callers.subscribe();
        let _ = deadline.run("open_pool", "closing", callers.wait_for(|callers| *callers == 0)).await;
        *self.0.callers.borrow()
    }
}

impl Drop for OpenPool {
    fn drop(&mut self) {
        self.0.shut();
    }
}

fn build(connector: Arc<dyn Connector>, settings: PoolSettings) -> Result<Arc<dyn ConnectionPool>> {
    Ok(Arc::new(OpenPool::new(connector, &settings)))
}

#[tokio::test(start_paused = true)]
async fn a_pool_written_outside_keeps_the_contract() {
    suite(&build).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_written_outside_loses_nothing_in_a_crowd() {
    crowd(&build).await;
}

#[tokio::test]
async fn a_pool_written_outside_is_chosen_by_name() {
    let mut registry = Registry::builtin();
    registry.pool.register("open", |_| {
        let factory: Arc<dyn PoolFactory> = Arc::new(build);
        Ok(factory)
    });
    let config = Config::from_vars([("ARSHAI_POOL__BACKEND".into(), "open".into())]).expect("valid");
    let settings = PoolSettings::new("scripted", &config.pool);
    let context = BuildContext::new(config).with_pools(registry.pool);
    let connector = ScriptedConnector::new();
    let pool = context.pool(Arc::new(connector.clone()), settings).expect("the name is known");
    assert!(!pool.capabilities().bounded, "the built-in default holds bounds, this one does not");
    let deadline = Deadline::after(std::time::Duration::from_secs(5));
    let mut connection = pool.acquire(deadline).await.expect("a connection");
    assert_eq!(connection.get_mut::<ScriptedConnection>().expect("the double's own").id(), 1);
    assert_eq!((pool.status().in_use, connector.open()), (1, 1));
}
