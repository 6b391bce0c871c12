//! The backends that come with arshai, by seam.
//!
//! They use only public items of the crate, so each could be lifted out into a crate of its own.

#[cfg(any(feature = "ureq", feature = "hyper"))]
pub mod http;
#[cfg(feature = "mcp")]
pub mod mcp;
pub mod memory;
pub mod pool;
#[cfg(feature = "redis")]
pub mod redis;
pub mod tasks;
pub mod vectors;

use crate::Registry;

/// Adds every backend that was compiled in.
pub(crate) fn register_builtins(registry: &mut Registry) {
    memory::register(registry);
    #[cfg(feature = "mcp")]
    mcp::register(registry);
    #[cfg(not(feature = "mcp"))]
    registry.mcp.register_unavailable("rmcp", "mcp");
    pool::register(registry);
    tasks::register(registry);
    #[cfg(any(feature = "ureq", feature = "hyper"))]
    http::register(registry);
    #[cfg(not(feature = "ureq"))]
    registry.http.register_unavailable("ureq", "ureq");
    #[cfg(not(feature = "hyper"))]
    registry.http.register_unavailable("hyper", "hyper");
    vectors::register(registry);
}
