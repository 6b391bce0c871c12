//! Backends by name: one table per backend trait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::component::{Component, ComponentRegistrar, Components};
use crate::config::{Config, closest_match};
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::mcp::{McpClientHandler, McpCredentialStore, McpServerManager};
use crate::memory::{EvictionListener, MemoryManager};
use crate::pool::{ConnectionPool, Connector, PoolFactory, PoolSettings};
use crate::support::opaque_debug;
use crate::tasks::{BackgroundFailureListener, TaskExecutor};
use crate::vectors::VectorStore;

/// The inputs that a backend is built from.
#[derive(Clone)]
#[non_exhaustive]
pub struct BuildContext {
    /// The [effective](Config::effective) configuration: rollback flags are applied.
    pub config: Arc<Config>,
    /// The clock for expiry.
    pub clock: Arc<dyn Clock>,
    /// Called for every entry that leaves the memory store.
    pub eviction_listener: Option<EvictionListener>,
    /// Called for every background task that fails.
    pub background_failure_listener: Option<BackgroundFailureListener>,
    /// Answers what MCP servers ask of the application.
    pub mcp_handler: Option<Arc<dyn McpClientHandler>>,
    /// Where MCP servers' credentials are kept; in memory if `None`.
    pub mcp_credentials: Option<Arc<dyn McpCredentialStore>>,
    /// The backends to choose from, for backends that are built on others.
    pub registry: Arc<Registry>,
    /// The runtime's transport, once it is built: for backends that speak HTTP.
    pub http: Option<Arc<dyn HttpTransport>>,
    components: Components,
}

impl BuildContext {
    /// A context with the system clock, the built-in backends and no listeners.
    #[must_use]
    pub fn new(config: impl Into<Arc<Config>>) -> Self {
        let registry = Registry::builtin();
        let config = Config::clone(&config.into()).effective_with(|key, name| registry.contains(key, name));
        Self {
            config: Arc::new(config),
            clock: Arc::new(SystemClock::new()),
            eviction_listener: None,
            background_failure_listener: None,
            mcp_handler: None,
            mcp_credentials: None,
            registry: Arc::new(registry),
            http: None,
            components: Components::default(),
        }
    }

    /// Uses another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Chooses among these backends.
    #[must_use]
    pub fn with_registry(mut self, registry: impl Into<Arc<Registry>>) -> Self {
        self.registry = registry.into();
        self
    }

    /// Builds a pool over `connector` with the backend that `pool.backend` names.
    ///
    /// # Errors
    /// As [`BackendRegistry::build`] and [`PoolFactory::build`].
    pub fn build_pool(
        &self,
        connector: Arc<dyn Connector>,
        settings: PoolSettings,
    ) -> Result<Arc<dyn ConnectionPool>> {
        self.registry.pool.build(&self.config.pool.backend, self)?.build(connector, settings)
    }

    /// The registered component of type `T`, or else the one that `build` gives, registered: for parts that the whole
    /// runtime shares.
    ///
    /// # Errors
    /// Those of `build`. Nothing is registered then.
    pub fn get_or_register<T: Component>(&self, build: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        self.components.get_or_register(build)
    }

    /// Adds components to the runtime that is being built or, later, running, and removes them.
    #[must_use]
    pub fn registrar(&self) -> ComponentRegistrar {
        self.components.registrar()
    }

    pub(crate) fn components(&self) -> Components {
        self.components.clone()
    }
}

opaque_debug!(BuildContext { clock });

/// Builds a backend from a context. It must not block and must touch neither network nor disk: backends connect on first
/// use.
pub type BackendFactory<T> = Arc<dyn Fn(&BuildContext) -> Result<Arc<T>> + Send + Sync>;

/// The backends of one trait, by name.
pub struct BackendRegistry<T: ?Sized> {
    /// The configuration key that selects one, for errors: `memory.backend`.
    key: &'static str,
    factories: BTreeMap<&'static str, BackendFactory<T>>,
    /// Known names that cannot be built, with a hint for the error.
    unavailable: BTreeMap<&'static str, String>,
}

impl<T: ?Sized> Clone for BackendRegistry<T> {
    fn clone(&self) -> Self {
        Self { key: self.key, factories: self.factories.clone(), unavailable: self.unavailable.clone() }
    }
}

impl<T: ?Sized> BackendRegistry<T> {
    fn new(key: &'static str) -> Self {
        Self { key, factories: BTreeMap::new(), unavailable: BTreeMap::new() }
    }

    /// Registers a backend, replacing one of the same name.
    pub fn register<F>(&mut self, name: &'static str, factory: F)
    where
        F: Fn(&BuildContext) -> Result<Arc<T>> + Send + Sync + 'static,
    {
        self.factories.insert(name, Arc::new(factory));
    }

    /// Registers that a backend of this name exists but needs a cargo feature.
    pub fn register_unavailable(&mut self, name: &'static str, feature: &'static str) {
        self.unavailable.insert(name, format!("needs the cargo feature {feature:?} of arshai"));
    }

    /// Registers the name of a backend that was removed, and the backend to use instead.
    pub fn register_removed(&mut self, name: &'static str, replacement: &'static str) {
        self.unavailable.insert(name, format!("was removed; use {replacement:?}"));
    }

    /// The registered names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.factories.keys().copied()
    }

    /// Builds the backend of that name.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] listing the registered names and the cargo feature that adds a known one; errors
    /// from the backend's factory.
    pub fn build(&self, name: &str, context: &BuildContext) -> Result<Arc<T>> {
        match self.factories.get(name) {
            Some(factory) => factory(context),
            None => Err(self.unknown_backend_error(name)),
        }
    }

    /// Whether a backend of that name is registered.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.factories.contains_key(name)
    }

    pub(crate) fn unknown_backend_error(&self, name: &str) -> Error {
        let names: Vec<_> = self.names().collect();
        let available = match names.as_slice() {
            [] => "no backend of this kind was compiled in".to_owned(),
            names => format!("available: {}", names.join(", ")),
        };
        let mut message = format!("{} = {name:?} is not available; {available}", self.key);
        let known = names.iter().chain(self.unavailable.keys()).map(ToString::to_string);
        if let Some(closest) = closest_match(name, known) {
            if closest != name {
                message.push_str(&format!("; did you mean {closest:?}?"));
            }
            if let Some(hint) = self.unavailable.get(closest.as_str()) {
                message.push_str(&format!("; {closest:?} {hint}"));
            }
        }
        Error::new(ErrorKind::UnknownBackend, "registry", message)
    }
}

impl<T: ?Sized> fmt::Debug for BackendRegistry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// All backends that a runtime can choose from. An owned value: two runtimes share no registry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registry {
    /// Conversation memory, selected by `memory.backend`.
    pub memory: BackendRegistry<dyn MemoryManager>,
    /// Task execution, selected by `tasks.backend`.
    pub tasks: BackendRegistry<dyn TaskExecutor>,
    /// HTTP, selected by `http.backend`.
    pub http: BackendRegistry<dyn HttpTransport>,
    /// Vector storage, selected by `vectors.backend`.
    pub vectors: BackendRegistry<dyn VectorStore>,
    /// MCP server managers, selected by `mcp.backend`.
    pub mcp: BackendRegistry<dyn McpServerManager>,
    /// Connection pools, selected by `pool.backend`.
    pub pool: BackendRegistry<dyn PoolFactory>,
}

impl Registry {
    /// No backends at all.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            memory: BackendRegistry::new("memory.backend"),
            tasks: BackendRegistry::new("tasks.backend"),
            http: BackendRegistry::new("http.backend"),
            vectors: BackendRegistry::new("vectors.backend"),
            mcp: BackendRegistry::new("mcp.backend"),
            pool: BackendRegistry::new("pool.backend"),
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

impl Registry {
    /// Whether there is a backend of that name for this configuration key.
    pub(crate) fn contains(&self, key: &str, name: &str) -> bool {
        match key {
            "memory.backend" => self.memory.contains(name),
            "tasks.backend" => self.tasks.contains(name),
            "http.backend" => self.http.contains(name),
            "vectors.backend" => self.vectors.contains(name),
            "mcp.backend" => self.mcp.contains(name),
            _ => self.pool.contains(name),
        }
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
    fn a_misspelt_name_is_answered_with_the_closest_one() {
        let context = BuildContext::new(Config::default());
        let error = Registry::builtin().memory.build("in_memroy", &context).expect_err("misspelt");
        assert!(error.message().ends_with("did you mean \"in_memory\"?"), "{error}");
        let mut registry = Registry::empty();
        registry.memory.register_unavailable("redis", "redis");
        let error = registry.memory.build("reids", &context).expect_err("misspelt and not compiled in");
        let expected = "did you mean \"redis\"?; \"redis\" needs the cargo feature \"redis\" of arshai";
        assert!(error.message().ends_with(expected), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_alternatives_and_the_feature_that_would_add_it() {
        let mut registry = Registry::builtin();
        registry.memory.register_unavailable("elsewhere", "elsewhere");
        let context = BuildContext::new(Config::default());
        let error = registry.memory.build("elsewhere", &context).expect_err("not compiled in");
        assert_eq!(error.kind(), ErrorKind::UnknownBackend);
        assert!(error.message().contains("available: in_memory, legacy"), "{error}");
        assert!(error.message().contains("needs the cargo feature \"elsewhere\""), "{error}");
        let mut nothing = Registry::empty();
        nothing.memory.register_unavailable("elsewhere", "elsewhere");
        let error = nothing.memory.build("elsewhere", &context).expect_err("not compiled in");
        let expected = "memory.backend = \"elsewhere\" is not available; no backend of this kind was compiled in; \
                        \"elsewhere\" needs the cargo feature \"elsewhere\" of arshai";
        assert_eq!(error.message(), expected);
        let error = registry.memory.build("tiered", &context).expect_err("removed");
        assert!(error.message().contains("\"tiered\" was removed; use \"redis\""), "{error}");
    }
}
