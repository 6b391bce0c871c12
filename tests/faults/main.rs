//! Faults injected for real.

mod memory;
mod tasks;
#[cfg(feature = "embedded")]
mod vectors;
