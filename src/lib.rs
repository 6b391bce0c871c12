//! A runtime core for services built on language models.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod agent;
pub mod blocking;
mod bounds;
mod clock;
pub mod config;
#[cfg(feature = "contract")]
pub mod contract;
mod deadline;
mod error;
pub mod http;
pub mod llm;
pub mod memory;
pub mod registry;
mod runtime;
mod slots;
pub mod tasks;
pub mod vectors;

// Backends live beside `src/`, use nothing but its public items, and are compiled into this crate so that
// users need one dependency; the path attribute is what lets them stand outside `src/`.
#[path = "../backends/mod.rs"]
pub mod backends;

pub use bounds::{Bound, Health};
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::Config;
pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Result};
pub use registry::{BuildContext, Registry};
pub use runtime::{Arshai, ArshaiBuilder, Limits, RuntimeHealth, RuntimeStats, ShutdownReport};
pub use slots::{BorrowedSlot, Slot, Slots};
