//! Backends by name: one table per seam.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::memory::{EvictionListener, MemoryManager};
use crate::pool::{ConnectionPool, Connector, PoolFactory, PoolSettings};
use crate::tasks::{BackgroundFailureListener, TaskExecutor};
use crate::vectors::VectorStore;

/// What a backend is built from.
#[derive(Clone)]
#[non_exhaustive]
pub struct BuildContext {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Time for whatever expires.
    pub clock: Arc<dyn Clock>,
    /// Told about every entry that leaves the memory store.
    pub eviction_listener: Option<EvictionListener>,
    /// Told about every background task that fails.
    pub background_failure_listener: Option<BackgroundFailureListener>,
    pools: Backends<dyn PoolFactory>,
    /// Every pool of this context and its clones that the runtime watches, resizes and closes.
    watched: Arc<Mutex<Vec<Arc<dyn ConnectionPool>>>>,
}

impl BuildContext {
    /// A context with the machine's clock, the built-in pools and no listeners.
    #[must_use]
    pub fn new(config: impl Into<Arc<Config>>) -> Self {
        Self {
            config: config.into(),
            clock: Arc::new(SystemClock::new()),
            eviction_listener: None,
            background_failure_listener: None,
            pools: Registry::builtin().pool,
            watched: Arc::default(),
        }
    }

    /// Uses another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Chooses pools among these.
    #[must_use]
    pub fn with_pools(mut self, pools: Backends<dyn PoolFactory>) -> Self {
        self.pools = pools;
        self
    }

    /// A pool over `connector` as `pool.backend` and the rollback flags say.
    ///
    /// # Errors
    /// As [`Backends::build`] and [`PoolFactory::build`].
    pub fn pool(
        &self,
        connector: Arc<dyn Connector>,
        settings: PoolSettings,
    ) -> Result<Arc<dyn ConnectionPool>> {
        let name = match self.config.rollback.legacy_connections() {
            true => "legacy",
            false => self.config.pool.backend.as_str(),
        };
        self.pools.build(name, self)?.build(connector, settings)
    }

    /// Makes a pool known to the runtime that is being built: it appears in its statistics, follows its
    /// limits and is closed with it.
    pub fn watch_pool(&self, pool: Arc<dyn ConnectionPool>) {
        self.watched.lock().push(pool);
    }

    /// The pools to watch.
    pub(crate) fn watched_pools(&self) -> Vec<Arc<dyn ConnectionPool>> {
        self.watched.lock().clone()
    }
}

impl fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildContext").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Makes a backend from a context. It must not block and must touch neither network nor disk: backends
/// connect when they are first used.
pub type Factory<T> = Arc<dyn Fn(&BuildContext) -> Result<Arc<T>> + Send + Sync>;

/// The backends of one seam, by name.
pub struct Backends<T: ?Sized> {
    /// The configuration key that chooses among them, for errors: `memory.backend`.
    key: &'static str,
    factories: BTreeMap<&'static str, Factory<T>>,
    /// Names this crate knows but that were not compiled in, with the cargo feature that would.
    not_compiled: BTreeMap<&'static str, &'static str>,
}

impl<T: ?Sized> Clone for Backends<T> {
    fn clone(&self) -> Self {
        Self { key: self.key, factories: self.factories.clone(), not_compiled: self.not_compiled.clone() }
    }
}

impl<T: ?Sized> Backends<T> {
    fn new(key: &'static str) -> Self {
        Self { key, factories: BTreeMap::new(), not_compiled: BTreeMap::new() }
    }

    /// Registers a backend; one of the same name is replaced.
    pub fn register<F>(&mut self, name: &'static str, factory: F)
    where
        F: Fn(&BuildContext) -> Result<Arc<T>> + Send + Sync + 'static,
    {
        self.factories.insert(name, Arc::new(factory));
    }

    /// Says that a backend of this name exists but needs a cargo feature.
    pub fn needs_feature(&mut self, name: &'static str, feature: &'static str) {
        self.not_compiled.insert(name, feature);
    }

    /// The registered names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.factories.keys().copied()
    }

    /// Builds the backend of that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] listing what there is and which cargo feature would add a known one;
    /// whatever the backend's own factory fails with.
    pub fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<T>> {
        match self.factories.get(name) {
            Some(factory) => factory(context),
            None => Err(self.unknown(name)),
        }
    }

    /// Whether a backend of that name is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.factories.contains_key(name)
    }

    pub(crate) fn unknown(&self, name: &str) -> Error {
        let names: Vec<_> = self.names().collect();
        let mut message =
            format!("{} = {name:?} is not available; available: {}", self.key, names.join(", "));
        if let Some(feature) = self.not_compiled.get(name) {
            message.push_str(&format!("; {name:?} needs the cargo feature {feature:?} of arshai"));
        }
        Error::new(ErrorKind::UnknownBackend, "registry", message)
    }
}

impl<T: ?Sized> fmt::Debug for Backends<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// All backends a runtime can choose from. An owned value: two runtimes share no registry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registry {
    /// Conversation memory, chosen by `memory.backend`.
    pub memory: Backends<dyn MemoryManager>,
    /// Task execution, chosen by `tasks.backend`.
    pub tasks: Backends<dyn TaskExecutor>,
    /// HTTP, chosen by `http.backend`.
    pub http: Backends<dyn HttpTransport>,
    /// Vector storage, chosen by `vectors.backend`.
    pub vectors: Backends<dyn VectorStore>,
    /// Connection pools, chosen by `pool.backend`.
    pub pool: Backends<dyn PoolFactory>,
}

impl Registry {
    /// No backends at all.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            memory: Backends::new("memory.backend"),
            tasks: Backends::new("tasks.backend"),
            http: Backends::new("http.backend"),
            vectors: Backends::new("vectors.backend"),
            pool: Backends::new("pool.backend"),
        }
    }

    /// The backends that were compiled in.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::empty();
        crate::backends::register_builtins(&mut registry);
        registry
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_alternatives_and_the_feature_that_would_add_it() {
        let mut registry = Registry::builtin();
        registry.memory.needs_feature("elsewhere", "elsewhere");
        let context = BuildContext::new(Config::default());
        let error = registry.memory.build("elsewhere", &context).expect_err("not compiled in");
        assert_eq!(error.kind(), ErrorKind::UnknownBackend);
        assert!(error.message().contains("available: in_memory, legacy"), "{error}");
        assert!(error.message().contains("needs the cargo feature \"elsewhere\""), "{error}");
    }
}
