//! A custom pool: as many connections as callers, kept until it is closed.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard};

use arshai::contract::doubles::{ScriptedConnection, ScriptedConnector};
use arshai::contract::pool::{Setup, stress, suite};
use arshai::pool::{
    Connection, ConnectionPool, Connector, PoolCapabilities, PoolFactory, PoolSettings, PoolStats,
    PooledConnection, ReturnConnection,
};
use arshai::{
    BuildContext, CloseReport, Component, Config, Deadline, Error, ErrorKind, Health, LimitUsage, Registry,
    Result, ShutdownPhase,
};
use async_trait::async_trait;
use tokio::sync::watch;

#[derive(Debug)]
struct OpenPool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Arc<dyn Connector>,
    state: Mutex<State>,
    /// Callers that have a connection or are opening one.
    callers: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    idle: Vec<Box<dyn Connection>>,
    stats: PoolStats,
    peak: u64,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats.fmt(f)
    }
}

/// A caller, and what is counted for it: its connection, in use or being opened.
struct Caller {
    pool: Arc<Inner>,
    counted: bool,
    in_use: bool,
}

impl OpenPool {
    fn new(connector: Arc<dyn Connector>, settings: &PoolSettings) -> Self {
        let mut state = State::default();
        state.stats.name = settings.name;
        Self(Arc::new(Inner { connector, state: Mutex::new(state), callers: watch::Sender::new(0) }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is locked")
    }

    fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, "open_pool", "pool is closed").not_sent()
    }

    fn begin_close(&self) {
        let idle = {
            let mut state = self.state();
            state.closed = true;
            let idle = std::mem::take(&mut state.idle);
            state.stats.reaped += idle.len() as u64;
            state.stats.open -= idle.len() as u64;
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

    /// Takes the connection used last; without one, counts one that is being opened.
    fn checkout(&mut self) -> Result<Option<Box<dyn Connection>>> {
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        if state.closed {
            return Err(self.pool.closed_error());
        }
        self.counted = true;
        let taken = state.idle.pop();
        match taken {
            Some(_) => self.mark_in_use(&mut state),
            None => state.stats.open += 1,
        }
        state.peak = state.peak.max(state.stats.open);
        Ok(taken)
    }

    fn mark_in_use(&mut self, state: &mut State) {
        self.in_use = true;
        state.stats.in_use += 1;
    }

    async fn connect(&mut self, deadline: Deadline) -> Result<Box<dyn Connection>> {
        let connected = deadline.run("open_pool", "connecting", self.pool.connector.connect()).await;
        let timed_out = connected.is_err();
        let connected = connected.and_then(|connected| connected);
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        match &connected {
            Ok(_) => {
                state.stats.created += 1;
                self.mark_in_use(&mut state);
            }
            Err(_) => {
                state.stats.failed += 1;
                state.stats.timed_out += u64::from(timed_out);
            }
        }
        connected.map_err(Error::not_sent)
    }
}

impl ReturnConnection for Caller {
    fn return_connection(mut self: Box<Self>, connection: Box<dyn Connection>, reusable: bool) {
        let reusable = reusable && connection.is_open();
        let pool = Arc::clone(&self.pool);
        let mut state = pool.state();
        if reusable && !state.closed {
            state.idle.push(connection);
            state.stats.in_use -= 1;
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
            state.stats.open -= 1;
            state.stats.in_use -= u64::from(self.in_use);
            state.stats.discarded += u64::from(self.in_use);
        }
        self.pool.callers.send_modify(|callers| *callers -= 1);
    }
}

#[async_trait]
impl ConnectionPool for OpenPool {
    async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        loop {
            let mut caller = Caller::enter(&self.0);
            let connection = match caller.checkout()? {
                Some(connection) => connection,
                None => caller.connect(deadline).await?,
            };
            if connection.is_open() {
                self.0.state().stats.acquired += 1;
                return Ok(PooledConnection::new(connection, Box::new(caller)));
            }
            drop(connection);
        }
    }

    fn stats(&self) -> PoolStats {
        let state = self.0.state();
        let mut stats = state.stats.clone();
        stats.idle = state.idle.len() as u64;
        stats
    }

    /// Unbounded, without health checks; but closing drops what is idle.
    fn capabilities(&self) -> PoolCapabilities {
        let mut capabilities = PoolCapabilities::default();
        capabilities.drops_idle = true;
        capabilities
    }
}

#[async_trait]
impl Component for OpenPool {
    fn name(&self) -> Cow<'_, str> {
        "open_pool".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let state = self.0.state();
        vec![LimitUsage::new("pool.max_connections", "connections", state.stats.open, state.peak, None)]
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let check = async { self.acquire(deadline).await?.check(deadline).await };
        match check.await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::unhealthy(error.to_string()),
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.begin_close();
        let mut callers = self.0.callers.subscribe();
        let _ = deadline.run("open_pool", "closing", callers.wait_for(|callers| *callers == 0)).await;
        let lost = match *self.0.callers.borrow() {
            0 => Vec::new(),
            callers => vec![format!("{callers} connections still in use")],
        };
        CloseReport::new(0, 0, lost)
    }
}

impl Drop for OpenPool {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

fn build(connector: Arc<dyn Connector>, settings: PoolSettings) -> Result<Arc<dyn ConnectionPool>> {
    Ok(Arc::new(OpenPool::new(connector, &settings)))
}

async fn make(setup: Setup) -> Arc<dyn ConnectionPool> {
    Arc::new(OpenPool::new(setup.connector, &setup.settings))
}

#[tokio::test(start_paused = true)]
async fn a_third_party_pool_keeps_the_contract() {
    suite(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_third_party_pool_loses_nothing_under_stress() {
    stress(make).await;
}

#[tokio::test]
async fn a_third_party_pool_is_selected_by_name() {
    let mut registry = Registry::builtin();
    registry.pool.register("open", |_| {
        let factory: Arc<dyn PoolFactory> = Arc::new(build);
        Ok(factory)
    });
    let config = Config::from_vars([("ARSHAI_POOL__BACKEND".into(), "open".into())]).expect("valid");
    let settings = PoolSettings::new("scripted", &config.pool);
    let context = BuildContext::new(config).with_registry(registry);
    let connector = ScriptedConnector::new();
    let pool = context.build_pool(Arc::new(connector.clone()), settings).expect("the name is known");
    assert!(!pool.capabilities().bounded, "the default has limits, this one has none");
    let deadline = Deadline::after(std::time::Duration::from_secs(5));
    let mut connection = pool.acquire(deadline).await.expect("a connection");
    assert_eq!(connection.get_mut::<ScriptedConnection>().expect("the double's own").id(), 1);
    assert_eq!((pool.stats().in_use, connector.open()), (1, 1));
}
