//! Conversation memory in this process as it was before it had bounds.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::memory::{
    Evicted, EvictionListener, EvictionReason, MemoryCapabilities, MemoryInput, MemoryLimits, MemoryManager,
    MemoryStats, MemoryType, WorkingMemory,
};
use crate::{Bound, BuildContext, Clock, Error, ErrorKind, Health, Result};

/// The in-process store behind `ARSHAI_USE_LEGACY_MEMORY`: an unbounded map, swept for expired entries on each
/// store and retrieve, without background cleanup.
///
/// It keeps the whole contract of [`MemoryManager`] except the bounds; each operation costs a scan of all entries.
pub struct LegacyMemoryManager {
    entries: Mutex<HashMap<(MemoryType, String), Entry>>,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
    counters: Counters,
}

struct Entry {
    memory: WorkingMemory,
    created_at: Duration,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    expired: AtomicU64,
    replaced: AtomicU64,
    deleted: AtomicU64,
    peak: AtomicU64,
}

impl LegacyMemoryManager {
    /// Its name in configuration.
    pub const NAME: &'static str = "legacy";

    /// A store as a runtime's configuration asks for it.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        Self {
            entries: Mutex::default(),
            ttl: context.config.memory.ttl,
            clock: Arc::clone(&context.clock),
            listener: context.eviction_listener.clone(),
            counters: Counters::default(),
        }
    }

    fn sweep(&self, entries: &mut HashMap<(MemoryType, String), Entry>, gone: &mut Vec<Evicted>) {
        let now = self.clock.now();
        let expired = entries.extract_if(|_, entry| now.saturating_sub(entry.created_at) >= self.ttl);
        gone.extend(expired.map(|(key, entry)| evicted(key, entry.memory, EvictionReason::Expired)));
    }

    fn settle(&self, gone: Vec<Evicted>) {
        for evicted in gone {
            let counter = match evicted.reason {
                EvictionReason::Expired => &self.counters.expired,
                EvictionReason::Deleted => &self.counters.deleted,
                _ => &self.counters.replaced,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let Some(listener) = &self.listener else { continue };
            if catch_unwind(AssertUnwindSafe(|| listener(evicted))).is_err() {
                tracing::error!(component = "memory.legacy", "the eviction listener panicked");
            }
        }
    }
}

fn key(input: &MemoryInput) -> (MemoryType, String) {
    (input.memory_type, input.conversation_id.clone())
}

fn evicted(
    (memory_type, id): (MemoryType, String),
    memory: WorkingMemory,
    reason: EvictionReason,
) -> Evicted {
    Evicted::new(id.into(), memory_type, memory, reason)
}

/// An estimate: texts, ids and the map's slots.
fn bytes(entries: &HashMap<(MemoryType, String), Entry>) -> u64 {
    let texts: usize = entries.iter().map(|((_, id), entry)| id.len() + entry.memory.as_str().len()).sum();
    (texts + entries.capacity() * size_of::<((MemoryType, String), Entry)>()) as u64
}

#[async_trait]
impl MemoryManager for LegacyMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.check_id()?;
        let memory = input.last_data("store")?.clone();
        let entry = Entry { memory, created_at: self.clock.now() };
        let mut gone = Vec::new();
        {
            let mut entries = self.entries.lock();
            self.sweep(&mut entries, &mut gone);
            let replaced = entries.insert(key(&input), entry);
            gone.extend(replaced.map(|entry| evicted(key(&input), entry.memory, EvictionReason::Replaced)));
            self.counters.peak.fetch_max(entries.len() as u64, Ordering::Relaxed);
        }
        self.settle(gone);
        Ok(input.key())
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.check_id()?;
        let mut gone = Vec::new();
        let found = {
            let mut entries = self.entries.lock();
            self.sweep(&mut entries, &mut gone);
            entries.get(&key(input)).map(|entry| entry.memory.clone())
        };
        self.settle(gone);
        let counter = if found.is_some() { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(found.into_iter().collect())
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.check_id()?;
        let memory = input.last_data("update")?.clone();
        let mut gone = Vec::new();
        {
            let mut entries = self.entries.lock();
            self.sweep(&mut entries, &mut gone);
            match entries.get_mut(&key(&input)) {
                Some(entry) => {
                    let earlier = std::mem::replace(&mut entry.memory, memory);
                    gone.push(evicted(key(&input), earlier, EvictionReason::Replaced));
                }
                None => tracing::warn!(memory_type = %input.memory_type, "no existing data found to update"),
            }
        }
        self.settle(gone);
        Ok(())
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.check_id()?;
        let mut gone = Vec::new();
        {
            let mut entries = self.entries.lock();
            self.sweep(&mut entries, &mut gone);
            let removed = entries.remove(&key(input));
            gone.extend(removed.map(|entry| evicted(key(input), entry.memory, EvictionReason::Deleted)));
        }
        self.settle(gone);
        Ok(())
    }

    fn stats(&self) -> MemoryStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let entries = self.entries.lock();
        let mut stats = MemoryStats::default();
        stats.entries = entries.len() as u64;
        stats.bytes = bytes(&entries);
        stats.hits = count(&self.counters.hits);
        stats.misses = count(&self.counters.misses);
        stats.evictions.expired = count(&self.counters.expired);
        stats.evictions.replaced = count(&self.counters.replaced);
        stats.evictions.deleted = count(&self.counters.deleted);
        let peak = count(&self.counters.peak);
        stats.bounds = vec![
            Bound::new("memory.max_entries", "entries", stats.entries, peak, None),
            Bound::new("memory.max_memory_mb", "bytes", stats.bytes, stats.bytes, None),
        ];
        stats
    }

    async fn health(&self) -> Health {
        Health::Healthy
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().injected_clock(true)
    }

    fn set_limits(&self, _limits: MemoryLimits) -> Result<()> {
        let message = "the legacy store has no bounds; unset ARSHAI_USE_LEGACY_MEMORY and \
                       ARSHAI_DISABLE_OPTIMIZATIONS to have them";
        Err(Error::new(ErrorKind::Unsupported, "memory.legacy", message))
    }
}

impl fmt::Debug for LegacyMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyMemoryManager").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}
