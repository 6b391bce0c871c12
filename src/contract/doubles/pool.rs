//! Connections without a server.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Connection, Connector};

/// The outcome of an attempt to connect or to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptedOutcome {
    /// It succeeds, after letting other tasks run once.
    #[default]
    Succeeds,
    /// It fails with [`ErrorKind::Unavailable`].
    Fails,
    /// It never completes.
    Hangs,
}

/// Opens [`ScriptedConnection`]s, counts them and fails as configured. Cloning returns another handle to the same
/// script.
///
/// ```
/// use arshai::contract::doubles::{ScriptedConnector, ScriptedOutcome};
/// use arshai::pool::Connector;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let connector = ScriptedConnector::new();
/// let connection = connector.connect().await?;
/// assert_eq!(connector.open(), 1);
/// drop(connection);
/// assert_eq!((connector.open(), connector.created()), (0, 1));
/// connector.set_connect_outcome(ScriptedOutcome::Fails);
/// assert!(connector.connect().await.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ScriptedConnector(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    connects: ScriptedOutcome,
    next_connects: VecDeque<ScriptedOutcome>,
    checks: ScriptedOutcome,
    connecting: u64,
    open: u64,
    peak: u64,
    created: u64,
    checked: u64,
    /// Connections up to this id are broken.
    broken: u64,
}

impl ScriptedConnector {
    /// A connector whose attempts all succeed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the outcome of further attempts to connect, and forgets
    /// [`set_next_connect_outcomes`](Self::set_next_connect_outcomes).
    pub fn set_connect_outcome(&self, outcome: ScriptedOutcome) {
        let mut script = self.0.lock();
        script.connects = outcome;
        script.next_connects.clear();
    }

    /// Adds outcomes of the next attempts to connect, one each.
    pub fn set_next_connect_outcomes(&self, outcomes: impl IntoIterator<Item = ScriptedOutcome>) {
        self.0.lock().next_connects.extend(outcomes);
    }

    /// Sets the outcome of further checks.
    pub fn set_check_outcome(&self, outcome: ScriptedOutcome) {
        self.0.lock().checks = outcome;
    }

    /// Breaks every connection there is, as a server does that goes away: none of them is open any more.
    pub fn break_all(&self) {
        let mut script = self.0.lock();
        script.broken = script.created;
    }

    /// Connections that exist now, broken ones included.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.0.lock().open
    }

    /// Attempts to connect in progress.
    #[must_use]
    pub fn connecting(&self) -> u64 {
        self.0.lock().connecting
    }

    /// Maximum number of connections and attempts to connect that existed together.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.0.lock().peak
    }

    /// Connections opened so far.
    #[must_use]
    pub fn created(&self) -> u64 {
        self.0.lock().created
    }

    /// Checks started so far.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.0.lock().checked
    }
}

#[async_trait]
impl Connector for ScriptedConnector {
    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let attempt = Attempt::begin(self);
        let outcome = {
            let mut script = self.0.lock();
            script.next_connects.pop_front().unwrap_or(script.connects)
        };
        run(outcome, "connecting").await?;
        Ok(Box::new(attempt.succeed()))
    }
}

async fn run(outcome: ScriptedOutcome, step: &str) -> Result<()> {
    match outcome {
        ScriptedOutcome::Succeeds => tokio::task::yield_now().await,
        ScriptedOutcome::Fails => {
            let message = format!("{step} failed: scripted");
            return Err(Error::new(ErrorKind::Unavailable, "scripted_connector", message));
        }
        ScriptedOutcome::Hangs => pending().await,
    }
    Ok(())
}

/// An attempt to connect; dropped, it leaves nothing behind.
struct Attempt<'a>(&'a ScriptedConnector);

impl<'a> Attempt<'a> {
    fn begin(connector: &'a ScriptedConnector) -> Self {
        let mut script = connector.0.lock();
        script.connecting += 1;
        script.peak = script.peak.max(script.connecting + script.open);
        Self(connector)
    }

    fn succeed(self) -> ScriptedConnection {
        let mut script = self.0.0.lock();
        script.open += 1;
        script.created += 1;
        script.connecting -= 1;
        let connection =
            ScriptedConnection { id: script.created, is_broken: false, connector: self.0.clone() };
        drop(script);
        // Its drop would count the attempt out again.
        std::mem::forget(self);
        connection
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.0.lock().connecting -= 1;
    }
}

/// A connection that a [`ScriptedConnector`] opened.
#[derive(Debug)]
pub struct ScriptedConnection {
    id: u64,
    is_broken: bool,
    connector: ScriptedConnector,
}

impl ScriptedConnection {
    /// Its number: the first one opened is 1.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Marks the connection as not open any more.
    pub fn mark_broken(&mut self) {
        self.is_broken = true;
    }
}

#[async_trait]
impl Connection for ScriptedConnection {
    fn is_open(&self) -> bool {
        !self.is_broken && self.id > self.connector.0.lock().broken
    }

    async fn check(&mut self) -> Result<()> {
        let outcome = {
            let mut script = self.connector.0.lock();
            script.checked += 1;
            script.checks
        };
        run(outcome, "checking").await
    }
}

impl Drop for ScriptedConnection {
    fn drop(&mut self) {
        self.connector.0.lock().open -= 1;
    }
}
