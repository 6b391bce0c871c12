//! The legacy in-process store, unbounded: the rollback flag `use_legacy_memory` selects it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::notifier::{EvictionNotifier, RemovedEntries};
use crate::memory::{
    CasOutcome, EvictionListener, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, MemoryType,
    RemovalCause, RemovedEntry, WorkingMemory,
};
use crate::support::opaque_debug;
use crate::{
    BuildContext, Clock, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase, support,
};

const COMPONENT: &str = "memory.legacy";

/// Conversation memory in this process, unbounded, as in Python arshai: one map behind one lock. Every `store` and
/// `retrieve` scans the whole map for expired entries, so operations take time proportional to the number of
/// conversations. Nothing runs in the background.
///
/// It keeps the contract of [`MemoryManager`] except for the limits. The TTL counts from `store`.
pub struct LegacyMemoryManager {
    ttl: Duration,
    clock: Arc<dyn Clock>,
    notifier: EvictionNotifier,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    stats: MemoryStats,
    peak_entries: u64,
    peak_bytes: u64,
    closed: bool,
}

struct Entry {
    conversation_id: Arc<str>,
    memory_type: MemoryType,
    memory: WorkingMemory,
    metadata: Map<String, Value>,
    expires: Duration,
}

impl Inner {
    /// Bytes are those of the texts only.
    fn add_bytes(&mut self, memory: &WorkingMemory) {
        self.stats.entries = self.entries.len() as u64;
        self.stats.bytes += memory.as_str().len() as u64;
        self.peak_bytes = self.peak_bytes.max(self.stats.bytes);
        self.peak_entries = self.peak_entries.max(self.stats.entries);
    }

    fn on_removed(&mut self, entry: &Entry, reason: RemovalCause, removed: &mut RemovedEntries) {
        self.stats.entries = self.entries.len() as u64;
        self.stats.bytes -= entry.memory.as_str().len() as u64;
        self.stats.removals.add(reason);
        removed.push_with(|| {
            let id = Arc::clone(&entry.conversation_id);
            RemovedEntry::new(id, entry.memory_type, entry.memory.clone(), reason)
        });
    }

    fn remove_expired(&mut self, now: Duration, removed: &mut RemovedEntries) {
        let expired: Vec<_> = self.entries.extract_if(|_, entry| entry.expires <= now).collect();
        for (_, entry) in &expired {
            self.on_removed(entry, RemovalCause::Expired, removed);
        }
    }

    fn insert(&mut self, key: String, entry: Entry, removed: &mut RemovedEntries) {
        let memory = entry.memory.clone();
        if let Some(old) = self.entries.insert(key, entry) {
            self.on_removed(&old, RemovalCause::Replaced, removed);
        }
        self.add_bytes(&memory);
    }

    /// Replaces the text of an existing entry; the rest stays.
    fn replace_text(&mut self, key: &str, memory: WorkingMemory, removed: &mut RemovedEntries) -> bool {
        let Some(mut entry) = self.entries.remove(key) else { return false };
        self.on_removed(&entry, RemovalCause::Replaced, removed);
        entry.memory = memory.clone();
        self.entries.insert(key.to_owned(), entry);
        self.add_bytes(&memory);
        true
    }
}

impl LegacyMemoryManager {
    /// The value of `memory.backend` that selects this backend.
    pub const NAME: &'static str = "legacy";

    /// A store whose entries expire after `ttl` on `clock`.
    #[must_use]
    pub fn new(ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { ttl, clock, notifier: EvictionNotifier::default(), inner: Mutex::default() }
    }

    /// Calls `listener` for every removed entry.
    #[must_use]
    pub fn with_eviction_listener(mut self, listener: EvictionListener) -> Self {
        self.notifier = EvictionNotifier::new(Some(listener));
        self
    }

    /// Builds the store from a configuration, of which it uses only the TTL.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let mut store = Self::new(context.config.memory.ttl, Arc::clone(&context.clock));
        store.notifier = EvictionNotifier::new(context.eviction_listener.clone());
        store
    }

    /// The metadata of an entry, if it exists.
    #[must_use]
    pub fn metadata(&self, memory_type: MemoryType, conversation_id: &str) -> Option<Map<String, Value>> {
        let key = MemoryInput::new(conversation_id).with_memory_type(memory_type).key();
        let inner = self.inner.lock();
        inner
            .entries
            .get(&key)
            .filter(|entry| entry.expires > self.clock.now())
            .map(|entry| entry.metadata.clone())
    }

    /// Validates the input, removes expired entries and runs `work` under the lock, then calls the listener.
    fn with_lock<T>(
        &self,
        input: &MemoryInput,
        work: impl FnOnce(&mut Inner, &mut RemovedEntries) -> T,
    ) -> Result<T> {
        input.validate()?;
        let mut removed = self.notifier.collect();
        let result = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(Error::new(ErrorKind::Closed, COMPONENT, "closed"));
            }
            inner.remove_expired(self.clock.now(), &mut removed);
            work(&mut inner, &mut removed)
        };
        self.notifier.notify(removed);
        Ok(result)
    }

    fn new_entry(&self, input: &MemoryInput, memory: WorkingMemory) -> Entry {
        Entry {
            conversation_id: input.conversation_id.as_str().into(),
            memory_type: input.memory_type,
            memory,
            metadata: input.metadata.clone().unwrap_or_default(),
            expires: self.clock.now().saturating_add(self.ttl),
        }
    }
}

opaque_debug!(LegacyMemoryManager(self) { stats: self.stats() });

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
        let (entries, bytes) = (inner.stats.entries, inner.stats.bytes);
        vec![
            LimitUsage::new("memory.max_entries", "entries", entries, inner.peak_entries, None),
            LimitUsage::new("memory.max_memory_mb", "bytes", bytes, inner.peak_bytes, None),
        ]
    }

    fn counters(&self) -> Value {
        support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.inner.lock().closed = true;
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for LegacyMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.validate()?;
        let entry = self.new_entry(&input, input.last_data("store")?.clone());
        let key = input.key();
        self.with_lock(&input, |inner, removed| inner.insert(key.clone(), entry, removed))?;
        Ok(key)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.with_lock(input, |inner, _| {
            let found = inner.entries.get(&input.key()).map(|entry| entry.memory.clone());
            let count = if found.is_some() { &mut inner.stats.hits } else { &mut inner.stats.misses };
            *count += 1;
            found.into_iter().collect()
        })
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.validate()?;
        let memory = input.last_data("update")?.clone();
        if !self.with_lock(&input, |inner, removed| inner.replace_text(&input.key(), memory, removed))? {
            super::warn_entry_missing(&input);
        }
        Ok(())
    }

    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        input.validate()?;
        let memory = input.last_data("update")?.clone();
        let entry = self.new_entry(&input, memory.clone());
        self.with_lock(&input, |inner, removed| {
            let key = input.key();
            match (inner.entries.get(&key).map(|entry| &entry.memory), expected) {
                (None, Some(_)) => return CasOutcome::Missing,
                (current, expected) if current != expected => return CasOutcome::Conflict,
                (None, _) => inner.insert(key, entry, removed),
                (Some(_), _) => {
                    inner.replace_text(&key, memory, removed);
                }
            }
            CasOutcome::Updated
        })
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.with_lock(input, |inner, removed| {
            if let Some(old) = inner.entries.remove(&input.key()) {
                inner.on_removed(&old, RemovalCause::Deleted, removed);
            }
        })
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> MemoryStats {
        self.inner.lock().stats.clone()
    }

    fn capabilities(&self) -> MemoryCapabilities {
        let mut capabilities = MemoryCapabilities::default();
        capabilities.eviction_listener = true;
        capabilities.counts_entries = true;
        capabilities
    }
}
