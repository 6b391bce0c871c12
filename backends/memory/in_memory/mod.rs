//! Conversation memory in this process, bounded in entries and bytes.
//!
//! Entries live in shards, each a linked hash map in the order of last use behind a read-write lock. A read takes
//! the shared lock and marks the entry as used; eviction takes the oldest entry of the whole store and gives used
//! ones a second chance, which keeps hit ratios at least as good as exact LRU's without writing on reads. Each
//! shard also keeps its entries in the order of expiry, so that expiring costs what expires and never a scan.

mod cleanup;
mod cost;
mod shard;
mod store;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use self::cleanup::Cleanup;
use self::store::Store;
use crate::memory::{
    EvictionListener, MemoryCapabilities, MemoryInput, MemoryLimits, MemoryManager, MemoryStats, MemoryType,
    WorkingMemory,
};
use crate::{Bound, BuildContext, Clock, Config, Error, ErrorKind, Health, Result, SystemClock};

/// The in-process memory store (Python: `InMemoryManager`), bounded.
///
/// After every operation it holds at most `max_entries` entries and its budget of bytes, in which everything is
/// counted that an entry takes, the store's own overhead included. The time to live counts from `store`; an expired
/// entry is never returned, whether or not it was cleaned up. The clock is monotonic: changing the machine's time
/// expires nothing.
///
/// The methods of the same names as the trait's are synchronous and need no executor: nothing here waits for
/// anything but a short lock. Within a tokio runtime a background task cleans up every `cleanup_interval`; it ends
/// with the store. Without one, writes clean up a little on their way and eviction does the rest.
///
/// ```
/// use arshai::backends::memory::InMemoryManager;
/// use arshai::memory::MemoryInput;
///
/// let manager = InMemoryManager::builder().max_entries(10_000).max_memory_mb(500).build();
/// let input = MemoryInput::working("conversation-1").with_data("prefers short answers");
/// manager.store(input.clone())?;
/// assert_eq!(manager.retrieve(&input)?[0].as_str(), "prefers short answers");
/// # Ok::<_, arshai::Error>(())
/// ```
pub struct InMemoryManager {
    store: Arc<Store>,
    cleanup: Cleanup,
}

impl InMemoryManager {
    /// Its name in configuration.
    pub const NAME: &'static str = "in_memory";

    /// A store with the defaults: 10 000 entries, 500 MiB, twelve hours.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts from the defaults.
    pub fn builder() -> InMemoryManagerBuilder {
        let config = Config::default();
        InMemoryManagerBuilder {
            ttl: config.memory.ttl,
            max_entries: config.memory.max_entries,
            max_bytes: config.memory.max_memory_mb << 20,
            cleanup_interval: config.cleanup_interval,
            clock: Arc::new(SystemClock::new()),
            listener: None,
        }
    }

    /// A store as a runtime's configuration asks for it.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let memory = &context.config.memory;
        let builder = Self::builder()
            .ttl(memory.ttl)
            .max_entries(memory.max_entries)
            .max_memory_mb(memory.max_memory_mb)
            .cleanup_interval(context.config.cleanup_interval)
            .clock(Arc::clone(&context.clock));
        InMemoryManagerBuilder { listener: context.eviction_listener.clone(), ..builder }.build()
    }

    /// Stores an entry and returns its key; see [`MemoryManager::store`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id or no data, [`ErrorKind::TooLarge`] for an entry
    /// larger than the whole budget; an earlier entry then stays.
    pub fn store(&self, input: MemoryInput) -> Result<String> {
        input.check_id()?;
        let text = Arc::clone(&input.last_data("store")?.working_memory);
        let metadata =
            input.metadata.as_ref().filter(|metadata| !metadata.is_empty()).map(to_json).transpose()?;
        self.store.put(input.memory_type, &input.conversation_id, text, metadata)?;
        self.cleanup.start(&self.store);
        Ok(input.key())
    }

    /// The entry of a conversation and type, if there is one; see [`MemoryManager::retrieve`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id.
    pub fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.check_id()?;
        Ok(self.get(input.memory_type, &input.conversation_id).into_iter().collect())
    }

    /// The entry of a conversation and type, if there is one: [`retrieve`](Self::retrieve) without building an
    /// input or a list. Allocates nothing; the text is shared.
    #[must_use]
    pub fn get(&self, memory_type: MemoryType, conversation_id: &str) -> Option<WorkingMemory> {
        self.store.get(memory_type, conversation_id)
    }

    /// The entry with what was kept beside it: metadata and when it was stored and updated.
    #[must_use]
    pub fn record(&self, memory_type: MemoryType, conversation_id: &str) -> Option<MemoryRecord> {
        self.store.read(memory_type, conversation_id, |_, entry| MemoryRecord {
            memory: WorkingMemory { working_memory: Arc::clone(&entry.text) },
            metadata: entry
                .metadata
                .as_deref()
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_default(),
            created_at: Duration::from_micros(entry.created_at),
            last_update: Duration::from_micros(entry.last_update),
        })
    }

    /// Replaces the text of an existing entry; see [`MemoryManager::update`].
    ///
    /// # Errors
    /// As for [`store`](Self::store).
    pub fn update(&self, input: MemoryInput) -> Result<()> {
        input.check_id()?;
        let text = Arc::clone(&input.last_data("update")?.working_memory);
        if !self.store.update(input.memory_type, &input.conversation_id, text)? {
            tracing::warn!(memory_type = %input.memory_type, "no existing data found to update");
        }
        Ok(())
    }

    /// Removes an entry; see [`MemoryManager::delete`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id.
    pub fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.check_id()?;
        self.store.delete(input.memory_type, &input.conversation_id);
        Ok(())
    }

    /// Removes everything whose time has passed, now: what the background cleanup does, for those who run it
    /// themselves. Other threads wait for at most a few entries at a time.
    pub fn clean_up(&self) {
        (0..self.store.shards()).for_each(|shard| self.store.clean_up(shard));
    }

    /// Changes the bounds while running; `None` leaves one as it is. Lowering evicts at once, oldest first.
    pub fn set_limits(&self, limits: MemoryLimits) {
        self.store.set_limits(limits.max_entries, limits.max_bytes);
    }

    /// Counters and bounds, as of now.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let (entries, bytes) = self.store.totals();
        let (peak_entries, peak_bytes) = self.store.peaks();
        let (max_entries, max_bytes) = self.store.limits();
        let (hits, misses) = self.store.hits_and_misses();
        let mut stats = MemoryStats::default();
        stats.entries = entries;
        stats.bytes = bytes;
        stats.hits = hits;
        stats.misses = misses;
        stats.evictions = self.store.evictions();
        stats.bounds = vec![
            Bound::new("memory.max_entries", "entries", entries, peak_entries, Some(max_entries)),
            Bound::new("memory.max_memory_mb", "bytes", bytes, peak_bytes, Some(max_bytes)),
        ];
        stats
    }
}

fn to_json(metadata: &Map<String, Value>) -> Result<Box<str>> {
    serde_json::to_string(metadata).map(String::into_boxed_str).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "memory.in_memory", "the metadata is not JSON").with_source(error)
    })
}

impl Default for InMemoryManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = self.store.totals();
        f.debug_struct("InMemoryManager")
            .field("entries", &entries)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// Every operation is done when its future is first polled; a future that was never polled did nothing.
#[async_trait]
impl MemoryManager for InMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        Self::store(self, input)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        Self::retrieve(self, input)
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        Self::update(self, input)
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        Self::delete(self, input)
    }

    fn stats(&self) -> MemoryStats {
        Self::stats(self)
    }

    async fn health(&self) -> Health {
        Health::Healthy
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().bounded(true).injected_clock(true)
    }

    fn set_limits(&self, limits: MemoryLimits) -> Result<()> {
        Self::set_limits(self, limits);
        Ok(())
    }
}

/// An entry with what is kept beside it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MemoryRecord {
    /// What is remembered.
    pub memory: WorkingMemory,
    /// What was stored beside it.
    pub metadata: Map<String, Value>,
    /// When it was stored, since the Unix epoch.
    pub created_at: Duration,
    /// When it was last updated, since the Unix epoch.
    pub last_update: Duration,
}

/// Builds an [`InMemoryManager`].
#[must_use]
pub struct InMemoryManagerBuilder {
    ttl: Duration,
    max_entries: u64,
    max_bytes: u64,
    cleanup_interval: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
}

impl InMemoryManagerBuilder {
    /// How long an entry lives, counted from when it is stored. Default: twelve hours, as in Python.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The most entries. Default: 10 000.
    pub fn max_entries(mut self, max: u64) -> Self {
        self.max_entries = max;
        self
    }

    /// The most memory in MiB, the store's own overhead included. Default: 500.
    pub fn max_memory_mb(self, max: u64) -> Self {
        self.max_bytes(max.saturating_mul(1 << 20))
    }

    /// The most memory in bytes, the store's own overhead included.
    pub fn max_bytes(mut self, max: u64) -> Self {
        self.max_bytes = max;
        self
    }

    /// How often the background cleanup runs, within a tokio runtime. Default: 300 s.
    pub fn cleanup_interval(mut self, interval: Duration) -> Self {
        self.cleanup_interval = interval;
        self
    }

    /// Uses another clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells `listener` about every entry that leaves the store.
    pub fn eviction_listener(mut self, listener: EvictionListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Builds the store. It allocates little until it is filled, and starts nothing.
    #[must_use]
    pub fn build(self) -> InMemoryManager {
        let store = Store::new(self.ttl, self.max_entries, self.max_bytes, self.clock, self.listener);
        InMemoryManager { store: Arc::new(store), cleanup: Cleanup::new(self.cleanup_interval) }
    }
}

impl fmt::Debug for InMemoryManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryManagerBuilder")
            .field("ttl", &self.ttl)
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
