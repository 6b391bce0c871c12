//! The in-process conversation store: bounded in entries and bytes, and quick.
//!
//! [`InMemoryManager`] keeps conversations in shards, each a linked hash map behind a read-write lock.
//! Reading takes the shared lock only: it marks the entry as used, and eviction gives marked entries a second
//! chance. Expiry follows a list kept in the order of expiry. Neither ever scans.

mod budget;
mod builder;
mod cleanup;
mod expiry;
mod key;
mod shard;
mod size;
mod store;

use crate::{CloseReport, Component, Deadline, LimitUsage, ShutdownPhase};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

pub use builder::InMemoryManagerBuilder;
use cleanup::Cleanup;
use store::{Store, Write, WriteKind};

use crate::memory::{
    CasOutcome, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, MemoryType, WorkingMemory,
    validate_conversation_id,
};
use crate::{BuildContext, Error, ErrorKind, Health, Result};

const COMPONENT: &str = "memory.in_memory";

/// Conversation memory in this process (Python: `InMemoryManager`), bounded in entries and in bytes.
///
/// # Contract
/// That of [`MemoryManager`], and:
/// - **Bounds.** `max_entries` and `max_bytes` are never exceeded, not even for a moment. Bytes are those of
///   everything the store allocates, as the allocator rounds it; a text counts whole even when the
///   application holds a clone of it. Making room evicts entries that have expired, then the least recently
///   used ones; an entry that was read since it was last considered gets a second chance. A store that can
///   hold fewer than 256 entries follows that order exactly, a larger one within each of its shards.
/// - **Time.** An entry lives for the time to live, counted from `store` on the [`Clock`](crate::Clock);
///   `update` leaves that as it is. Expired entries are cleared away by later writes and by a background task
///   that starts with the first asynchronous `store` inside a tokio runtime (which needs its time driver, as
///   `tokio::main` enables) and ends with the store.
/// - **Speed.** No operation scans. One that needs room for a single large entry evicts as many small ones as
///   that takes.
///
/// The methods of the same names as the trait's are synchronous: no executor is needed to use the store. None
/// waits for more than a short lock. Share it as `Arc<InMemoryManager>`.
///
/// ```
/// use arshai::backends::memory::InMemoryManager;
/// use arshai::memory::{MemoryInput, MemoryType};
///
/// # fn main() -> arshai::Result<()> {
/// let memory = InMemoryManager::builder().max_entries(1_000).build()?;
/// memory.store(MemoryInput::working_memory("conversation-1").with_data("The user is called Ada."))?;
/// let held = memory.get(MemoryType::WorkingMemory, "conversation-1").expect("just stored");
/// assert_eq!(held.as_str(), "The user is called Ada.");
/// # Ok(())
/// # }
/// ```
pub struct InMemoryManager {
    store: Arc<Store>,
    cleanup: Cleanup,
    closed: AtomicBool,
}

impl InMemoryManager {
    /// The value of `memory.backend` that selects this backend.
    pub const NAME: &'static str = "in_memory";

    /// A store with the defaults of [`InMemoryManager::builder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }

    /// Starts from the defaults: 12 hours to live (as in Python arshai), 10 000 entries, 500 MiB, cleaned up
    /// every 300 s.
    #[must_use]
    pub fn builder() -> InMemoryManagerBuilder {
        InMemoryManagerBuilder::default()
    }

    /// The store that a configuration describes.
    ///
    /// # Errors
    /// As [`InMemoryManagerBuilder::build`].
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let memory = &context.config.memory;
        let mut builder = Self::builder()
            .ttl(memory.ttl)
            .max_entries(memory.max_entries)
            .max_memory_mb(memory.max_memory_mb)
            .cleanup_interval(context.config.cleanup_interval)
            .clock(Arc::clone(&context.clock));
        if let Some(listener) = &context.eviction_listener {
            builder = builder.eviction_listener(Arc::clone(listener));
        }
        builder.build()
    }

    /// Stores an entry and returns its key. See [`MemoryManager::store`].
    ///
    /// # Errors
    /// As [`MemoryManager::store`]; besides, [`ErrorKind::Capacity`](crate::ErrorKind::Capacity) when the
    /// whole budget is reserved by operations that run at the same time.
    pub fn store(&self, mut input: MemoryInput) -> Result<String> {
        input.validate()?;
        let memory = input.last_data("store")?.clone();
        let metadata = input.metadata.take().filter(|metadata| !metadata.is_empty()).map(Box::new);
        self.check_open()?;
        let _ = self.store.write(Write {
            memory_type: input.memory_type,
            conversation_id: &input.conversation_id,
            memory,
            kind: WriteKind::Store { metadata },
            expected: None,
        })?;
        Ok(input.key())
    }

    /// The entry of a conversation and type. See [`MemoryManager::retrieve`].
    ///
    /// # Errors
    /// As [`MemoryManager::retrieve`].
    pub fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.validate()?;
        self.check_open()?;
        Ok(self.get(input.memory_type, &input.conversation_id).into_iter().collect())
    }

    /// The text of a conversation's memory: the quickest way to read it, for it allocates nothing. An id that
    /// could not be stored is simply not there.
    #[must_use]
    pub fn get(&self, memory_type: MemoryType, conversation_id: &str) -> Option<WorkingMemory> {
        self.store.get(memory_type, conversation_id)
    }

    /// Stores a text without metadata: the quickest way to write it.
    ///
    /// # Errors
    /// As [`InMemoryManager::store`].
    pub fn put(&self, memory_type: MemoryType, conversation_id: &str, memory: WorkingMemory) -> Result<()> {
        validate_conversation_id(conversation_id)?;
        let kind = WriteKind::Store { metadata: None };
        self.store.write(Write { memory_type, conversation_id, memory, kind, expected: None }).map(|_| ())
    }

    /// Replaces the text of an existing entry. See [`MemoryManager::update`].
    ///
    /// # Errors
    /// As [`InMemoryManager::store`].
    pub fn update(&self, input: MemoryInput) -> Result<()> {
        input.validate()?;
        let memory = input.last_data("update")?.clone();
        self.check_open()?;
        let outcome = self.store.write(Write {
            memory_type: input.memory_type,
            conversation_id: &input.conversation_id,
            memory,
            kind: WriteKind::Update,
            expected: None,
        })?;
        if outcome == CasOutcome::Missing {
            super::warn_entry_missing(&input);
        }
        Ok(())
    }

    /// Replaces the text of an entry only if it is `expected`. See [`MemoryManager::compare_and_set`].
    ///
    /// # Errors
    /// As [`InMemoryManager::store`].
    pub fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        input.validate()?;
        self.check_open()?;
        let memory = input.last_data("update")?.clone();
        let kind = match expected {
            Some(_) => WriteKind::Update,
            None => WriteKind::Store { metadata: input.metadata.map(Box::new) },
        };
        self.store.write(Write {
            memory_type: input.memory_type,
            conversation_id: &input.conversation_id,
            memory,
            kind,
            expected: Some(expected.cloned()),
        })
    }

    /// The metadata of an entry, if it exists. Counts as a use.
    #[must_use]
    pub fn metadata(&self, memory_type: MemoryType, conversation_id: &str) -> Option<Map<String, Value>> {
        self.store.metadata(memory_type, conversation_id)
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Closed, COMPONENT, "closed")),
            false => Ok(()),
        }
    }

    /// Removes an entry. See [`MemoryManager::delete`].
    ///
    /// # Errors
    /// As [`MemoryManager::delete`].
    pub fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.validate()?;
        self.check_open()?;
        self.store.delete(input.memory_type, &input.conversation_id);
        Ok(())
    }

    /// Clears expired entries away now, as the background task does. Other operations get their turn in
    /// between.
    pub fn clean_up(&self) {
        self.store.clean_up();
    }

    /// Removes every entry that is there when this begins, as `delete` does; one that is stored meanwhile may
    /// stay. Other operations get their turn in between.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// Counters and bounds, as of now.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.store.stats()
    }
}

impl Default for InMemoryManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryManager").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Component for InMemoryManager {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("memory")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.store.limits()
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.store.set_limit(key, max)
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.closed.store(true, Ordering::Release);
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for InMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        self.cleanup.start(&self.store);
        Self::store(self, input)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        Self::retrieve(self, input)
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        Self::update(self, input)
    }

    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        Self::compare_and_set(self, input, expected)
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        Self::delete(self, input)
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> MemoryStats {
        Self::stats(self)
    }

    fn capabilities(&self) -> MemoryCapabilities {
        let mut capabilities = MemoryCapabilities::default();
        capabilities.bounded = true;
        capabilities.eviction_listener = true;
        capabilities.counts_entries = true;
        capabilities
    }
}
