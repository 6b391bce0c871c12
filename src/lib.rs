//! A runtime core for services built on language models: every store has a byte bound, every pool a size, every wait
//! a deadline, every background task a slot, and each is visible, tunable while running and reversible with one flag.
//!
//! # For applications
//!
//! [`Config::load`] reads the `ARSHAI_*` variables; [`Arshai::builder`] makes a runtime of them. It has one backend of
//! each seam: [`memory`](Arshai::memory), [`tasks`](Arshai::tasks), [`http`](Arshai::http) and
//! [`vectors`](Arshai::vectors). [`agent::ChatAgent`] puts them together with a model
//! ([`llm::HttpClientFactory`] has four providers) and answers messages, whole or as a stream. [`stats`](Arshai::stats) shows every bound,
//! [`set_limits`](Arshai::set_limits) changes them, [`shutdown`](Arshai::shutdown) ends it all by a deadline.
//! `examples/quickstart` is the whole of it in one program.
//!
//! There is no global state: two runtimes with different settings live in one process and never touch. Errors are one
//! type, [`Error`], with a [kind](ErrorKind) to match on. Nothing installs a `tracing` subscriber; spans and events are
//! there for the application's own.
//!
//! # For backend authors
//!
//! Implement a seam's trait ([`memory::MemoryManager`], [`tasks::TaskExecutor`], [`http::HttpTransport`],
//! [`vectors::VectorStore`], [`pool::ConnectionPool`]), whose documentation is its contract; add a factory to a
//! [`Registry`] under a name, and hand the registry to the builder. The cargo feature `contract` has a suite for each
//! contract and test doubles for each seam. [`ResizableSemaphore`], [`blocking::BlockingPool`], [`Deadline`] and [`Clock`] are what
//! the built-in backends stand on, and are there for yours.
//!
//! # Cargo features
//!
//! - `ureq` (default): HTTP over ureq.
//! - `embedded` (default): the in-process vector store.
//! - `mobc`: connection pools over mobc (`pool.backend = "mobc"`), beside our own.
//! - `redis`: a pooled Redis client, and conversation memory in Redis (`memory.backend = "redis"`, or `"tiered"` with
//!   copies in the process).
//! - `redis-tls`: TLS for it (`rediss://`).
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
pub mod memory;
pub mod pool;
pub mod registry;
mod runtime;
pub mod support;
pub mod tasks;
pub mod vectors;

// Backends live beside `src/`, use nothing but its public items, and are compiled into this crate so that
// users need one dependency; the path attribute is what lets them stand outside `src/`.
#[path = "../backends/mod.rs"]
pub mod backends;

pub use clock::{Clock, ManualClock, SystemClock};
pub use component::{CloseReport, Component, ShutdownPhase, unsupported_limit_error};
pub use config::Config;
pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Outcome, Result};
pub use limits::{Health, LimitUsage};
pub use registry::{BuildContext, Registry};
pub use runtime::{
    Arshai, ArshaiBuilder, ComponentStats, Limits, RuntimeHealth, RuntimeStats, ShutdownReport,
};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those of the guide to models.
#[cfg(all(doctest, feature = "ureq"))]
#[doc = include_str!("../docs/models.md")]
struct Models;
