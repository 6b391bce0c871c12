//! The in-process store as it was before it was bounded: what the rollback flag `use_legacy_memory` brings
//! back.

use crate::{CloseReport, Component, Deadline, ShutdownPhase};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::Clock;
use crate::memory::{
    EvictionListener, MemoryCapabilities, MemoryInput, MemoryManager, MemoryRecord, MemoryStats, MemoryType,
    RemovalCause, RemovalCounts, RemovedEntry, WorkingMemory,
};
use crate::{BuildContext, Error, ErrorKind, Health, LimitUsage, Result};

/// The name that `memory.backend` chooses this backend by.
pub const NAME: &str = "legacy";

/// Conversation memory in this process, unbounded, as Python arshai keeps it: one map behind one lock. Every
/// `store` and `retrieve` sweeps all of it for expired entries, so operations take time in proportion to the
/// number of conversations. Nothing runs in the background.
///
/// It keeps the contract of [`MemoryManager`] but for the bounds, as its capabilities say. An entry lives
/// for the time to live, counted from `store`.
pub struct LegacyMemoryManager {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
    inner: Mutex<Inner>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    bytes: u64,
    peak_entries: u64,
    peak_bytes: u64,
    removals: RemovalCounts,
}

struct Entry {
    conversation_id: Arc<str>,
    memory_type: MemoryType,
    memory: WorkingMemory,
    metadata: Map<String, Value>,
    expires: Duration,
    created_at: SystemTime,
    last_update: SystemTime,
}

impl Entry {
    fn evicted(&self, reason: RemovalCause) -> RemovedEntry {
        RemovedEntry::new(Arc::clone(&self.conversation_id), self.memory_type, self.memory.clone(), reason)
    }
}

fn text_bytes(memory: &WorkingMemory) -> u64 {
    memory.as_str().len() as u64
}

impl Inner {
    fn grow(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        self.peak_entries = self.peak_entries.max(self.entries.len() as u64);
    }

    /// Removes everything that has expired: a look at every entry.
    fn sweep(&mut self, now: Duration, gone: &mut Vec<RemovedEntry>) {
        let Self { entries, bytes, removals, .. } = self;
        entries.retain(|_, entry| {
            if entry.expires > now {
                return true;
            }
            *bytes -= text_bytes(&entry.memory);
            removals.expired += 1;
            gone.push(entry.evicted(RemovalCause::Expired));
            false
        });
    }
}

impl LegacyMemoryManager {
    /// A store whose entries live for `ttl` by `clock`.
    #[must_use]
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { ttl, clock, listener: None, inner: Mutex::default(), hits: 0.into(), misses: 0.into() }
    }

    /// Calls `listener` for every entry that leaves the store.
    #[must_use]
    pub fn with_eviction_listener(mut self, listener: EvictionListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The store that a configuration describes; of it, only the time to live matters.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let mut store = Self::new(context.config.memory.ttl, Arc::clone(&context.clock));
        store.listener = context.eviction_listener.clone();
        store
    }

    /// Everything kept of a conversation's memory: text, metadata, times.
    #[must_use]
    pub fn record(&self, memory_type: MemoryType, conversation_id: &str) -> Option<MemoryRecord> {
        let key = MemoryInput::new(conversation_id).with_memory_type(memory_type).key();
        let inner = self.inner.lock();
        let entry = inner.entries.get(&key).filter(|entry| entry.expires > self.clock.now())?;
        let Entry { memory, metadata, created_at, last_update, .. } = entry;
        Some(MemoryRecord::new(memory.clone(), metadata.clone(), *created_at, *last_update))
    }

    /// Runs `work` under the lock, then tells the listener what left.
    fn locked<T>(&self, work: impl FnOnce(&mut Inner, &mut Vec<RemovedEntry>) -> T) -> T {
        let mut gone = Vec::new();
        let result = work(&mut self.inner.lock(), &mut gone);
        for evicted in gone {
            let Some(listener) = &self.listener else { continue };
            if catch_unwind(AssertUnwindSafe(|| listener(evicted))).is_err() {
                tracing::error!("the eviction listener panicked; the store is unharmed");
            }
        }
        result
    }
}

impl fmt::Debug for LegacyMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyMemoryManager").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Component for LegacyMemoryManager {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("memory")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let inner = self.inner.lock();
        vec![
            LimitUsage::new(
                "memory.max_entries",
                "entries",
                inner.entries.len() as u64,
                inner.peak_entries,
                None,
            ),
            LimitUsage::new("memory.max_memory_mb", "bytes", inner.bytes, inner.peak_bytes, None),
        ]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for LegacyMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.check_id()?;
        let memory = input.last_data("store")?.clone();
        let (now, wall) = (self.clock.now(), self.clock.system_time());
        let key = input.key();
        let entry = Entry {
            conversation_id: input.conversation_id.into(),
            memory_type: input.memory_type,
            metadata: input.metadata.unwrap_or_default(),
            expires: now.saturating_add(self.ttl),
            created_at: wall,
            last_update: wall,
            memory,
        };
        self.locked(|inner, gone| {
            inner.sweep(now, gone);
            let bytes = text_bytes(&entry.memory);
            if let Some(old) = inner.entries.insert(key.clone(), entry) {
                inner.bytes -= text_bytes(&old.memory);
                inner.removals.replaced += 1;
                gone.push(old.evicted(RemovalCause::Replaced));
            }
            inner.grow(bytes);
        });
        Ok(key)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.check_id()?;
        let now = self.clock.now();
        let found = self.locked(|inner, gone| {
            inner.sweep(now, gone);
            inner.entries.get(&input.key()).map(|entry| entry.memory.clone())
        });
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
        Ok(found.into_iter().collect())
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.check_id()?;
        let memory = input.last_data("update")?.clone();
        let (now, wall) = (self.clock.now(), self.clock.system_time());
        let updated = self.locked(|inner, gone| {
            let Some(entry) = inner.entries.get_mut(&input.key()).filter(|entry| entry.expires > now) else {
                return false;
            };
            gone.push(entry.evicted(RemovalCause::Replaced));
            let (old, new) = (text_bytes(&entry.memory), text_bytes(&memory));
            (entry.memory, entry.last_update) = (memory, wall);
            inner.removals.replaced += 1;
            inner.bytes -= old;
            inner.grow(new);
            true
        });
        if !updated {
            tracing::warn!(memory_type = %input.memory_type, "No existing data found to update; nothing changed");
        }
        Ok(())
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.check_id()?;
        let now = self.clock.now();
        self.locked(|inner, gone| {
            let Some(old) = inner.entries.remove(&input.key()) else { return };
            inner.bytes -= text_bytes(&old.memory);
            let live = old.expires > now;
            let reason = if live { RemovalCause::Deleted } else { RemovalCause::Expired };
            let count = if live { &mut inner.removals.deleted } else { &mut inner.removals.expired };
            *count += 1;
            gone.push(old.evicted(reason));
        });
        Ok(())
    }

    /// Bytes are those of the texts alone.
    fn stats(&self) -> MemoryStats {
        let inner = self.inner.lock();
        let entries = inner.entries.len() as u64;
        let mut stats = MemoryStats::default();
        stats.entries = entries;
        stats.bytes = inner.bytes;
        stats.hits = self.hits.load(Relaxed);
        stats.misses = self.misses.load(Relaxed);
        stats.removals = inner.removals;
        stats
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().injected_clock(true).eviction_listener(true).counts_entries(true)
    }
}
