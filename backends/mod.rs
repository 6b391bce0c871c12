//! The backends that come with arshai, by seam.
//!
//! They use only public items of the crate, so each could be lifted out into a crate of its own.

#[cfg(feature = "ureq")]
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
pub fn register_builtins(registry: &mut Registry) {
    memory::register(registry);
    #[cfg(feature = "mcp")]
    mcp::register(registry);
    #[cfg(not(feature = "mcp"))]
    registry.mcp.register_unavailable("rmcp", "mcp");
    pool::register(registry);
    tasks::register(registry);
    #[cfg(feature = "ureq")]
    http::register(registry);
    #[cfg(not(feature = "ureq"))]
    registry.http.register_unavailable("ureq", "ureq");
    vectors::register(registry);
}
