//! Every memory backend keeps the contract.

use std::sync::Arc;

use arshai::backends::memory::{InMemoryManager, LegacyMemoryManager};
use arshai::contract::doubles::CountingMemory;
use arshai::contract::memory::{self, Setup};
use arshai::memory::MemoryManager;

fn in_memory(setup: Setup) -> Arc<InMemoryManager> {
    let builder = InMemoryManager::builder()
        .ttl(setup.ttl)
        .max_entries(setup.max_entries)
        .max_bytes(setup.max_bytes)
        .clock(setup.clock)
        .eviction_listener(setup.eviction_listener);
    Arc::new(builder.build().expect("the suite asks for valid limits"))
}

fn legacy(setup: Setup) -> Arc<LegacyMemoryManager> {
    let memory = LegacyMemoryManager::new(setup.ttl, setup.clock);
    Arc::new(memory.with_eviction_listener(setup.eviction_listener))
}

fn behind_a_decorator(inner: Arc<dyn MemoryManager>) -> Arc<CountingMemory> {
    Arc::new(CountingMemory::new(inner))
}

#[tokio::test]
async fn the_in_process_store_keeps_the_contract() {
    memory::suite(in_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_in_process_store_keeps_the_contract_on_many_threads_and_as_a_trait_object() {
    memory::suite(|setup| behind_a_decorator(in_memory(setup))).await;
}

#[tokio::test]
async fn the_legacy_store_keeps_the_contract() {
    memory::suite(legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_legacy_store_keeps_the_contract_on_many_threads_and_as_a_trait_object() {
    memory::suite(|setup| behind_a_decorator(legacy(setup))).await;
}
