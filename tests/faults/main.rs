//! Faults injected for real.

mod memory;
#[cfg(target_os = "linux")]
mod memory_growth;
mod tasks;
#[cfg(feature = "embedded")]
mod vectors;
#[cfg(all(feature = "embedded", target_os = "linux"))]
mod vectors_disk;
#[cfg(all(feature = "embedded", target_os = "linux"))]
mod vectors_worker;
