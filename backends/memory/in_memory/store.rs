//! The operations of a store on the shards that hold its entries.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::super::notifier::{EvictionNotifier, RemovedEntries};
use super::entry::Key;
use super::eviction::{check_limits, no_memory};
use super::shard::{Shard, to_str};
use super::shards::{LockedShard, Shards};
use crate::memory::{CasOutcome, EvictionListener, MemoryStats, MemoryType, RemovalCause, WorkingMemory};
use crate::support::UsageMeter;
use crate::{Clock, ErrorKind, LimitUsage, Result};

pub(super) const MAX_ENTRIES: &str = "memory.max_entries";
pub(super) const MAX_BYTES: &str = "memory.max_memory_mb";

/// Expired entries that one operation removes from its shard: more than it can add, so they never accumulate.
const EXPIRED_PER_OPERATION: usize = 4;
/// One operation in so many also cleans up another shard, in turn.
const OPERATIONS_PER_CLEANUP: u64 = 64;
/// Larger texts are written under the eviction lock.
const LARGE_TEXT_BYTES: usize = 64 * 1024;
/// Entries removed before other operations get the shard's lock.
const REMOVED_PER_LOCK: usize = 64;

/// Texts up to this length are copied out of pages through the stack.
const STACK_BYTES: usize = 16 * 1024;

pub(super) struct Store {
    pub(super) shards: Shards,
    hasher: DefaultHashBuilder,
    /// Numbers every operation, so that the uses of entries of different shards can be compared.
    stamps: AtomicU64,
    /// One thread at a time makes room, so that two writers cannot evict each other's entries.
    pub(super) evicting: Mutex<()>,
    ttl: u64,
    clock: Arc<dyn Clock>,
    pub(super) notifier: EvictionNotifier,
}

/// The change that a write makes.
pub(super) enum Write<'a> {
    /// Replaces the whole entry; the metadata is JSON.
    Store { metadata: &'a [u8] },
    /// Replaces the text of an existing entry.
    Update,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Store {
    pub(super) fn new(
        (max_entries, max_bytes): (u64, u64),
        ttl: Duration,
        clock: Arc<dyn Clock>,
        listener: Option<EvictionListener>,
    ) -> Result<Self> {
        check_limits(max_entries, max_bytes, ErrorKind::Config)?;
        let entries = UsageMeter::new(MAX_ENTRIES, "entries", max_entries);
        let bytes = UsageMeter::new(MAX_BYTES, "bytes", max_bytes);
        Ok(Self {
            shards: Shards::new(entries, bytes),
            hasher: DefaultHashBuilder::default(),
            stamps: AtomicU64::new(0),
            evicting: Mutex::new(()),
            ttl: nanos(ttl),
            clock,
            notifier: EvictionNotifier::new(listener),
        })
    }

    /// A key and its shard, which are of different bits of one hash.
    fn key<'a>(&self, memory_type: MemoryType, id: &'a str) -> (usize, Key<'a>) {
        let hash = self.hasher.hash_one((memory_type as u8, id));
        let shard = (hash >> 32) as usize % self.shards.count();
        (shard, Key { hash: hash as u32, memory_type, id })
    }

    pub(super) fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    /// A stamp later than all others. Under a shard's lock it is also later than those of the shard's entries.
    pub(super) fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Relaxed)
    }

    /// Locks a shard for an operation, which gets a stamp, and removes some of its expired entries.
    fn begin(&self, index: usize, now: u64, removed: &mut RemovedEntries) -> (LockedShard<'_>, u64) {
        let mut shard = self.shards.lock(index);
        let stamp = self.stamp();
        shard.remove_expired(now, EXPIRED_PER_OPERATION, removed);
        (shard, stamp)
    }

    /// The text of an entry.
    pub(super) fn get(&self, memory_type: MemoryType, id: &str) -> Option<WorkingMemory> {
        let mut text = SmallVec::<[u8; STACK_BYTES]>::new();
        self.read(memory_type, id, |shard, found| {
            let count = if found.is_some() { &mut shard.stats.hits } else { &mut shard.stats.misses };
            *count += 1;
            shard.copy_text(found?, &mut text);
            Some(())
        })?;
        Some(to_str(&text).into())
    }

    /// The metadata of an entry, as JSON.
    pub(super) fn metadata(&self, memory_type: MemoryType, id: &str) -> Option<Vec<u8>> {
        self.read(memory_type, id, |shard, found| found.map(|number| shard.metadata(number)))
    }

    fn read<T>(
        &self,
        memory_type: MemoryType,
        id: &str,
        take: impl FnOnce(&mut Shard, Option<u32>) -> T,
    ) -> T {
        let (index, key) = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        let (mut shard, stamp) = self.begin(index, now, &mut removed);
        let found = shard.find(&key, now, &mut removed);
        if let Some(number) = found {
            shard.touch(number, stamp);
        }
        let result = take(&mut shard, found);
        drop(shard);
        self.finish(stamp, removed);
        result
    }

    /// Writes an entry, if its text is the expected one where `expected` says so.
    pub(super) fn write(
        &self,
        memory_type: MemoryType,
        id: &str,
        text: &str,
        write: Write<'_>,
        expected: Option<Option<&str>>,
    ) -> Result<CasOutcome> {
        let (index, key) = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        // Large texts are written one at a time, so that they do not all exceed the limit at the same moment.
        let evicting = (text.len() > LARGE_TEXT_BYTES).then(|| self.evicting.lock());
        let (mut shard, stamp) = self.begin(index, now, &mut removed);
        let result =
            self.write_to_shard(&mut shard, (&key, text), write, expected, (now, stamp), &mut removed);
        drop(shard);
        let result = result.and_then(|outcome| {
            self.make_room(evicting, Some(stamp), &mut removed)?;
            Ok(outcome)
        });
        self.shards.entries.record_peak();
        self.shards.bytes.record_peak();
        self.finish(stamp, removed);
        result
    }

    fn write_to_shard(
        &self,
        shard: &mut Shard,
        (key, text): (&Key<'_>, &str),
        write: Write<'_>,
        expected: Option<Option<&str>>,
        (now, stamp): (u64, u64),
        removed: &mut RemovedEntries,
    ) -> Result<CasOutcome> {
        let found = shard.find(key, now, removed);
        if let Some(expected) = expected {
            match (&found, expected) {
                (None, Some(_)) => return Ok(CasOutcome::Missing),
                (Some(_), None) => return Ok(CasOutcome::Conflict),
                (Some(number), Some(expected)) if !shard.has_text(*number, expected) => {
                    return Ok(CasOutcome::Conflict);
                }
                _ => {}
            }
        }
        let (metadata, text_offset) = match (found, write) {
            (_, Write::Store { metadata }) => (Some(metadata), key.id.len() + metadata.len()),
            (Some(old), Write::Update) => (None, shard.entry(old).text_offset()),
            (None, Write::Update) => return Ok(CasOutcome::Missing),
        };
        // First: a rejected write does not count as a use.
        self.check_size(text_offset + text.len())?;
        let expires = now.saturating_add(self.ttl);
        match found {
            Some(old) => {
                let store = metadata.map(|metadata| (expires, metadata));
                shard.replace(old, store, text, stamp, removed)
            }
            None => shard.insert(key, expires, (metadata.unwrap_or_default(), text), stamp),
        }
        .map_err(no_memory)?;
        Ok(CasOutcome::Updated)
    }

    /// Reports removed entries and, every so often, cleans up another shard. The caller holds no lock.
    pub(super) fn finish(&self, stamp: u64, removed: RemovedEntries) {
        self.notifier.notify(removed);
        if stamp.is_multiple_of(OPERATIONS_PER_CLEANUP) {
            self.clean_up_batch((stamp / OPERATIONS_PER_CLEANUP) as usize % self.shards.count());
        }
    }

    pub(super) fn delete(&self, memory_type: MemoryType, id: &str) {
        let (index, key) = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        let (mut shard, stamp) = self.begin(index, now, &mut removed);
        if let Some(number) = shard.find(&key, now, &mut removed) {
            shard.remove(number, RemovalCause::Deleted, &mut removed);
        }
        drop(shard);
        self.finish(stamp, removed);
    }

    /// Removes all expired entries.
    pub(super) fn clean_up(&self) {
        for index in 0..self.shards.count() {
            while self.clean_up_batch(index) {}
        }
    }

    /// As [`clean_up`](Self::clean_up), yielding to other tasks in between.
    pub(super) async fn clean_up_async(&self) {
        for index in 0..self.shards.count() {
            while self.clean_up_batch(index) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Removes some expired entries of a shard; `true` if there may be more.
    fn clean_up_batch(&self, index: usize) -> bool {
        let now = self.now();
        if self.shards.next_expiry(index) > now {
            return false;
        }
        let mut removed = self.notifier.collect();
        let count = {
            let mut shard = self.shards.lock(index);
            shard.remove_expired(now, REMOVED_PER_LOCK, &mut removed)
        };
        self.notifier.notify(removed);
        count == REMOVED_PER_LOCK
    }

    /// Removes all entries.
    pub(super) fn clear(&self) {
        for index in 0..self.shards.count() {
            match self.notifier.has_listener() {
                true => self.clear_and_notify(index),
                false => self.shards.lock(index).clear(),
            }
        }
        self.shards.release_spare();
    }

    /// Removes the entries that a shard has now, with a call of the listener for each.
    fn clear_and_notify(&self, index: usize) {
        let newest = self.stamp();
        loop {
            let mut removed = self.notifier.collect();
            {
                let mut shard = self.shards.lock(index);
                for _ in 0..REMOVED_PER_LOCK {
                    if shard.oldest() > newest {
                        break;
                    }
                    shard.remove_oldest(RemovalCause::Deleted, &mut removed);
                }
            }
            if removed.is_empty() {
                return;
            }
            self.notifier.notify(removed);
        }
    }

    pub(super) fn limits(&self) -> Vec<LimitUsage> {
        vec![self.shards.entries.usage(), self.shards.bytes.usage()]
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        stats.entries = self.shards.entries.used();
        stats.bytes = self.shards.bytes.used();
        for index in 0..self.shards.count() {
            let shard = self.shards.lock(index);
            stats.hits += shard.stats.hits;
            stats.misses += shard.stats.misses;
            stats.removals += shard.stats.removals;
        }
        stats
    }
}
