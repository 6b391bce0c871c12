//! A memory of one's own: a sorted map behind one lock, unbounded.

use arshai::{CloseReport, Component, Deadline, LimitUsage, ShutdownPhase};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use arshai::contract::memory::{Setup, suite};
use arshai::memory::{
    EvictionListener, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, MemoryType, RemovalCause,
    RemovedEntry, WorkingMemory,
};
use arshai::{Arshai, Clock, Config, Error, ErrorKind, Health, Registry, Result};
use async_trait::async_trait;

struct MapMemory {
    entries: Mutex<Entries>,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
}

#[derive(Default)]
struct Entries {
    live: BTreeMap<(MemoryType, String), (WorkingMemory, Duration)>,
    stats: MemoryStats,
}

impl std::fmt::Debug for MapMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MapMemory")
    }
}

fn key(input: &MemoryInput) -> (MemoryType, String) {
    (input.memory_type, input.conversation_id.clone())
}

impl MapMemory {
    /// Runs `work` on what has not expired, then tells the listener what left, outside the lock.
    fn with<T>(
        &self,
        input: &MemoryInput,
        work: impl FnOnce(&mut Entries, &mut Vec<RemovedEntry>) -> T,
    ) -> Result<T> {
        input.validate()?;
        let mut gone = Vec::new();
        let mut entries = self.entries.lock().expect("no operation panics");
        let expired = |entries: &Entries| {
            let stored = entries.live.get(&key(input))?.1;
            (self.clock.now() - stored >= self.ttl).then_some(())
        };
        if expired(&entries).is_some() {
            take(&mut entries, input, RemovalCause::Expired, &mut gone);
        }
        let result = work(&mut entries, &mut gone);
        drop(entries);
        if let Some(listener) = &self.listener {
            for evicted in gone {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| listener(evicted)));
            }
        }
        Ok(result)
    }
}

fn take(entries: &mut Entries, input: &MemoryInput, reason: RemovalCause, gone: &mut Vec<RemovedEntry>) {
    let Some((memory, _)) = entries.live.remove(&key(input)) else { return };
    left(entries, input, memory, reason, gone);
}

fn left(
    entries: &mut Entries,
    input: &MemoryInput,
    memory: WorkingMemory,
    reason: RemovalCause,
    gone: &mut Vec<RemovedEntry>,
) {
    let counts = &mut entries.stats.removals;
    match reason {
        RemovalCause::Expired => counts.expired += 1,
        RemovalCause::Deleted => counts.deleted += 1,
        _ => counts.replaced += 1,
    }
    gone.push(RemovedEntry::new(input.conversation_id.as_str().into(), input.memory_type, memory, reason));
}

#[async_trait]
impl Component for MapMemory {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("memory")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for MapMemory {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.validate()?;
        let memory = input.last_data("store")?.clone();
        let now = self.clock.now();
        self.with(&input, |entries, gone| {
            take(entries, &input, RemovalCause::Replaced, gone);
            entries.live.insert(key(&input), (memory, now));
        })?;
        Ok(input.key())
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.with(input, |entries, _| {
            let found = entries.live.get(&key(input)).map(|(memory, _)| memory.clone());
            let counter = if found.is_some() { &mut entries.stats.hits } else { &mut entries.stats.misses };
            *counter += 1;
            found.into_iter().collect()
        })
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.validate()?;
        let memory = input.last_data("update")?.clone();
        self.with(&input, |entries, gone| {
            let Some((held, _)) = entries.live.get_mut(&key(&input)) else { return };
            let earlier = std::mem::replace(held, memory);
            left(entries, &input, earlier, RemovalCause::Replaced, gone);
        })
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.with(input, |entries, gone| take(entries, input, RemovalCause::Deleted, gone))
    }

    fn stats(&self) -> MemoryStats {
        let entries = self.entries.lock().expect("no operation panics");
        let mut stats = entries.stats.clone();
        stats.entries = entries.live.len() as u64;
        stats.bytes = entries.live.values().map(|(memory, _)| memory.as_str().len() as u64).sum();
        stats
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().injected_clock(true).eviction_listener(true).counts_entries(true)
    }
}

#[tokio::test]
async fn a_memory_written_outside_keeps_the_contract() {
    suite(|setup: Setup| {
        Arc::new(MapMemory {
            entries: Mutex::default(),
            ttl: setup.ttl,
            clock: setup.clock,
            listener: Some(setup.eviction_listener),
        })
    })
    .await;
}

#[tokio::test]
async fn a_memory_written_outside_is_chosen_by_name() {
    let mut registry = Registry::builtin();
    registry.memory.register("map", |context| {
        Ok(Arc::new(MapMemory {
            entries: Mutex::default(),
            ttl: context.config.memory.ttl,
            clock: Arc::clone(&context.clock),
            listener: context.eviction_listener.clone(),
        }))
    });
    let config = Config::from_vars([("ARSHAI_MEMORY_BACKEND".into(), "map".into())]).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    assert_eq!(format!("{:?}", runtime.memory()), "MapMemory");
    // The built-in registry of another runtime knows nothing of it.
    assert!(!Registry::builtin().memory.contains("map"));
}
