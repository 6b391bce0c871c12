//! A runtime for LLM services: models, tools, conversation memory, MCP and vector search, with a hard limit on every
//! resource they use.
//!
//! # A chat with a tool
//!
#![cfg_attr(feature = "contract", doc = "```")]
#![cfg_attr(not(feature = "contract"), doc = "```ignore")]
//! use arshai::agent::{AgentEvent, AgentInput};
//! use arshai::tasks::Function;
//! use arshai::{Arshai, Result};
//! # use arshai::{Config, contract::doubles::ScriptedLlm, json, llm::{ChatResponse, ToolCall}};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct City {
//!     name: String,
//! }
//!
//! async fn weather(city: City) -> Result<String> {
//!     Ok(format!("14 °C and rain in {}", city.name))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//! # /*
//!     let runtime = Arshai::from_env()?; // OPENAI_API_KEY and the ARSHAI_* variables
//!     let model = runtime.openai("gpt-4o-mini")?;
//! # */
//! #   let runtime = Arshai::builder(Config::default()).build()?;
//! #   let call = ToolCall::new("1", "weather", json!({"name": "Oslo"}).to_string());
//! #   let answers = [ChatResponse::from_tool_calls(vec![call]), ChatResponse::from_text("Yes: it is raining.")];
//! #   let model = std::sync::Arc::new(ScriptedLlm::new(answers.map(Ok)));
//!     let weather = Function::typed("weather", weather).with_description("The weather in a city");
//!     let agent = runtime.chat_agent(model, "Be brief.").with_functions([weather]);
//!
//!     let mut turn = agent.stream(AgentInput::new("Do I need an umbrella in Oslo?").in_conversation("c-1"));
//!     while let Some(event) = turn.next().await? {
//!         match event {
//!             AgentEvent::ToolStarted { name, .. } => println!("[{name}]"),
//!             AgentEvent::Text(text) => print!("{text}"),
//! #           AgentEvent::Finished(output) => assert_eq!(output.text, "Yes: it is raining."),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # For applications
//!
//! [`Config::load`] reads the `ARSHAI_*` variables, and [`Arshai::builder`] builds a runtime with one backend of each
//! kind: [`memory`](Arshai::memory), [`tasks`](Arshai::tasks), [`http`](Arshai::http), [`vectors`](Arshai::vectors) and
//! [`mcp`](Arshai::mcp). [`Arshai::from_env`] does both.
//!
//! | to | use |
//! |---|---|
//! | call a model | [`Arshai::openai`] and its siblings, an [`llm::LlmClient`] |
//! | answer messages with tools and memory | [`Arshai::chat_agent`], an [`agent::ChatAgent`] |
//! | write a tool | [`tasks::Function`] |
//! | search documents | [`vectors::VectorStore`] and [`vectors::Collection`] |
//! | use the tools of MCP servers | [`mcp::McpServerManager`] |
//! | see every limit and how close it is | [`Arshai::stats`] |
//! | change limits at run time | [`Arshai::set_limits`] |
//! | stop within a deadline | [`Arshai::shutdown`] |
//!
//! There is no global state: two runtimes with different settings can live in one process. All errors are of one type,
//! [`Error`], with a [kind](ErrorKind), an [outcome](Outcome) and the delay that a server asked for. The crate emits
//! `tracing` spans and events and installs no subscriber.
//!
//! # For backend authors
//!
//! Implement a backend trait ([`memory::MemoryManager`], [`tasks::TaskExecutor`], [`http::HttpTransport`],
//! [`vectors::VectorStore`], [`pool::ConnectionPool`]), whose documentation is its contract, and [`Component`], which
//! gives it statistics, health, limits and shutdown. Register it under a name, and select it by that name:
//!
//! ```
//! use std::sync::Arc;
//!
//! use arshai::backends::memory::InMemoryManager;
//! use arshai::{Arshai, Config, Registry};
//!
//! let mut registry = Registry::builtin();
//! registry.memory.register("mine", |context| Ok(Arc::new(InMemoryManager::from_context(context)?)));
//!
//! let mut config = Config::default();
//! config.memory.backend = "mine".into(); // or ARSHAI_MEMORY_BACKEND=mine
//! let runtime = Arshai::builder(config).registry(registry).build()?;
//! # Ok::<_, arshai::Error>(())
//! ```
//!
//! The cargo feature `contract` has a test suite for each contract, and test doubles. [`support`] has the building blocks
//! of the built-in backends. The guide `docs/backends.md` is a complete backend; `tests/third_party` in the repository has
//! one for each trait.
//!
//! # The source
//!
//! `src/` has the traits, the configuration and the runtime, `backends/` every implementation, which uses only public
//! items of `src/`.
//!
//! # Cargo features
//!
//! - `ureq` (default): HTTP over ureq, a thread for each connection in use.
//! - `embedded` (default): the in-process vector store.
//! - `hyper`: HTTP over hyper, a task for each connection (`http.backend = "hyper"`).
//! - `redis`: a Redis client, and conversation memory in Redis (`memory.backend = "redis"`); includes `mobc`.
//! - `redis-tls`: TLS for it (`rediss://`).
//! - `mobc`: connection pools over mobc (`pool.backend = "mobc"`).
//! - `mcp`: MCP servers, over HTTP and as child processes.
//! - `mcp-oauth`: OAuth for them.
//! - `milvus`: vectors in Milvus (`vectors.backend = "milvus"`).
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

/// Implements the crate's async traits; from the crate `async-trait`.
pub use async_trait::async_trait;
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
/// JSON values, for arguments and metadata; from the crate `serde_json`.
pub use serde_json::{Value, json};

/// Compiles the programs of the README and the guides, and runs those that need no server.
#[cfg(all(doctest, feature = "contract", feature = "hyper", feature = "mcp", feature = "redis"))]
mod pages {
    macro_rules! pages {
        ($($name:ident: $file:literal,)+) => {
            $(#[doc = include_str!(concat!("../", $file))] struct $name;)+
        };
    }

    pages! {
        Readme: "README.md",
        Backends: "docs/backends.md",
        Configuration: "docs/configuration.md",
        Filters: "docs/filters.md",
        Http: "docs/http.md",
        Mcp: "docs/mcp.md",
        Memory: "docs/memory.md",
        Models: "docs/models.md",
        Pools: "docs/pools.md",
        Python: "docs/python.md",
        Redis: "docs/redis.md",
        Tools: "docs/tools.md",
        Vectors: "docs/vectors.md",
    }
}
