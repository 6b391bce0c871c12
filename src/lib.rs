//! A runtime core for LLM services with a hard limit on every resource: every store has a byte limit, every pool a
//! maximum size, every wait a deadline, every background task a permit; each limit is visible, adjustable at run time
//! and reversible with one flag.
//!
//! # For applications
//!
//! [`Config::load`] reads the `ARSHAI_*` variables; [`Arshai::builder`] builds a runtime with one backend of each kind:
//! [`memory`](Arshai::memory), [`tasks`](Arshai::tasks), [`http`](Arshai::http) and [`vectors`](Arshai::vectors).
//! [`agent::ChatAgent`] combines them with a model from [`llm::HttpClientFactory`] and answers messages, whole or as a
//! stream. [`stats`](Arshai::stats) reports every limit, [`set_limits`](Arshai::set_limits) changes them,
//! [`shutdown`](Arshai::shutdown) drains the runtime within a deadline. `examples/quickstart` shows all of it.
//!
//! ```
//! use arshai::{Arshai, Config, Deadline, Limits, memory::MemoryInput};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
//! let runtime = Arshai::builder(Config::default()).build()?;
//! let input = MemoryInput::working_memory("conversation-1").with_data("prefers short answers");
//! runtime.memory().store(input.clone()).await?;
//! runtime.set_limits(Limits::unchanged().max_entries(5_000))?;
//! println!("{}", runtime.stats());
//! runtime.shutdown(Deadline::after(std::time::Duration::from_secs(5))).await;
//! # Ok(()) }
//! ```
//!
//! There is no global state: two runtimes with different settings can live in one process. Errors are one type,
//! [`Error`], with a [kind](ErrorKind), an [outcome](Outcome) and the server's `Retry-After`. The crate emits `tracing`
//! spans and events and installs no subscriber.
//!
//! # For backend authors
//!
//! Implement a backend trait ([`memory::MemoryManager`], [`tasks::TaskExecutor`], [`http::HttpTransport`],
//! [`vectors::VectorStore`], [`pool::ConnectionPool`]), whose documentation is its contract, and [`Component`], which
//! gives it statistics, health, limits and shutdown. Register it in a [`Registry`] under a name and pass the registry to
//! the builder. The cargo feature `contract` has a test suite for each contract, and test doubles. [`support`] has the
//! building blocks of the built-in backends.
//!
//! # Cargo features
//!
//! - `ureq` (default): HTTP over ureq.
//! - `embedded` (default): the in-process vector store.
//! - `redis`: a pooled Redis client, and conversation memory in Redis (`memory.backend = "redis"`); includes `mobc`.
//! - `redis-tls`: TLS for it (`rediss://`).
//! - `mobc`: connection pools over mobc (`pool.backend = "mobc"`).
//! - `mcp`: MCP servers, over HTTP and as child processes.
//! - `contract`: contract suites and test doubles.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod agent;
mod clock;
mod component;
pub mod config;
#[cfg(feature = "contract")]
pub mod contract;
mod deadline;
mod error;
pub mod http;
mod limits;
pub mod llm;
pub mod mcp;
pub mod memory;
pub mod pool;
pub mod registry;
mod runtime;
pub mod support;
pub mod tasks;
pub mod vectors;

// Backends live beside `src/` and use only its public items; they are compiled into this crate so that users need one
// dependency.
#[path = "../backends/mod.rs"]
pub mod backends;

#[doc(inline)]
pub use backends::tasks::FunctionOrchestrator;
pub use clock::{Clock, ManualClock, SystemClock};
pub use component::{CloseReport, Component, ComponentRegistrar, ShutdownPhase, unsupported_limit_error};
pub use config::Config;
pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Outcome, Result};
pub use limits::{Health, LimitUsage};
pub use registry::{BuildContext, Registry};
pub use runtime::{
    Arshai, ArshaiBuilder, ComponentStats, Limits, RuntimeHealth, RuntimeStats, ShutdownReport,
};

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of the guide to models.
#[cfg(all(doctest, feature = "ureq"))]
#[doc = include_str!("../docs/models.md")]
struct Models;

/// Compiles the examples of the guide to vectors.
#[cfg(doctest)]
#[doc = include_str!("../docs/vectors.md")]
struct Vectors;

/// Compiles the example of the guide to observability.
#[cfg(doctest)]
#[doc = include_str!("../docs/observability.md")]
struct Observability;

/// Compiles the example of the guide to MCP.
#[cfg(all(doctest, feature = "mcp"))]
#[doc = include_str!("../docs/mcp.md")]
struct Mcp;
