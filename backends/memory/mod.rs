//! Conversation memory in process and elsewhere.

mod in_memory;
mod legacy;
mod notifier;
#[cfg(feature = "redis")]
mod redis;

use std::sync::Arc;

use crate::Registry;
pub use in_memory::{InMemoryManager, InMemoryManagerBuilder};
pub use legacy::LegacyMemoryManager;
#[cfg(feature = "redis")]
pub use redis::RedisMemoryManager;

/// Adds the memory backends.
pub(super) fn register(registry: &mut Registry) {
    let memory = &mut registry.memory;
    memory.register(InMemoryManager::NAME, |context| Ok(Arc::new(InMemoryManager::from_context(context)?)));
    memory.register(LegacyMemoryManager::NAME, |context| {
        Ok(Arc::new(LegacyMemoryManager::from_context(context)))
    });
    #[cfg(feature = "redis")]
    {
        let memory = &mut registry.memory;
        memory.register(RedisMemoryManager::NAME, |context| {
            Ok(Arc::new(RedisMemoryManager::from_context(context)?))
        });
        memory.register(RedisMemoryManager::LEGACY_NAME, |context| {
            Ok(Arc::new(RedisMemoryManager::legacy(context)?))
        });
    }
    #[cfg(not(feature = "redis"))]
    for name in ["redis", "redis_legacy"] {
        registry.memory.register_unavailable(name, "redis");
    }
    registry.memory.register_removed("tiered", "redis");
}

fn warn_entry_missing(input: &crate::memory::MemoryInput) {
    tracing::warn!(memory_type = %input.memory_type, "No existing data found to update");
}
