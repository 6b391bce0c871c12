//! Connections that lead nowhere.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Connection, Connector};

/// What becomes of an attempt to connect or to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scripted {
    /// It succeeds, after letting other tasks run once.
    #[default]
    Works,
    /// It fails with [`ErrorKind::Unavailable`].
    Fails,
    /// It never ends.
    Hangs,
}

/// Makes [`ScriptedConnection`]s, counts those that exist and fails as told. Cloning gives another handle to the
/// same script.
///
/// ```
/// use arshai::contract::doubles::{Scripted, ScriptedConnector};
/// use arshai::pool::Connector;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let connector = ScriptedConnector::new();
/// let connection = connector.connect().await?;
/// assert_eq!(connector.open(), 1);
/// drop(connection);
/// assert_eq!((connector.open(), connector.made()), (0, 1));
/// connector.connects(Scripted::Fails);
/// assert!(connector.connect().await.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ScriptedConnector(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    connects: Scripted,
    next_connects: VecDeque<Scripted>,
    checks: Scripted,
    connecting: u64,
    open: u64,
    peak: u64,
    made: u64,
    checked: u64,
    /// Connections up to this one are broken.
    broken: u64,
}

impl ScriptedConnector {
    /// A connector whose every attempt works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what becomes of attempts to connect from now on, whatever was said of the next ones.
    pub fn connects(&self, how: Scripted) {
        let mut script = self.0.lock();
        script.connects = how;
        script.next_connects.clear();
    }

    /// Says what becomes of the next attempts to connect, before the others.
    pub fn next_connects(&self, how: impl IntoIterator<Item = Scripted>) {
        self.0.lock().next_connects.extend(how);
    }

    /// Says what becomes of checks from now on.
    pub fn checks(&self, how: Scripted) {
        self.0.lock().checks = how;
    }

    /// Closes every connection there is, as a server that goes away does: none of them is open any more.
    pub fn break_all(&self) {
        let mut script = self.0.lock();
        script.broken = script.made;
    }

    /// Connections that exist, broken ones included.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.0.lock().open
    }

    /// Attempts to connect under way.
    #[must_use]
    pub fn connecting(&self) -> u64 {
        self.0.lock().connecting
    }

    /// The most connections and attempts to connect there were at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.0.lock().peak
    }

    /// Connections made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.0.lock().made
    }

    /// Checks begun so far.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.0.lock().checked
    }
}

#[async_trait]
impl Connector for ScriptedConnector {
    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let attempt = Attempt::begin(self);
        let how = {
            let mut script = self.0.lock();
            script.next_connects.pop_front().unwrap_or(script.connects)
        };
        follow(how, "connecting").await?;
        Ok(Box::new(attempt.succeed()))
    }
}

async fn follow(how: Scripted, what: &str) -> Result<()> {
    match how {
        Scripted::Works => tokio::task::yield_now().await,
        Scripted::Fails => {
            let message = format!("{what} fails, as the script says");
            return Err(Error::new(ErrorKind::Unavailable, "scripted_connector", message));
        }
        Scripted::Hangs => pending().await,
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
        script.made += 1;
        // Dropping the attempt would count it again for a moment.
        script.connecting -= 1;
        let connection = ScriptedConnection { id: script.made, is_broken: false, connector: self.0.clone() };
        drop(script);
        std::mem::forget(self);
        connection
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.0.lock().connecting -= 1;
    }
}

/// A connection that a [`ScriptedConnector`] made.
#[derive(Debug)]
pub struct ScriptedConnection {
    id: u64,
    is_broken: bool,
    connector: ScriptedConnector,
}

impl ScriptedConnection {
    /// Its number: the first one made is 1.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Breaks it: it is no longer open.
    pub fn break_it(&mut self) {
        self.is_broken = true;
    }
}

#[async_trait]
impl Connection for ScriptedConnection {
    fn is_open(&self) -> bool {
        !self.is_broken && self.id > self.connector.0.lock().broken
    }

    async fn check(&mut self) -> Result<()> {
        let how = {
            let mut script = self.connector.0.lock();
            script.checked += 1;
            script.checks
        };
        follow(how, "checking").await
    }
}

impl Drop for ScriptedConnection {
    fn drop(&mut self) {
        self.connector.0.lock().open -= 1;
    }
}
