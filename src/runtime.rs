//! The runtime: owns the configuration and one backend of each seam.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::agent::ChatAgent;
use crate::bounds::{Bound, Health};
use crate::clock::Clock;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{HttpStats, HttpTransport};
use crate::llm::{HttpClientFactory, LlmClient, LlmStats};
use crate::memory::{Evicted, MemoryLimits, MemoryManager, MemoryStats};
use crate::pool::{ConnectionPool, PoolStatus};
use crate::registry::{Backends, BuildContext, Registry};
use crate::tasks::{BackgroundFailure, TaskExecutor, TaskShutdownReport, TaskStats};
use crate::vectors::{VectorStats, VectorStore};

/// How long the parts of a runtime that have nothing to wait for may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime core: conversation memory, task execution, HTTP and vectors under one configuration.
///
/// Cloning gives another handle to the same runtime. Two runtimes share nothing, whatever their settings.
///
/// Building one touches no network and no disk, and starts no thread. When the last handle is dropped its
/// background tasks are aborted and its threads and connections end within a second; [`shutdown`] is the
/// polite way.
///
/// ```
/// use arshai::{Arshai, Config, memory::MemoryInput};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let runtime = Arshai::builder(Config::default()).build()?;
/// let input = MemoryInput::working("conversation-1").with_data("likes short answers");
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
    registry: Registry,
    memory: Arc<dyn MemoryManager>,
    tasks: Arc<dyn TaskExecutor>,
    http: Option<Arc<dyn HttpTransport>>,
    vectors: Option<Arc<dyn VectorStore>>,
    clients: HttpClientFactory,
    /// The connection pools that backends opened.
    pools: Vec<Arc<dyn ConnectionPool>>,
}

impl Arshai {
    /// Starts from a configuration.
    pub fn builder(config: Config) -> ArshaiBuilder {
        ArshaiBuilder {
            context: BuildContext::new(config),
            registry: Registry::builtin(),
            memory: None,
            tasks: None,
            http: None,
            vectors: None,
        }
    }

    /// A runtime as the environment configures it: [`Config::load`] and nothing else.
    ///
    /// # Errors
    /// As [`Config::load`] and [`ArshaiBuilder::build`].
    pub fn from_env() -> Result<Self> {
        Self::builder(Config::load()?).build()
    }

    /// The configuration it was built from. Limits changed since are in [`stats`](Self::stats).
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Conversation memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<dyn MemoryManager> {
        &self.0.memory
    }

    /// Task execution.
    #[must_use]
    pub fn tasks(&self) -> &Arc<dyn TaskExecutor> {
        &self.0.tasks
    }

    /// HTTP.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn http(&self) -> Result<&Arc<dyn HttpTransport>> {
        let backends = &self.0.registry.http;
        self.0.http.as_ref().ok_or_else(|| backends.unknown(&self.0.config.http.backend))
    }

    /// Vector storage.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn vectors(&self) -> Result<&Arc<dyn VectorStore>> {
        let backends = &self.0.registry.vectors;
        self.0.vectors.as_ref().ok_or_else(|| backends.unknown(&self.0.config.vectors.backend))
    }

    /// Clients of models, over this runtime's HTTP and with its keys, retries and timeouts.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when there is no HTTP.
    pub fn clients(&self) -> Result<&HttpClientFactory> {
        self.http()?;
        Ok(&self.0.clients)
    }

    /// A client of OpenAI, or of whatever speaks its protocol.
    ///
    /// # Errors
    /// As [`HttpClientFactory::openai`] and [`clients`](Self::clients).
    pub fn openai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.clients()?.openai(model)
    }

    /// A client of the configured deployment of Azure OpenAI.
    ///
    /// # Errors
    /// As [`HttpClientFactory::azure_openai`] and [`clients`](Self::clients).
    pub fn azure_openai(&self) -> Result<Arc<dyn LlmClient>> {
        self.clients()?.azure_openai()
    }

    /// A client of OpenRouter.
    ///
    /// # Errors
    /// As [`HttpClientFactory::openrouter`] and [`clients`](Self::clients).
    pub fn openrouter(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.clients()?.openrouter(model)
    }

    /// A client of Gemini.
    ///
    /// # Errors
    /// As [`HttpClientFactory::genai`] and [`clients`](Self::clients).
    pub fn genai(&self, model: impl Into<String>) -> Result<Arc<dyn LlmClient>> {
        self.clients()?.genai(model)
    }

    /// An agent that chats through `llm` and runs tools and remembers conversations in this runtime.
    #[must_use]
    pub fn chat_agent(&self, llm: Arc<dyn LlmClient>, system_prompt: impl Into<String>) -> ChatAgent {
        ChatAgent::new(llm, Arc::clone(&self.0.tasks), system_prompt).with_memory(Arc::clone(&self.0.memory))
    }

    /// Every bound, how close it is, and what each part has done, as of now.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        RuntimeStats {
            memory: self.0.memory.stats(),
            tasks: self.0.tasks.stats(),
            http: self.0.http.as_ref().map(|http| http.stats()),
            vectors: self.0.vectors.as_ref().map(|vectors| vectors.stats()),
            pools: self.0.pools.iter().map(|pool| pool.status()).collect(),
            llm: self.0.clients.stats(),
        }
    }

    /// Asks every part whether it can do its work. One that has not answered by `deadline` counts as
    /// unhealthy. Dropping the future stops asking.
    pub async fn health(&self, deadline: Deadline) -> RuntimeHealth {
        let inner = &self.0;
        let (memory, tasks, http, vectors) = tokio::join!(
            answer(deadline, "memory", inner.memory.health()),
            answer(deadline, "tasks", inner.tasks.health()),
            async {
                match &inner.http {
                    Some(http) => Some(answer(deadline, "http", http.health()).await),
                    None => None,
                }
            },
            async {
                match &inner.vectors {
                    Some(vectors) => Some(answer(deadline, "vectors", vectors.health()).await),
                    None => None,
                }
            },
        );
        RuntimeHealth { memory, tasks, http, vectors }
    }

    /// Changes limits while running: all of those given, or none where one is refused.
    ///
    /// Lowering takes effect at once for new work. Entries above a new limit are evicted in order before it
    /// returns; running tasks and connections above one run to their end.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a limit of zero that would stop all work, [`ErrorKind::Unsupported`]
    /// where a backend or a rollback flag has taken the bound away.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        limits.check()?;
        let memory = limits.memory();
        if memory != MemoryLimits::default() && !self.0.memory.capabilities().bounded {
            return Err(unbounded("memory"));
        }
        if limits.max_background_tasks.is_some() && !self.0.tasks.capabilities().bounded {
            return Err(unbounded("tasks"));
        }
        if limits.max_connections.is_some() && self.0.pools.iter().any(|pool| !pool.capabilities().bounded) {
            return Err(unbounded("a connection pool"));
        }
        // HTTP first: it alone can still refuse, and then nothing has changed.
        if let Some(max) = limits.max_connections {
            self.http()?.set_max_connections(max)?;
            self.0.pools.iter().try_for_each(|pool| pool.set_max_connections(max))?;
        }
        if let Some(max) = limits.max_background_tasks {
            self.0.tasks.set_max_background_tasks(max)?;
        }
        if memory != MemoryLimits::default() {
            self.0.memory.set_limits(memory)?;
        }
        Ok(())
    }

    /// Stops taking work, waits for what runs until `deadline`, aborts the rest and reports.
    ///
    /// It returns by the deadline and at most a second more for closing. Conversation memory in process stays
    /// readable; connection pools close last, when no task uses them any more.
    /// Dropping the future leaves the runtime closed to new work and what runs running until the last
    /// handle is dropped.
    pub async fn shutdown(&self, deadline: Deadline) -> ShutdownReport {
        let inner = &self.0;
        let (tasks, http_requests_cut, vectors_error) = tokio::join!(
            inner.tasks.shutdown(deadline),
            async {
                match &inner.http {
                    Some(http) => http.shutdown(deadline).await,
                    None => 0,
                }
            },
            async {
                let vectors = inner.vectors.as_ref()?;
                let closing = Deadline::after(deadline.remaining() + CLOSE_TIMEOUT);
                let closed = closing.bound("vectors", "disconnect", vectors.disconnect()).await;
                closed.and_then(|result| result).err().map(|error| error.to_string())
            },
        );
        let closing = Deadline::after(deadline.remaining() + CLOSE_TIMEOUT);
        let pools = inner.pools.iter().map(|pool| pool.close(closing));
        let connections_out = futures_util::future::join_all(pools).await.into_iter().sum();
        ShutdownReport { tasks, http_requests_cut, vectors_error, connections_out }
    }
}

async fn answer(deadline: Deadline, part: &'static str, health: impl Future<Output = Health>) -> Health {
    match deadline.bound(part, "its health check", health).await {
        Ok(health) => health,
        Err(error) => Health::Unhealthy { reason: error.to_string() },
    }
}

fn unbounded(part: &'static str) -> Error {
    let message = format!(
        "{part} has no such limit: its backend is unbounded, perhaps because a rollback flag \
         (ARSHAI_DISABLE_OPTIMIZATIONS, ARSHAI_USE_LEGACY_MEMORY) is set"
    );
    Error::new(ErrorKind::Unsupported, "runtime", message)
}

impl fmt::Debug for Arshai {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arshai")
            .field("memory", &self.0.memory)
            .field("tasks", &self.0.tasks)
            .field("http", &self.0.http)
            .field("vectors", &self.0.vectors)
            .finish_non_exhaustive()
    }
}

/// Builds an [`Arshai`]: by name from the configuration, or by value in code.
#[must_use]
pub struct ArshaiBuilder {
    context: BuildContext,
    registry: Registry,
    memory: Option<Arc<dyn MemoryManager>>,
    tasks: Option<Arc<dyn TaskExecutor>>,
    http: Option<Arc<dyn HttpTransport>>,
    vectors: Option<Arc<dyn VectorStore>>,
}

impl ArshaiBuilder {
    /// Chooses among these backends in place of the built-in ones; start from [`Registry::builtin`] to add to
    /// them.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Uses this memory, whatever the configuration names. Rollback flags do not touch it.
    pub fn memory(mut self, memory: Arc<dyn MemoryManager>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Uses this executor, whatever the configuration names. Rollback flags do not touch it.
    pub fn tasks(mut self, tasks: Arc<dyn TaskExecutor>) -> Self {
        self.tasks = Some(tasks);
        self
    }

    /// Uses this transport, whatever the configuration names. Rollback flags do not touch it.
    pub fn http(mut self, http: Arc<dyn HttpTransport>) -> Self {
        self.http = Some(http);
        self
    }

    /// Uses this vector store, whatever the configuration names.
    pub fn vectors(mut self, vectors: Arc<dyn VectorStore>) -> Self {
        self.vectors = Some(vectors);
        self
    }

    /// Uses this clock for whatever expires.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.context.clock = clock;
        self
    }

    /// Tells `listener` about every entry that leaves the memory store.
    pub fn eviction_listener(mut self, listener: impl Fn(Evicted) + Send + Sync + 'static) -> Self {
        self.context.eviction_listener = Some(Arc::new(listener));
        self
    }

    /// Tells `listener` about every background task that fails.
    pub fn background_failure_listener(
        mut self,
        listener: impl Fn(BackgroundFailure) + Send + Sync + 'static,
    ) -> Self {
        self.context.background_failure_listener = Some(Arc::new(listener));
        self
    }

    /// Builds the runtime. Nothing is connected and nothing is started.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] for a name that is not registered, with what there is; whatever a
    /// backend refuses of its settings.
    pub fn build(self) -> Result<Arshai> {
        let Self { mut context, registry, memory, tasks, http, vectors } = self;
        let config = Arc::clone(&context.config);
        context = context.with_pools(registry.pool.clone());
        let memory = match memory {
            Some(memory) => memory,
            None => registry.memory.build(memory_backend(&config), &context)?,
        };
        let tasks = match tasks {
            Some(tasks) => tasks,
            None => registry.tasks.build(task_backend(&config), &context)?,
        };
        let defaults = Config::default();
        let http = match http {
            Some(http) => Some(http),
            None => optional(&registry.http, config.http_backend(), &defaults.http.backend, &context)?,
        };
        let vectors = match vectors {
            Some(vectors) => Some(vectors),
            None => {
                optional(&registry.vectors, &config.vectors.backend, &defaults.vectors.backend, &context)?
            }
        };
        let clients = HttpClientFactory::new(Arc::clone(&config)).with_registry(registry.clone());
        let clients = match &http {
            Some(http) => clients.with_transport(Arc::clone(http)),
            None => clients,
        };
        let pools = context.watched_pools();
        Ok(Arshai(Arc::new(Inner { config, registry, memory, tasks, http, vectors, pools, clients })))
    }
}

impl fmt::Debug for ArshaiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArshaiBuilder").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// A rollback flag swaps the in-process store for its twin; memory that lives elsewhere stays where it is.
fn memory_backend(config: &Config) -> &str {
    match config.memory.backend.as_str() {
        "in_memory" if config.rollback.legacy_memory() => "legacy",
        "redis" | "tiered" if config.rollback.legacy_connections() => "redis_legacy",
        "tiered" if config.rollback.legacy_memory() => "redis",
        name => name,
    }
}

fn task_backend(config: &Config) -> &str {
    match config.tasks.backend.as_str() {
        "bounded" if config.rollback.legacy_tasks() => "legacy",
        name => name,
    }
}

/// A default backend whose cargo feature is off is an error only when it is used; a name somebody chose is an
/// error at once.
fn optional<T: ?Sized>(
    backends: &Backends<T>,
    name: &str,
    default: &str,
    context: &BuildContext,
) -> Result<Option<Arc<T>>> {
    if name == default && !backends.contains(name) {
        return Ok(None);
    }
    backends.build(name, context).map(Some)
}

/// Limits that can change while running; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most entries in conversation memory.
    pub max_entries: Option<u64>,
    /// The most MiB in conversation memory.
    pub max_memory_mb: Option<u64>,
    /// The most background tasks at once; zero refuses them all.
    pub max_background_tasks: Option<usize>,
    /// The most connections of each pool.
    pub max_connections: Option<usize>,
}

impl Limits {
    /// Leaves every limit as it is.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Sets the most entries in conversation memory.
    #[must_use]
    pub fn max_entries(mut self, max: u64) -> Self {
        self.max_entries = Some(max);
        self
    }

    /// Sets the most MiB in conversation memory.
    #[must_use]
    pub fn max_memory_mb(mut self, max: u64) -> Self {
        self.max_memory_mb = Some(max);
        self
    }

    /// Sets the most background tasks at once.
    #[must_use]
    pub fn max_background_tasks(mut self, max: usize) -> Self {
        self.max_background_tasks = Some(max);
        self
    }

    /// Sets the most connections of each pool.
    #[must_use]
    pub fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = Some(max);
        self
    }

    fn memory(&self) -> MemoryLimits {
        MemoryLimits::new(self.max_entries, self.max_memory_mb.map(|mb| mb.saturating_mul(1 << 20)))
    }

    fn check(&self) -> Result<()> {
        let zero = [
            ("max_entries", self.max_entries == Some(0)),
            ("max_memory_mb", self.max_memory_mb == Some(0)),
            ("max_connections", self.max_connections == Some(0)),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            None => Ok(()),
            Some((name, _)) => Err(Error::new(
                ErrorKind::InvalidInput,
                "runtime",
                format!("{name} = 0 would stop all work; the least is 1"),
            )),
        }
    }
}

/// A snapshot of every bound and counter of a runtime.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// Conversation memory.
    pub memory: MemoryStats,
    /// Task execution.
    pub tasks: TaskStats,
    /// HTTP, where it was compiled in.
    pub http: Option<HttpStats>,
    /// Vector storage, where it was compiled in.
    pub vectors: Option<VectorStats>,
    /// The connection pools that backends opened.
    pub pools: Vec<PoolStatus>,
    /// Requests to models, for each model and key.
    pub llm: Vec<LlmStats>,
}

impl RuntimeStats {
    /// Every bound of every part.
    pub fn bounds(&self) -> impl Iterator<Item = &Bound> {
        let http = self.http.iter().flat_map(|http| &http.bounds);
        let vectors = self.vectors.iter().flat_map(|vectors| &vectors.bounds);
        let pools = self.pools.iter().flat_map(|pool| &pool.bounds);
        let llm = self.llm.iter().flat_map(|llm| &llm.bounds);
        let parts = self.memory.bounds.iter().chain(&self.tasks.bounds).chain(http).chain(vectors);
        parts.chain(pools).chain(llm)
    }
}

/// Shows every bound as a table: used, peak, limit.
impl fmt::Display for RuntimeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<30} {:>12} {:>12} {:>12}  peak", "bound", "used", "peak", "limit")?;
        for bound in self.bounds() {
            let limit = bound.limit.map_or_else(|| "none".into(), |limit| limit.to_string());
            let share =
                bound.peak_ratio().map_or_else(String::new, |share| format!("{:.1} %", share * 100.0));
            let (name, unit) = (bound.name, bound.unit);
            writeln!(f, "{name:<30} {:>12} {:>12} {limit:>12}  {share:<8} {unit}", bound.used, bound.peak)?;
        }
        Ok(())
    }
}

/// Whether each part of a runtime can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuntimeHealth {
    /// Conversation memory.
    pub memory: Health,
    /// Task execution.
    pub tasks: Health,
    /// HTTP, where it was compiled in.
    pub http: Option<Health>,
    /// Vector storage, where it was compiled in.
    pub vectors: Option<Health>,
}

impl RuntimeHealth {
    /// Whether every part can do its work, perhaps reduced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let optional = [&self.http, &self.vectors];
        self.memory.is_usable()
            && self.tasks.is_usable()
            && optional.into_iter().flatten().all(Health::is_usable)
    }
}

/// What a shutdown waited for, cut and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Background tasks and blocking functions.
    pub tasks: TaskShutdownReport,
    /// Requests whose connections were closed at the deadline.
    pub http_requests_cut: usize,
    /// Why the vector store could not be closed cleanly, if so.
    pub vectors_error: Option<String>,
    /// Connections of pools that were still in use at the end.
    pub connections_out: usize,
}

impl ShutdownReport {
    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tasks.aborted == 0
            && self.tasks.lost.is_empty()
            && self.http_requests_cut == 0
            && self.vectors_error.is_none()
            && self.connections_out == 0
    }
}
