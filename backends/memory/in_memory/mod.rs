//! The in-process conversation store, limited in entries and bytes.
//!
//! A store has up to 16 shards, each behind one lock (`shards.rs`). A shard (`shard.rs`) has an index, a table of entries
//! (`entries.rs`) linked in the orders of use and of expiry, and their texts on fixed-size pages (`pages.rs`), both outside
//! the heap (`maps.rs`). Every use is numbered, so that eviction finds the least recently used entry of all shards
//! (`eviction.rs`). No operation reads entries that it does not return, remove or keep.

mod builder;
mod cleanup;
mod entries;
mod entry;
mod eviction;
mod maps;
mod numbers;
mod pages;
mod shard;
mod shards;
mod store;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::{Map, Value};

pub use builder::InMemoryManagerBuilder;
use cleanup::Cleanup;
use store::{Store, Write};

use crate::memory::{
    CasOutcome, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, MemoryType, WorkingMemory,
    validate_conversation_id,
};
use crate::support::opaque_debug;
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase, support,
};

const COMPONENT: &str = "memory.in_memory";

/// Conversation memory in this process (Python: `InMemoryManager`), limited in entries and in bytes.
///
/// # Contract
/// That of [`MemoryManager`], and:
/// - **Limits.** `max_entries` and the byte limit hold after every operation; while an operation runs, what it writes
///   may exceed them. An entry counts its pages of 512 bytes, their overhead and its share of the tables.
/// - **Memory of the process.** It grows by at most the byte limit, a tenth and 4 MiB, whatever the sizes of texts, and
///   the texts that callers hold: reading makes two copies for a moment. Unused memory returns to the system; where a
///   limit is lowered below an eighth of what is held, a thread returns it, some gigabytes a second. Of a store that held
///   hundreds of MiB and is lowered to less than three, the heap may keep half a MiB more: its index was larger.
/// - **Eviction** removes an expired entry if there is one, else the least recently used one. The order is exact up to
///   concurrent operations; above 3 200 entries, lowering a limit may evict in batches from the oldest hundredth.
/// - **Expiry.** The TTL counts from `store` on the [`Clock`](crate::Clock); `update` does not renew it. Expired entries
///   are removed by later operations, and by a background task that the first asynchronous `store` in a tokio runtime
///   with a timer starts and that ends with the store.
/// - **Cost.** No operation scans. Making room costs as many evictions as it takes. Reading copies the text.
///
/// The methods named like the trait's are synchronous: the store needs no async runtime. None waits longer than for a
/// short lock. Share it as `Arc<InMemoryManager>`.
///
/// ```
/// use arshai::backends::memory::InMemoryManager;
/// use arshai::memory::{MemoryInput, MemoryType};
///
/// # fn main() -> arshai::Result<()> {
/// let memory = InMemoryManager::builder().max_entries(1_000).build()?;
/// memory.store(MemoryInput::working_memory("conversation-1").with_data("The user is called Ada."))?;
/// let found = memory.get(MemoryType::WorkingMemory, "conversation-1").expect("just stored");
/// assert_eq!(found.as_str(), "The user is called Ada.");
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

    /// A builder with the defaults: TTL 12 hours (as in Python arshai), 10 000 entries, 500 MiB, cleanup every 300 s.
    #[must_use]
    pub fn builder() -> InMemoryManagerBuilder {
        InMemoryManagerBuilder::default()
    }

    /// Builds the store from a configuration.
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
    /// As [`MemoryManager::store`]; [`ErrorKind::Capacity`] when the system has no memory left.
    pub fn store(&self, input: MemoryInput) -> Result<String> {
        self.validate(&input)?;
        let text = input.last_data("store")?.as_str();
        let metadata = metadata_json(&input)?;
        let write = Write::Store { metadata: &metadata };
        let outcome = self.store.write(input.memory_type, &input.conversation_id, text, write, None)?;
        debug_assert_eq!(outcome, CasOutcome::Updated);
        Ok(input.key())
    }

    /// Returns the entry of a conversation and type. See [`MemoryManager::retrieve`].
    ///
    /// # Errors
    /// As [`MemoryManager::retrieve`].
    pub fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.validate(input)?;
        Ok(self.get(input.memory_type, &input.conversation_id).into_iter().collect())
    }

    /// Returns the text of an entry, without the checks of [`retrieve`](Self::retrieve). A closed store has none.
    #[must_use]
    pub fn get(&self, memory_type: MemoryType, conversation_id: &str) -> Option<WorkingMemory> {
        self.check_open().ok()?;
        self.store.get(memory_type, conversation_id)
    }

    /// Stores a text without metadata.
    ///
    /// # Errors
    /// As [`InMemoryManager::store`].
    pub fn put(&self, memory_type: MemoryType, conversation_id: &str, memory: WorkingMemory) -> Result<()> {
        validate_conversation_id(conversation_id)?;
        self.check_open()?;
        let write = Write::Store { metadata: &[] };
        self.store.write(memory_type, conversation_id, memory.as_str(), write, None).map(|_| ())
    }

    /// Returns the metadata of an entry, if it exists. Counts as a use. A closed store has none.
    #[must_use]
    pub fn metadata(&self, memory_type: MemoryType, conversation_id: &str) -> Option<Map<String, Value>> {
        self.check_open().ok()?;
        let json = self.store.metadata(memory_type, conversation_id)?;
        Some(serde_json::from_slice(&json).unwrap_or_default())
    }

    /// Replaces the text of an existing entry. See [`MemoryManager::update`].
    ///
    /// # Errors
    /// As [`InMemoryManager::store`].
    pub fn update(&self, input: MemoryInput) -> Result<()> {
        self.validate(&input)?;
        let text = input.last_data("update")?.as_str();
        let outcome =
            self.store.write(input.memory_type, &input.conversation_id, text, Write::Update, None)?;
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
        self.validate(&input)?;
        let text = input.last_data("update")?.as_str();
        let metadata = metadata_json(&input)?;
        let write = match expected {
            Some(_) => Write::Update,
            None => Write::Store { metadata: &metadata },
        };
        let expected = Some(expected.map(WorkingMemory::as_str));
        self.store.write(input.memory_type, &input.conversation_id, text, write, expected)
    }

    /// Removes an entry. See [`MemoryManager::delete`].
    ///
    /// # Errors
    /// As [`MemoryManager::delete`].
    pub fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.validate(input)?;
        self.store.delete(input.memory_type, &input.conversation_id);
        Ok(())
    }

    /// Removes all expired entries now, as the background task does. Other operations can run in between.
    pub fn clean_up(&self) {
        self.store.clean_up();
    }

    /// Removes all entries, as `delete` does; entries stored concurrently may remain.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.store.stats()
    }

    fn validate(&self, input: &MemoryInput) -> Result<()> {
        input.validate()?;
        self.check_open()
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Closed, COMPONENT, "closed")),
            false => Ok(()),
        }
    }
}

/// The metadata as it is stored; empty if there is none.
fn metadata_json(input: &MemoryInput) -> Result<Vec<u8>> {
    match input.metadata.as_ref().filter(|metadata| !metadata.is_empty()) {
        None => Ok(Vec::new()),
        Some(metadata) => serde_json::to_vec(metadata).map_err(|cause| {
            Error::new(ErrorKind::InvalidInput, COMPONENT, "failed to serialize the metadata")
                .with_source(cause)
        }),
    }
}

impl Default for InMemoryManager {
    fn default() -> Self {
        Self::new()
    }
}

opaque_debug!(InMemoryManager(self) { stats: self.stats() });

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
        support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.check_open() {
            Ok(()) => Health::Healthy,
            Err(error) => Health::unhealthy(error.to_string()),
        }
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
        self.check_open()
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
