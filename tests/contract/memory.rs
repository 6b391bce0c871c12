//! Every memory backend keeps the contract.

use std::sync::Arc;

use arshai::backends::memory::{InMemoryManager, LegacyMemoryManager};
use arshai::contract::doubles::CountingMemory;
use arshai::contract::memory::{self, Setup};
use arshai::memory::MemoryManager;

async fn in_memory(setup: Setup) -> Arc<dyn MemoryManager> {
    let builder = InMemoryManager::builder()
        .ttl(setup.ttl)
        .max_entries(setup.max_entries)
        .max_bytes(setup.max_bytes)
        .clock(setup.clock)
        .eviction_listener(setup.eviction_listener);
    Arc::new(builder.build().expect("the limits are valid"))
}

async fn legacy(setup: Setup) -> Arc<dyn MemoryManager> {
    let memory = LegacyMemoryManager::new(setup.ttl, setup.clock);
    Arc::new(memory.with_eviction_listener(setup.eviction_listener))
}

/// A decorator keeps the contract of what it decorates.
async fn counted(setup: Setup) -> Arc<dyn MemoryManager> {
    Arc::new(CountingMemory::new(in_memory(setup).await))
}

#[tokio::test]
async fn the_in_process_store_keeps_the_contract() {
    memory::suite(in_memory).await;
    memory::expiry(in_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_in_process_store_keeps_the_contract_on_many_threads_behind_a_decorator() {
    memory::suite(counted).await;
    memory::expiry(counted).await;
}

#[tokio::test]
async fn the_legacy_store_keeps_the_contract() {
    memory::suite(legacy).await;
    memory::expiry(legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_legacy_store_keeps_the_contract_on_many_threads() {
    memory::suite(legacy).await;
    memory::expiry(legacy).await;
}
