//! The backends that come with arshai, by seam.
//!
//! They use only public items of the crate, so each could be lifted out into a crate of its own.

pub mod memory;
pub mod tasks;

use crate::Registry;

/// Adds every backend that was compiled in.
pub fn register_builtins(registry: &mut Registry) {
    memory::register(registry);
    tasks::register(registry);
}
