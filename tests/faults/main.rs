//! Faults injected for real.

mod memory;
#[cfg(target_os = "linux")]
mod memory_growth;
mod tasks;
#[cfg(feature = "embedded")]
mod vectors;
