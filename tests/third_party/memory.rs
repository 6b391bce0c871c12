//! A custom memory backend: a sorted map behind one lock, without limits.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arshai::contract::memory::{Setup, expiry, suite};
use arshai::memory::{
    CasOutcome, EvictionListener, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, MemoryType,
    RemovalCause, RemovedEntry, WorkingMemory,
};
use arshai::{
    Arshai, Clock, CloseReport, Component, Config, Deadline, Error, ErrorKind, Health, LimitUsage, Registry,
    Result, ShutdownPhase,
};
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
    closed: bool,
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
    /// Runs `work` under the lock without the entry if it expired, then calls the listener outside the lock.
    fn with<T>(
        &self,
        input: &MemoryInput,
        work: impl FnOnce(&mut Entries, &mut Vec<RemovedEntry>) -> T,
    ) -> Result<T> {
        input.validate()?;
        let mut removed = Vec::new();
        let mut entries = self.entries.lock().expect("no operation panics");
        if entries.closed {
            return Err(Error::new(ErrorKind::Closed, "memory.map", "closed"));
        }
        let stored = entries.live.get(&key(input)).map(|(_, stored)| *stored);
        if stored.is_some_and(|stored| self.clock.now() - stored >= self.ttl) {
            entries.remove(input, RemovalCause::Expired, &mut removed);
        }
        let result = work(&mut entries, &mut removed);
        drop(entries);
        for entry in removed {
            let Some(listener) = &self.listener else { continue };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| listener(entry))) {
                std::mem::forget(payload);
            }
        }
        Ok(result)
    }
}

impl Entries {
    fn remove(&mut self, input: &MemoryInput, reason: RemovalCause, removed: &mut Vec<RemovedEntry>) {
        let Some((memory, _)) = self.live.remove(&key(input)) else { return };
        self.stats.removals.add(reason);
        let id = input.conversation_id.as_str().into();
        removed.push(RemovedEntry::new(id, input.memory_type, memory, reason));
    }

    fn update(&mut self, input: &MemoryInput, memory: WorkingMemory, removed: &mut Vec<RemovedEntry>) {
        let Some(&(_, stored)) = self.live.get(&key(input)) else { return };
        self.remove(input, RemovalCause::Replaced, removed);
        self.live.insert(key(input), (memory, stored));
    }
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
        self.entries.lock().expect("no operation panics").closed = true;
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for MapMemory {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.validate()?;
        let memory = input.last_data("store")?.clone();
        let now = self.clock.now();
        self.with(&input, |entries, removed| {
            entries.remove(&input, RemovalCause::Replaced, removed);
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
        self.with(&input, |entries, removed| entries.update(&input, memory, removed))
    }

    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        input.validate()?;
        let memory = input.last_data("update")?.clone();
        let now = self.clock.now();
        self.with(&input, |entries, removed| {
            match (entries.live.get(&key(&input)).map(|(memory, _)| memory), expected) {
                (None, None) => drop(entries.live.insert(key(&input), (memory, now))),
                (None, Some(_)) => return CasOutcome::Missing,
                (Some(current), Some(expected)) if current == expected => {
                    entries.update(&input, memory, removed);
                }
                _ => return CasOutcome::Conflict,
            }
            CasOutcome::Updated
        })
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.with(input, |entries, removed| entries.remove(input, RemovalCause::Deleted, removed))
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> MemoryStats {
        let entries = self.entries.lock().expect("no operation panics");
        let mut stats = entries.stats.clone();
        stats.entries = entries.live.len() as u64;
        stats.bytes = entries.live.values().map(|(memory, _)| memory.as_str().len() as u64).sum();
        stats
    }

    fn capabilities(&self) -> MemoryCapabilities {
        let mut capabilities = MemoryCapabilities::default();
        capabilities.eviction_listener = true;
        capabilities.counts_entries = true;
        capabilities
    }
}

async fn map_memory(setup: Setup) -> Arc<dyn MemoryManager> {
    Arc::new(MapMemory {
        entries: Mutex::default(),
        ttl: setup.ttl,
        clock: setup.clock,
        listener: Some(setup.eviction_listener),
    })
}

#[tokio::test]
async fn a_custom_memory_keeps_the_contract() {
    suite(map_memory).await;
    expiry(map_memory).await;
}

#[tokio::test]
async fn a_custom_memory_is_selected_by_name() {
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
    // Another runtime's registry is unaffected.
    assert!(!Registry::builtin().memory.contains("map"));
}
