//! The runtime: owns the configuration, one backend of each kind, and every component.

mod builder;
mod limits;
mod reports;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

pub use builder::ArshaiBuilder;
use limits::Change;
pub use limits::Limits;
pub use reports::{ComponentStats, RuntimeHealth, RuntimeStats, ShutdownReport};

use crate::agent::ChatAgent;
use crate::component::CloseReport;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpTransport;
use crate::limits::Health;
use crate::llm::{HttpClientFactory, LlmClient};
use crate::mcp::McpServerManager;
use crate::memory::MemoryManager;
use crate::registry::BuildContext;
use crate::support::opaque_debug;
use crate::support::panic_message;
use crate::tasks::TaskExecutor;
use crate::vectors::VectorStore;

/// Time allowed for closing beyond the deadline of a shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime: conversation memory, task execution, HTTP, vectors and MCP servers under one configuration.
///
/// Cloning returns another handle to the same runtime. Two runtimes share nothing.
///
/// Building a runtime touches neither network nor disk and starts no thread. When the last handle is dropped, background
/// tasks are aborted, and threads and connections end within a second; [`shutdown`] lets them finish first.
///
/// ```
/// use arshai::{Arshai, Config, memory::MemoryInput};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let runtime = Arshai::builder(Config::default()).build()?;
/// let input = MemoryInput::working_memory("conversation-1").with_data("The user prefers short answers.");
/// runtime.memory().store(input.clone()).await?;
/// assert_eq!(runtime.memory().retrieve(&input).await?[0].as_str(), "The user prefers short answers.");
/// # Ok(()) }
/// ```
///
/// [`shutdown`]: Self::shutdown
#[derive(Clone)]
pub struct Arshai(Arc<Inner>);

struct Inner {
    context: BuildContext,
    memory: Arc<dyn MemoryManager>,
    tasks: Arc<dyn TaskExecutor>,
    http: Option<Arc<dyn HttpTransport>>,
    vectors: Option<Arc<dyn VectorStore>>,
    mcp: Option<Arc<dyn McpServerManager>>,
    client_factory: HttpClientFactory,
}

impl Arshai {
    /// A builder with this configuration.
    pub fn builder(config: Config) -> ArshaiBuilder {
        ArshaiBuilder::new(config)
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
        &self.0.context.config
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
        let backends = &self.0.context.registry.http;
        self.0
            .http
            .as_ref()
            .ok_or_else(|| backends.unknown_backend_error(&self.0.context.config.http.backend))
    }

    /// The vector store.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn vectors(&self) -> Result<&Arc<dyn VectorStore>> {
        let backends = &self.0.context.registry.vectors;
        self.0
            .vectors
            .as_ref()
            .ok_or_else(|| backends.unknown_backend_error(&self.0.context.config.vectors.backend))
    }

    /// The MCP servers.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownBackend`] when the configured backend was not compiled in.
    pub fn mcp(&self) -> Result<&Arc<dyn McpServerManager>> {
        let backends = &self.0.context.registry.mcp;
        self.0.mcp.as_ref().ok_or_else(|| backends.unknown_backend_error(&self.0.context.config.mcp.backend))
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

    /// The context that its backends were built from. Use it to build further components and
    /// [register](BuildContext::registrar) them.
    #[must_use]
    pub fn context(&self) -> &BuildContext {
        &self.0.context
    }

    /// A chat agent over `llm` that uses this runtime's executor and conversation memory.
    #[must_use]
    pub fn chat_agent(&self, llm: Arc<dyn LlmClient>, system_prompt: impl Into<String>) -> ChatAgent {
        ChatAgent::new(llm, Arc::clone(&self.0.tasks), system_prompt).with_memory(Arc::clone(&self.0.memory))
    }

    /// A snapshot of every component's limits and counters. Needs no async runtime.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        let components = self.0.context.components().all();
        RuntimeStats {
            components: components.iter().map(|component| ComponentStats::of(&**component)).collect(),
        }
    }

    /// Checks every component concurrently. One that has not answered by `deadline` counts as unhealthy. Dropping the
    /// future cancels the checks.
    pub async fn health(&self, deadline: Deadline) -> RuntimeHealth {
        let components = self.0.context.components().all();
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
    /// A limit of several components, such as `pool.max_connections`, changes in all of them. A lower limit takes effect
    /// immediately for new work. Entries above it are evicted in order before this method returns; running tasks and
    /// connections in use are not interrupted.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a limit of zero that would stop all work, [`ErrorKind::Unsupported`] if no
    /// component has the limit or one of them is unlimited, for example because of a rollback flag.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        let components = self.0.context.components().all();
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
    /// Components close in the order of their [`ShutdownPhase`](crate::ShutdownPhase): running tasks can use memory, HTTP
    /// and connections until they end. It returns by the deadline plus at most a second for closing. Dropping the future
    /// leaves the runtime closed to new tasks; running work ends when the last handle is dropped.
    pub async fn shutdown(&self, deadline: Deadline) -> ShutdownReport {
        let mut remaining = self.0.context.components().all();
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

opaque_debug!(Arshai(self) { components: self.0.context.components() });
