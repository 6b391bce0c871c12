//! The one lifecycle of every part of a runtime.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Health, LimitUsage};

/// A part of a runtime: conversation memory, an executor, a transport, a pool, an MCP server, or an application's own.
///
/// The runtime knows its parts only through this trait: [`stats`](crate::Arshai::stats),
/// [`health`](crate::Arshai::health), [`set_limits`](crate::Arshai::set_limits) and
/// [`shutdown`](crate::Arshai::shutdown) go over all of them. A backend adds further parts with
/// [`BuildContext::registrar`](crate::BuildContext::registrar).
///
/// # Contract
/// - [`limits`](Self::limits) and [`counters`](Self::counters) are snapshots: they neither block nor need an async
///   runtime.
/// - [`close`](Self::close) stops accepting work, waits for running work until the deadline, aborts the rest and
///   returns by the deadline (plus scheduling). Closing twice is fine: the second report covers what is left by then.
///   Work offered afterwards fails with [`ErrorKind::Closed`].
#[async_trait]
pub trait Component: Any + fmt::Debug + Send + Sync {
    /// The name, with its instance where there are several: `memory`, `redis`, `mcp:weather`, `llm:gpt-4o`.
    fn name(&self) -> Cow<'_, str>;

    /// When a shutdown closes it.
    fn shutdown_phase(&self) -> ShutdownPhase;

    /// Every limit and how close it is to being reached.
    fn limits(&self) -> Vec<LimitUsage>;

    /// Counters since it was built: an object of numbers, nested by topic.
    fn counters(&self) -> Value {
        Value::Null
    }

    /// Whether it can do its work now. One that has not answered by `deadline` counts as unhealthy. Dropping the
    /// future cancels the check.
    async fn health(&self, deadline: Deadline) -> Health;

    /// Changes the limit with this configuration key, in the unit in which [`limits`](Self::limits) reports it. A lower
    /// limit takes effect immediately for new work; running work completes, and stored entries are evicted in order.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it has no such limit or cannot change it, [`ErrorKind::InvalidInput`] for a
    /// value it cannot work with. Nothing has changed then.
    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let _ = max;
        Err(unsupported_limit_error(self.name().into_owned(), key))
    }

    /// Stops it; see the contract above. Dropping the future leaves it closed to new work.
    async fn close(&self, deadline: Deadline) -> CloseReport;
}

/// The error of a component that has no adjustable limit with this key.
#[must_use]
pub fn unsupported_limit_error(component: impl Into<Cow<'static, str>>, key: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        component,
        format!("cannot change {key}: no adjustable limit with this key"),
    )
}

/// When a shutdown closes a component: from the inside out, so that running work can still use what it stands on.
/// Components of one phase close concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum ShutdownPhase {
    /// Executors and whatever else starts work.
    Tasks,
    /// Clients of other services that stand on a transport: MCP servers, model clients.
    Clients,
    /// Transports: HTTP.
    Transports,
    /// Stores: conversation memory, vectors.
    Stores,
    /// Connection pools, last.
    Connections,
}

/// The work that closing a component completed, aborted and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CloseReport {
    /// Pieces of work that completed while it waited.
    pub finished: usize,
    /// Pieces of work that were aborted at the deadline.
    pub aborted: usize,
    /// Work that could be neither completed nor aborted: functions still running on threads, connections still in use,
    /// data that could not be flushed.
    pub lost: Vec<String>,
}

impl CloseReport {
    /// Nothing was running.
    #[must_use]
    pub fn idle() -> Self {
        Self::default()
    }

    /// A report of what finished, what was aborted and what was lost.
    #[must_use]
    pub fn new(finished: usize, aborted: usize, lost: Vec<String>) -> Self {
        Self { finished, aborted, lost }
    }

    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.aborted == 0 && self.lost.is_empty()
    }
}

/// The components of one runtime, in order of registration. Cloning returns another handle to the same list; components
/// may be added and removed while the runtime is running.
#[derive(Debug, Clone, Default)]
pub(crate) struct Components(Arc<Mutex<Vec<Arc<dyn Component>>>>);

impl Components {
    pub(crate) fn register(&self, component: Arc<dyn Component>) {
        self.0.lock().push(component);
    }

    pub(crate) fn unregister(&self, component: &Arc<dyn Component>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, component));
    }

    /// A handle that does not keep the list alive.
    pub(crate) fn registrar(&self) -> ComponentRegistrar {
        ComponentRegistrar(Arc::downgrade(&self.0))
    }

    /// The component of type `T`; if there is none, the one that `build` gives, which may itself register components.
    pub(crate) fn get_or_register<T: Component>(&self, build: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(component) = find(&self.0.lock()) {
            return Ok(component);
        }
        let built = Arc::new(build()?);
        let mut components = self.0.lock();
        // Another thread may have been first.
        if let Some(component) = find(&components) {
            return Ok(component);
        }
        components.push(Arc::clone(&built) as Arc<dyn Component>);
        Ok(built)
    }

    pub(crate) fn all(&self) -> Vec<Arc<dyn Component>> {
        self.0.lock().clone()
    }
}

/// Adds components to a runtime and removes them, while it is built and while it runs. Keeps neither alive: a component
/// may hold it.
#[derive(Debug, Clone)]
pub struct ComponentRegistrar(Weak<Mutex<Vec<Arc<dyn Component>>>>);

impl ComponentRegistrar {
    /// Adds a component: it appears in statistics and health, follows limits and is closed with the runtime. Does nothing
    /// when the runtime is gone.
    pub fn register(&self, component: Arc<dyn Component>) {
        if let Some(components) = self.0.upgrade() {
            Components(components).register(component);
        }
    }

    /// Removes a component, without closing it.
    pub fn unregister(&self, component: &Arc<dyn Component>) {
        if let Some(components) = self.0.upgrade() {
            Components(components).unregister(component);
        }
    }
}

fn find<T: Component>(components: &[Arc<dyn Component>]) -> Option<Arc<T>> {
    components
        .iter()
        .find_map(|component| Arc::downcast(Arc::clone(component) as Arc<dyn Any + Send + Sync>).ok())
}
