//! Counters of a memory backend, and the listener for removed entries.

use std::sync::Arc;

use serde::Serialize;

use super::{MemoryType, WorkingMemory};

/// Counters of a memory backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Entries held, including expired ones that were not cleaned up yet.
    pub entries: u64,
    /// Bytes held, including the store's overhead.
    pub bytes: u64,
    /// Retrievals that found an entry.
    pub hits: u64,
    /// Retrievals that found none.
    pub misses: u64,
    /// Removed entries by cause.
    pub removals: RemovalCounts,
}

/// Removed entries by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovalCounts {
    /// See [`RemovalCause::MaxEntries`].
    pub over_max_entries: u64,
    /// See [`RemovalCause::MaxBytes`].
    pub over_max_bytes: u64,
    /// See [`RemovalCause::Expired`].
    pub expired: u64,
    /// See [`RemovalCause::Replaced`].
    pub replaced: u64,
    /// See [`RemovalCause::Deleted`].
    pub deleted: u64,
}

impl RemovalCounts {
    /// Counts one removal.
    pub fn add(&mut self, cause: RemovalCause) {
        self.add_many(cause, 1);
    }

    /// Counts several removals.
    pub fn add_many(&mut self, cause: RemovalCause, removed: u64) {
        let count = match cause {
            RemovalCause::MaxEntries => &mut self.over_max_entries,
            RemovalCause::MaxBytes => &mut self.over_max_bytes,
            RemovalCause::Expired => &mut self.expired,
            RemovalCause::Replaced => &mut self.replaced,
            RemovalCause::Deleted => &mut self.deleted,
        };
        *count += removed;
    }
}

impl std::ops::AddAssign for RemovalCounts {
    fn add_assign(&mut self, other: Self) {
        self.over_max_entries += other.over_max_entries;
        self.over_max_bytes += other.over_max_bytes;
        self.expired += other.expired;
        self.replaced += other.replaced;
        self.deleted += other.deleted;
    }
}

/// Why an entry was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum RemovalCause {
    /// Evicted: more entries than `max_entries`.
    MaxEntries,
    /// Evicted: more bytes than the byte limit.
    MaxBytes,
    /// The TTL had passed.
    Expired,
    /// A write replaced the text.
    Replaced,
    /// Deleted.
    Deleted,
}

/// A removed entry, the argument of an [`EvictionListener`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemovedEntry {
    /// The conversation.
    pub conversation_id: Arc<str>,
    /// Which memory of the conversation.
    pub memory_type: MemoryType,
    /// The text.
    pub memory: WorkingMemory,
    /// Why it was removed.
    pub reason: RemovalCause,
}

impl RemovedEntry {
    /// A removed entry.
    #[must_use]
    pub fn new(
        conversation_id: Arc<str>,
        memory_type: MemoryType,
        memory: WorkingMemory,
        reason: RemovalCause,
    ) -> Self {
        Self { conversation_id, memory_type, memory, reason }
    }
}

/// Called once for every removed entry, on the thread that ran the operation, after the operation has taken effect and
/// outside every lock.
///
/// It may use the store. It is never called recursively: entries removed by its own calls are counted in
/// [`MemoryStats::removals`] but not reported to it, so that a listener that stores an evicted entry again returns.
/// A panic is caught and logged. While it blocks, only the operation that called it waits.
pub type EvictionListener = Arc<dyn Fn(RemovedEntry) + Send + Sync>;
