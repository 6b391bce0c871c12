//! The runtime: owns the configuration, one backend of each kind, and every component.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;

use crate::agent::ChatAgent;
use crate::clock::Clock;
use crate::component::{CloseReport, Component, Components, ShutdownPhase, unsupported_limit_error};
use crate::config::{Config, PASSED_BY_VALUE};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::limits::{Health, LimitUsage};
use crate::llm::{HttpClientFactory, LlmClient};
use crate::mcp::{McpClientHandler, McpServerManager};
use crate::memory::{MemoryManager, RemovedEntry};
use crate::registry::{BackendRegistry, BuildContext, Registry};
use crate::support::panic_message;
use crate::tasks::{BackgroundFailure, TaskExecutor};
use crate::vectors::VectorStore;

/// Time allowed for closing beyond the deadline of a shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime core: conversation memory, task execution, HTTP and vectors under one configuration.
///
/// Cloning returns another handle to the same runtime. Two runtimes share nothing.
///
/// Building one touches no network and no disk, and starts no thread. When the last handle is dropped, background
/// tasks are aborted, and threads and connections end within a second; [`shutdown`] drains them first.
///
/// ```
/// use arshai::{Arshai, Config, memory::MemoryInput};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let runtime = Arshai::builder(Config::default()).build()?;
/// let input = MemoryInput::working_memory("conversation-1").with_data("likes short answers");
/// runtime.memory().store(input.clone()).await?;
/// assert_eq!(runtime.memory().retrieve(&input).await?[0].as_str(), "likes short answers");
/// # Ok(()) }
/// ```
///
/// [`shutdown`]: Self::shutdown
#[derive(Clone)]
pub struct Arshai(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    registry: Arc<Registry>,
    memory: Arc<dyn MemoryManager>,
    tasks: Arc<dyn TaskExecutor>,
    http: Option<Arc<dyn HttpTransport>>,
    vectors: Option<Arc<dyn VectorStore>>,
    mcp: Option<Arc<dyn McpServerManager>>,
    client_factory: HttpClientFactory,
    components: Components,
}

impl Arshai {
    /// A builder with this configuration.
    pub fn builder(config: Config) -> ArshaiBuilder {
        ArshaiBuilder {
            context: BuildContext::new(Config::default()),
            config,
            memory: None,
            tasks: None,
            http: None,
            vectors: None,
            mcp: None,
        }
    }

    /// Builds a runtime from the environment: [`Config::load`] with the built-in backends.
    ///
    /// # Errors
    /// As [`Config::load`] and [`ArshaiBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder(Config::load()?).build()
    }

    /// The [effective](Config::effective) configuration it was built from. Limits changed at run time are in
    /// [`stats`](Self::stats).
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The conversation memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<dyn MemoryManager> {
        &self.0.memory
    }

    /// The task executor.
    #[must_use]
    pub fn tasks(&self) -> &Arc<dyn TaskExecutor> {
        &self.0.tasks
    }

    /// The HTTP transport.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn http(&self) -> Result<&Arc<dyn HttpTransport>> {
        let backends = &self.0.registry.http;
        self.0.http.as_ref().ok_or_else(|| backends.unknown_backend_error(&self.0.config.http.backend))
    }

    /// The vector store.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn vectors(&self) -> Result<&Arc<dyn VectorStore>> {
        let backends = &self.0.registry.vectors;
        self.0.vectors.as_ref().ok_or_else(|| backends.unknown_backend_error(&self.0.config.vectors.backend))
    }

    /// The MCP servers.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn mcp(&self) -> Result<&Arc<dyn McpServerManager>> {
        let backends = &self.0.registry.mcp;
        self.0.mcp.as_ref().ok_or_else(|| backends.unknown_backend_error(&self.0.config.mcp.backend))
    }

    /// The factory of model clients, over this runtime's transport and with its keys, retries and timeouts.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when no HTTP transport was compiled in.
    pub fn client_factory(&self) -> Result<&HttpClientFactory> {
        self.http()?;
        Ok(&self.0.client_factory)
    }

    /// A client for OpenAI or any OpenAI-compatible server.
    ///
    /// # Errors
    /// As [`HttpClientFactory::openai`] and [`client_factory`](Self::client_factory).
    pub fn openai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.client_factory()?.openai(model)
    }

    /// A client for the configured Azure OpenAI deployment.
    ///
    /// # Errors
    /// As [`HttpClientFactory::azure_openai`] and [`client_factory`](Self::client_factory).
    pub fn azure_openai(&self) -> Result<Arc<dyn LlmClient>> {
        self.client_factory()?.azure_openai()
    }

    /// A client for OpenRouter.
    ///
    /// # Errors
    /// As [`HttpClientFactory::openrouter`] and [`client_factory`](Self::client_factory).
    pub fn openrouter(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.client_factory()?.openrouter(model)
    }

    /// A client for Gemini.
    ///
    /// # Errors
    /// As [`HttpClientFactory::genai`] and [`client_factory`](Self::client_factory).
    pub fn genai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.client_factory()?.genai(model)
    }

    /// A chat agent over `llm` that uses this runtime's executor and conversation memory.
    #[must_use]
    pub fn chat_agent(&self, llm: Arc<dyn LlmClient>, system_prompt: impl Into<String>) -> ChatAgent {
        ChatAgent::new(llm, Arc::clone(&self.0.tasks), system_prompt).with_memory(Arc::clone(&self.0.memory))
    }

    /// A snapshot of every component's limits and counters. Needs no async runtime.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        let components = self.0.components.all();
        RuntimeStats {
            components: components.iter().map(|component| ComponentStats::of(&**component)).collect(),
        }
    }

    /// Checks every component concurrently. One that has not answered by `deadline` counts as unhealthy. Dropping the
    /// future cancels the checks.
    pub async fn health(&self, deadline: Deadline) -> RuntimeHealth {
        let components = self.0.components.all();
        let checks = components.iter().map(|component| async move {
            let health = contained(component.health(deadline));
            let health = match deadline.run("runtime", "health check", health).await.and_then(|health| health)
            {
                Ok(health) => health,
                Err(error) => Health::unhealthy(error.to_string()),
            };
            (component.name().into_owned(), health)
        });
        RuntimeHealth { components: join_all(checks).await.into_iter().collect() }
    }

    /// Changes limits at run time, atomically: if one is rejected, none is changed.
    ///
    /// A limit of several components, such as `pool.max_connections`, changes in all of them. Lowering takes effect
    /// immediately for new work. Entries above a new limit are evicted in order before it returns; running tasks and
    /// connections above one run to their end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a limit of zero that would stop all work, [`ErrorKind::Unsupported`] where no
    /// component has the limit, or one is unbounded, perhaps because of a rollback flag.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        let components = self.0.components.all();
        let changes = limits.changes(&components)?;
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = change.apply() {
                // The limits were valid before, so setting them again cannot fail.
                changes[..done].iter().for_each(Change::revert);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops accepting work, waits for running work until `deadline`, aborts the rest and reports.
    ///
    /// Components close from the inside out, by [`ShutdownPhase`](crate::ShutdownPhase): tasks drain while memory, HTTP
    /// and connections still work. It returns by the deadline plus at most a second for closing. Dropping the future
    /// leaves the runtime closed to new tasks; what runs ends when the last handle is dropped.
    pub async fn shutdown(&self, deadline: Deadline) -> ShutdownReport {
        let mut remaining = self.0.components.all();
        remaining.sort_by_key(|component| component.shutdown_phase());
        let mut report = ShutdownReport::default();
        for phase in remaining.chunk_by(|one, other| one.shutdown_phase() == other.shutdown_phase()) {
            // Later phases have nothing to wait for once what used them has ended.
            let closing = Deadline::after(deadline.remaining() + CLOSE_TIMEOUT);
            let closed = phase.iter().map(|component| async move {
                let closed = contained(component.close(deadline));
                let closed = closing.run("runtime", "closing", closed).await.and_then(|closed| closed);
                let report = closed.unwrap_or_else(|error| CloseReport::new(0, 0, vec![error.to_string()]));
                (component.name().into_owned(), report)
            });
            report.components.extend(join_all(closed).await);
        }
        report
    }
}

/// Runs a component's own code: a panic in it is an error of that component alone.
async fn contained<T>(work: impl Future<Output = T>) -> Result<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| Error::new(ErrorKind::Panic, "runtime", panic_message(panic)))
}

impl fmt::Debug for Arshai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arshai").field("components", &self.0.components).finish_non_exhaustive()
    }
}

/// Builds an [`Arshai`]. Backends are chosen by name from the configuration, or passed by value.
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
    /// Chooses backends from this registry; start from [`Registry::builtin`] to add to the built-in ones.
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

    /// Answers what MCP servers ask of the application: input of the user, an answer of a language model, folders.
    pub fn mcp_handler(mut self, handler: Arc<dyn McpClientHandler>) -> Self {
        self.context.mcp_handler = Some(handler);
        self
    }

    /// Builds the runtime. Connects and starts nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for invalid values, also those that code wrote into fields;
    /// [`ErrorKind::UnknownBackend`] for a name that is not registered, listing the registered ones; errors from the
    /// backends' factories.
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
        context.register(Arc::clone(&memory) as Arc<dyn Component>);
        context.register(Arc::clone(&tasks) as Arc<dyn Component>);
        if let Some(http) = &http {
            context.register(Arc::clone(http) as Arc<dyn Component>);
        }
        if let Some(vectors) = &vectors {
            context.register(Arc::clone(vectors) as Arc<dyn Component>);
        }
        if let Some(mcp) = &mcp {
            context.register(Arc::clone(mcp) as Arc<dyn Component>);
        }
        let components = context.components();
        let mut client_factory = HttpClientFactory::from_context(context);
        if let Some(http) = &http {
            client_factory = client_factory.with_transport(Arc::clone(http));
        }
        Ok(Arshai(Arc::new(Inner {
            config,
            registry,
            memory,
            tasks,
            http,
            vectors,
            mcp,
            client_factory,
            components,
        })))
    }

    /// Adds a component of the application: it appears in statistics and health, follows limits and is closed with
    /// the runtime.
    pub fn component(self, component: Arc<dyn Component>) -> Self {
        self.context.register(component);
        self
    }
}

impl fmt::Debug for ArshaiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArshaiBuilder").field("context", &self.context).finish_non_exhaustive()
    }
}

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

/// Limits to change at run time; those not set stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(Vec<(Cow<'static, str>, u64)>);

impl Limits {
    /// Changes nothing yet.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Maximum number of entries in conversation memory.
    #[must_use]
    pub fn max_entries(self, max: u64) -> Self {
        self.set("memory.max_entries", max)
    }

    /// Maximum MiB in conversation memory.
    #[must_use]
    pub fn max_memory_mb(self, max: u64) -> Self {
        self.set("memory.max_memory_mb", max.saturating_mul(1 << 20))
    }

    /// Maximum number of concurrent background tasks; zero rejects them all.
    #[must_use]
    pub fn max_background_tasks(self, max: usize) -> Self {
        self.set("tasks.max_background_tasks", max as u64)
    }

    /// Maximum number of connections of each pool.
    #[must_use]
    pub fn max_connections(self, max: usize) -> Self {
        self.set("pool.max_connections", max as u64)
    }

    /// The limit with this configuration key, in the unit in which [`Arshai::stats`] reports it (memory in bytes).
    #[must_use]
    pub fn set(mut self, key: impl Into<Cow<'static, str>>, max: u64) -> Self {
        self.0.push((key.into(), max));
        self
    }

    /// Which component changes which limit, checked before anything changes.
    fn changes<'a>(&'a self, components: &'a [Arc<dyn Component>]) -> Result<Vec<Change<'a>>> {
        let mut changes = Vec::new();
        for (key, max) in &self.0 {
            if *max == 0 && key != "tasks.max_background_tasks" {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "runtime",
                    format!("{key} must be at least 1"),
                ));
            }
            let before = changes.len();
            for component in components {
                let Some(usage) = component.limits().into_iter().find(|usage| usage.key == key) else {
                    continue;
                };
                let Some(previous) = usage.limit else {
                    return Err(unsupported_limit_error(component.name().into_owned(), key));
                };
                changes.push(Change { component, key, max: *max, previous });
            }
            if changes.len() == before {
                return Err(unsupported_limit_error("runtime", key));
            }
        }
        // Stores last: what a lowered limit evicts does not come back when a later change is rejected.
        changes.sort_by_key(|change| change.component.shutdown_phase() == ShutdownPhase::Stores);
        Ok(changes)
    }
}

struct Change<'a> {
    component: &'a Arc<dyn Component>,
    key: &'a str,
    max: u64,
    previous: u64,
}

impl Change<'_> {
    fn apply(&self) -> Result<()> {
        self.component.set_limit(self.key, self.max)
    }

    fn revert(&self) {
        let _ = self.component.set_limit(self.key, self.previous);
    }
}

/// A snapshot of every limit and counter of a runtime. Displays as a table of limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// The components, in order of registration.
    pub components: Vec<ComponentStats>,
}

/// A snapshot of one component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ComponentStats {
    /// Its [name](Component::name).
    pub name: String,
    /// Its [limits](Component::limits).
    pub limits: Vec<LimitUsage>,
    /// Its [counters](Component::counters).
    pub counters: Value,
}

impl ComponentStats {
    fn of(component: &dyn Component) -> Self {
        Self {
            name: component.name().into_owned(),
            limits: component.limits(),
            counters: component.counters(),
        }
    }

    /// The limit with this configuration key.
    #[must_use]
    pub fn limit(&self, key: &str) -> Option<&LimitUsage> {
        self.limits.iter().find(|usage| usage.key == key)
    }
}

impl RuntimeStats {
    /// The first component of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ComponentStats> {
        self.components.iter().find(|component| component.name == name)
    }

    /// Every limit with the name of its component.
    pub fn limits(&self) -> impl Iterator<Item = (&str, &LimitUsage)> {
        self.components.iter().flat_map(|component| {
            let name = component.name.as_str();
            component.limits.iter().map(move |usage| (name, usage))
        })
    }
}

impl fmt::Display for RuntimeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<28} {:>12} {:>12} {:>12}", "component", "limit", "used", "peak", "max")?;
        for (name, usage) in self.limits() {
            let max = usage.limit.map_or_else(|| "none".into(), |limit| limit.to_string());
            let ratio =
                usage.peak_ratio().map_or_else(String::new, |ratio| format!("{:.1} %", ratio * 100.0));
            let LimitUsage { key, unit, used, peak, .. } = usage;
            writeln!(f, "{name:<12} {key:<28} {used:>12} {peak:>12} {max:>12}  {ratio:<8} {unit}")?;
        }
        Ok(())
    }
}

/// Whether each component of a runtime can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuntimeHealth {
    /// The health of each component, by name.
    pub components: BTreeMap<String, Health>,
}

impl RuntimeHealth {
    /// The health of one component.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Health> {
        self.components.get(name)
    }

    /// Whether every component can do its work, perhaps reduced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.components.values().all(Health::is_usable)
    }
}

/// The work that a shutdown completed, aborted and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The report of each component, in the order in which they were closed.
    pub components: Vec<(String, CloseReport)>,
}

impl ShutdownReport {
    /// The report of the first component of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CloseReport> {
        self.components.iter().find(|(other, _)| other == name).map(|(_, report)| report)
    }

    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.components.iter().all(|(_, report)| report.is_clean())
    }
}
