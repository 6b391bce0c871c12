//! The builder of a runtime.

use std::sync::Arc;

use super::{Arshai, Inner};
use crate::clock::Clock;
use crate::component::Component;
use crate::config::{Config, PASSED_BY_VALUE};
use crate::error::Result;
use crate::http::HttpTransport;
use crate::llm::HttpClientFactory;
use crate::mcp::{McpClientHandler, McpCredentialStore, McpServerManager};
use crate::memory::{MemoryManager, RemovedEntry};
use crate::registry::{BackendRegistry, BuildContext, Registry};
use crate::support::opaque_debug;
use crate::tasks::{BackgroundFailure, TaskExecutor};
use crate::vectors::VectorStore;

/// Builds an [`Arshai`]. Backends are selected by name in the configuration, or passed by value.
#[must_use]
pub struct ArshaiBuilder {
    config: Config,
    context: BuildContext,
    memory: Option<Arc<dyn MemoryManager>>,
    tasks: Option<Arc<dyn TaskExecutor>>,
    http: Option<Arc<dyn HttpTransport>>,
    vectors: Option<Arc<dyn VectorStore>>,
    mcp: Option<Arc<dyn McpServerManager>>,
}

impl ArshaiBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            context: BuildContext::new(Config::default()),
            config,
            memory: None,
            tasks: None,
            http: None,
            vectors: None,
            mcp: None,
        }
    }

    /// Selects backends from this registry. Start from [`Registry::builtin`] to add to the built-in ones.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.context = self.context.with_registry(registry);
        self
    }

    /// Uses this memory, regardless of the configuration and of rollback flags.
    pub fn memory(mut self, memory: Arc<dyn MemoryManager>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Uses this executor, regardless of the configuration and of rollback flags.
    pub fn tasks(mut self, tasks: Arc<dyn TaskExecutor>) -> Self {
        self.tasks = Some(tasks);
        self
    }

    /// Uses this transport, regardless of the configuration and of rollback flags.
    pub fn http(mut self, http: Arc<dyn HttpTransport>) -> Self {
        self.http = Some(http);
        self
    }

    /// Uses this vector store, regardless of the configuration.
    pub fn vectors(mut self, vectors: Arc<dyn VectorStore>) -> Self {
        self.vectors = Some(vectors);
        self
    }

    /// Uses this manager of MCP servers, regardless of the configuration.
    pub fn mcp(mut self, mcp: Arc<dyn McpServerManager>) -> Self {
        self.mcp = Some(mcp);
        self
    }

    /// Keeps the credentials of authorized MCP servers in this store, instead of in memory.
    pub fn mcp_credentials(mut self, store: Arc<dyn McpCredentialStore>) -> Self {
        self.context.mcp_credentials = Some(store);
        self
    }

    /// Uses this clock for expiry.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.context.clock = clock;
        self
    }

    /// Calls `listener` for every entry that leaves the memory store.
    pub fn eviction_listener(mut self, listener: impl Fn(RemovedEntry) + Send + Sync + 'static) -> Self {
        self.context.eviction_listener = Some(Arc::new(listener));
        self
    }

    /// Calls `listener` for every background task that fails.
    pub fn background_failure_listener(
        mut self,
        listener: impl Fn(BackgroundFailure) + Send + Sync + 'static,
    ) -> Self {
        self.context.background_failure_listener = Some(Arc::new(listener));
        self
    }

    /// Answers requests of MCP servers for input from the user, a response of a language model, or folders.
    pub fn mcp_handler(mut self, handler: Arc<dyn McpClientHandler>) -> Self {
        self.context.mcp_handler = Some(handler);
        self
    }

    /// Builds the runtime. Connects and starts nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for invalid values, including those that code assigned to fields;
    /// [`ErrorKind::UnknownBackend`](crate::ErrorKind::UnknownBackend) for a name that is not registered, listing the
    /// registered ones; errors from the backends' factories.
    pub fn build(self) -> Result<Arshai> {
        let Self { mut config, mut context, memory, tasks, http, vectors, mcp } = self;
        config.validate()?;
        for (is_passed, backend) in [
            (memory.is_some(), &mut config.memory.backend),
            (tasks.is_some(), &mut config.tasks.backend),
            (http.is_some(), &mut config.http.backend),
            (vectors.is_some(), &mut config.vectors.backend),
            (mcp.is_some(), &mut config.mcp.backend),
        ] {
            if is_passed {
                *backend = PASSED_BY_VALUE.to_owned();
            }
        }
        let registry = Arc::clone(&context.registry);
        let config = Arc::new(config.effective_with(|key, name| registry.contains(key, name)));
        context.config = Arc::clone(&config);
        let defaults = Config::default();
        // Pools are built by what connects, later: an unknown name must not wait for that.
        if config.pool.backend != defaults.pool.backend && !registry.pool.contains(&config.pool.backend) {
            return Err(registry.pool.unknown_backend_error(&config.pool.backend));
        }
        let memory = match memory {
            Some(memory) => memory,
            None => registry.memory.build(&config.memory.backend, &context)?,
        };
        let tasks = match tasks {
            Some(tasks) => tasks,
            None => registry.tasks.build(&config.tasks.backend, &context)?,
        };
        let http = match http {
            Some(http) => Some(http),
            None => build_optional(&registry.http, &config.http.backend, &defaults.http.backend, &context)?,
        };
        let vectors = match vectors {
            Some(vectors) => Some(vectors),
            None => build_optional(
                &registry.vectors,
                &config.vectors.backend,
                &defaults.vectors.backend,
                &context,
            )?,
        };
        context.http.clone_from(&http);
        let mcp = match mcp {
            Some(mcp) => Some(mcp),
            // Servers that were asked for must not be missing in silence.
            None if config.mcp.enabled => Some(registry.mcp.build(&config.mcp.backend, &context)?),
            None => build_optional(&registry.mcp, &config.mcp.backend, &defaults.mcp.backend, &context)?,
        };
        let components = context.components();
        components.register(Arc::clone(&memory) as Arc<dyn Component>);
        components.register(Arc::clone(&tasks) as Arc<dyn Component>);
        if let Some(http) = &http {
            components.register(Arc::clone(http) as Arc<dyn Component>);
        }
        if let Some(vectors) = &vectors {
            components.register(Arc::clone(vectors) as Arc<dyn Component>);
        }
        if let Some(mcp) = &mcp {
            components.register(Arc::clone(mcp) as Arc<dyn Component>);
        }
        let client_factory = HttpClientFactory::from_context(context.clone());
        Ok(Arshai(Arc::new(Inner { context, memory, tasks, http, vectors, mcp, client_factory })))
    }

    /// Adds a component of the application: it appears in statistics and health, follows limits and is closed with
    /// the runtime.
    pub fn component(self, component: Arc<dyn Component>) -> Self {
        self.context.components().register(component);
        self
    }
}

opaque_debug!(ArshaiBuilder { context });

/// A missing default backend (its cargo feature is off) is an error only when it is used; an unknown configured name is
/// an error now.
fn build_optional<T: ?Sized>(
    backends: &BackendRegistry<T>,
    name: &str,
    default: &str,
    context: &BuildContext,
) -> Result<Option<Arc<T>>> {
    if name == default && !backends.contains(name) {
        return Ok(None);
    }
    backends.build(name, context).map(Some)
}
