//! The contract suites, run over every backend, its legacy implementation, and through `Arc<dyn Trait>`.

#[cfg(all(feature = "ureq", feature = "hyper"))]
mod http;
mod memory;
mod pool;
mod tasks;
#[cfg(feature = "embedded")]
mod vectors;
