//! Conversation memory in process and elsewhere.

pub mod in_memory;
pub mod legacy;

use std::sync::Arc;

use crate::Registry;
pub use in_memory::InMemoryManager;
pub use legacy::LegacyMemoryManager;

/// Adds the memory backends.
pub(super) fn register(registry: &mut Registry) {
    registry
        .memory
        .register(in_memory::NAME, |context| Ok(Arc::new(InMemoryManager::from_context(context)?)));
    registry
        .memory
        .register(legacy::NAME, |context| Ok(Arc::new(LegacyMemoryManager::from_context(context))));
}
