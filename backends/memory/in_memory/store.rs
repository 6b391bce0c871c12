//! The shards of a store, the limits they share, and eviction across them.

use std::hash::BuildHasher;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use hashlink::DefaultHashBuilder;
use parking_lot::{Mutex, MutexGuard};

use super::super::notifier::{EvictionNotifier, RemovedEntries};
use super::COMPONENT;
use super::pages::SpareMaps;
use super::shard::{Entry, KeyRef, Shard, entry_bytes};
use crate::memory::{CasOutcome, EvictionListener, MemoryStats, MemoryType, RemovalCause};
use crate::support::UsageMeter;
use crate::{Clock, Error, ErrorKind, LimitUsage, Result, unsupported_limit_error};

const MAX_ENTRIES: &str = "memory.max_entries";
const MAX_BYTES: &str = "memory.max_memory_mb";

/// Expired entries that one operation removes from its shard: more than it can add, so they never accumulate.
const EXPIRED_PER_OPERATION: usize = 4;
/// One operation in so many also cleans up another shard, in turn.
const OPERATIONS_PER_CLEANUP: u64 = 64;
/// Larger texts are written under the eviction lock.
const LARGE_TEXT_BYTES: usize = 64 * 1024;
/// Entries removed before other operations get the shard's lock.
const REMOVED_PER_LOCK: usize = 64;

/// A shard on separate cache lines.
#[repr(align(128))]
struct PaddedShard(Mutex<Shard>);

/// The facts about a shard that eviction reads without its lock. Those of all shards are close together.
struct Summary {
    /// The stamp of the least recently used entry.
    oldest: AtomicU64,
    next_expiry: AtomicU64,
}

pub(super) struct Store {
    shards: Box<[PaddedShard]>,
    summaries: Box<[Summary]>,
    spare: Arc<SpareMaps>,
    hasher: DefaultHashBuilder,
    entries: UsageMeter,
    bytes: UsageMeter,
    /// Numbers every use, so that entries of different shards can be compared.
    stamps: AtomicU64,
    /// One thread at a time makes room, so that two writers cannot evict each other's entries.
    evicting: Mutex<()>,
    ttl: u64,
    clock: Arc<dyn Clock>,
    notifier: EvictionNotifier,
}

/// A locked shard. On drop it updates what the store knows of the shard.
struct ShardGuard<'a> {
    store: &'a Store,
    summary: &'a Summary,
    shard: MutexGuard<'a, Shard>,
    entries: usize,
    bytes: usize,
}

impl Deref for ShardGuard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for ShardGuard<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for ShardGuard<'_> {
    fn drop(&mut self) {
        // Stored only if different, so that reading entries does not invalidate other threads' cache lines.
        let update = |summary: &AtomicU64, value: u64| {
            if summary.load(Relaxed) != value {
                summary.store(value, SeqCst);
            }
        };
        update(&self.summary.oldest, self.shard.oldest());
        update(&self.summary.next_expiry, self.shard.next_expiry());
        let adjust = |meter: &UsageMeter, before: usize, after: usize| match after >= before {
            true if after == before => {}
            true => meter.add_provisionally((after - before) as u64),
            false => meter.sub((before - after) as u64),
        };
        adjust(&self.store.entries, self.entries, self.shard.len());
        adjust(&self.store.bytes, self.bytes, self.shard.bytes());
    }
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
        let spare = Arc::new(SpareMaps::default());
        // A shard keeps up to 128 KiB of free pages: few shards for small stores.
        let shards = (max_bytes >> 21).clamp(1, 16) as usize;
        let shard = |_| PaddedShard(Mutex::new(Shard::new(Arc::clone(&spare))));
        let summary = |_| Summary { oldest: u64::MAX.into(), next_expiry: u64::MAX.into() };
        Ok(Self {
            shards: (0..shards).map(shard).collect(),
            summaries: (0..shards).map(summary).collect(),
            spare: Arc::clone(&spare),
            hasher: DefaultHashBuilder::default(),
            entries: UsageMeter::new(MAX_ENTRIES, "entries", max_entries),
            bytes: UsageMeter::new(MAX_BYTES, "bytes", max_bytes),
            stamps: AtomicU64::new(0),
            evicting: Mutex::new(()),
            ttl: nanos(ttl),
            clock,
            notifier: EvictionNotifier::new(listener),
        })
    }

    fn key<'a>(&self, memory_type: MemoryType, id: &'a str) -> KeyRef<'a> {
        KeyRef { hash: self.hasher.hash_one((memory_type as u8, id)), memory_type, id }
    }

    /// The shard of a key, by bits of the hash that the index does not use.
    fn shard_of(&self, key: KeyRef<'_>) -> usize {
        (key.hash >> 32) as u32 as usize % self.shards.len()
    }

    fn lock(&self, index: usize) -> ShardGuard<'_> {
        let shard = self.shards[index].0.lock();
        let (entries, bytes) = (shard.len(), shard.bytes());
        ShardGuard { store: self, summary: &self.summaries[index], shard, entries, bytes }
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    /// The text of an entry.
    pub(super) fn get(&self, memory_type: MemoryType, id: &str) -> Option<Vec<u8>> {
        self.read(memory_type, id, |shard, found| {
            let count = if found.is_some() { &mut shard.stats.hits } else { &mut shard.stats.misses };
            *count += 1;
            found.map(|entry| shard.text(entry))
        })
    }

    /// The metadata of an entry, as JSON.
    pub(super) fn metadata(&self, memory_type: MemoryType, id: &str) -> Option<Vec<u8>> {
        self.read(memory_type, id, |shard, found| found.map(|entry| shard.metadata(entry)))
    }

    fn read<T>(
        &self,
        memory_type: MemoryType,
        id: &str,
        take: impl FnOnce(&mut Shard, Option<Entry>) -> T,
    ) -> T {
        let key = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        let result = {
            let mut shard = self.lock(self.shard_of(key));
            shard.remove_expired(now, EXPIRED_PER_OPERATION, &mut removed);
            let found = shard.lookup(key, now, &self.stamps, &mut removed);
            let result = take(&mut shard, found);
            shard.release_unused();
            result
        };
        self.finish(removed);
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
        let key = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        // Large texts are written one at a time, so that they do not all exceed the limit at the same moment.
        let evicting = (text.len() > LARGE_TEXT_BYTES).then(|| self.evicting.lock());
        let result = {
            let mut shard = self.lock(self.shard_of(key));
            shard.remove_expired(now, EXPIRED_PER_OPERATION, &mut removed);
            let result = self.write_to_shard(&mut shard, (key, text), write, expected, now, &mut removed);
            shard.release_unused();
            result
        };
        let result = result.and_then(|(outcome, stamp)| {
            self.make_room(evicting, stamp, &mut removed)?;
            Ok(outcome)
        });
        self.entries.record_peak();
        self.bytes.record_peak();
        self.finish(removed);
        result
    }

    /// Returns the outcome and the stamp of the written entry.
    fn write_to_shard(
        &self,
        shard: &mut Shard,
        (key, text): (KeyRef<'_>, &str),
        write: Write<'_>,
        expected: Option<Option<&str>>,
        now: u64,
        removed: &mut RemovedEntries,
    ) -> Result<(CasOutcome, Option<u64>)> {
        let found = shard.lookup(key, now, &self.stamps, removed);
        if let Some(expected) = expected {
            match (&found, expected) {
                (None, Some(_)) => return Ok((CasOutcome::Missing, None)),
                (Some(_), None) => return Ok((CasOutcome::Conflict, None)),
                (Some(entry), Some(expected)) if !shard.has_text(*entry, expected) => {
                    return Ok((CasOutcome::Conflict, None));
                }
                _ => {}
            }
        }
        let expires = now.saturating_add(self.ttl);
        let written = match (found, write) {
            (None, Write::Update) => return Ok((CasOutcome::Missing, None)),
            (None, Write::Store { metadata }) => {
                self.check_size(key.id.len() + metadata.len() + text.len())?;
                shard.insert(key, expires, (metadata, text), &self.stamps)
            }
            (Some(old), Write::Store { metadata }) => {
                self.check_size(key.id.len() + metadata.len() + text.len())?;
                shard.replace(old, Some((expires, metadata)), text, removed)
            }
            (Some(old), Write::Update) => {
                self.check_size(key.id.len() + old.metadata_bytes + text.len())?;
                shard.replace(old, None, text, removed)
            }
        };
        written.map_err(|cause| {
            Error::new(ErrorKind::Capacity, COMPONENT, "failed to map memory").with_source(cause)
        })?;
        Ok((CasOutcome::Updated, Some(shard.newest())))
    }

    /// Rejects an entry that could not fit even alone.
    fn check_size(&self, bytes: usize) -> Result<()> {
        let (entry, max) = (entry_bytes(bytes), self.bytes.max());
        if entry <= max {
            return Ok(());
        }
        Err(too_large().with_context("entry_bytes", entry).with_context("max_bytes", max))
    }

    fn excess(&self) -> Option<RemovalCause> {
        match (self.entries.is_exceeded(), self.bytes.is_exceeded()) {
            (true, _) => Some(RemovalCause::MaxEntries),
            (_, true) => Some(RemovalCause::MaxBytes),
            _ => None,
        }
    }

    /// Evicts if a limit is exceeded, and returns the memory of evicted entries to the system.
    fn make_room(
        &self,
        evicting: Option<MutexGuard<'_, ()>>,
        written: Option<u64>,
        removed: &mut RemovedEntries,
    ) -> Result<()> {
        if self.excess().is_none() {
            return Ok(());
        }
        let shards = {
            let _evicting = evicting.unwrap_or_else(|| self.evicting.lock());
            self.evict(written, removed)?
        };
        for index in (0..self.shards.len()).filter(|index| shards >> index & 1 == 1) {
            self.lock(index).release_unused();
        }
        Ok(())
    }

    /// Evicts until the limits hold: expired entries, then the least recently used ones, but not the one that was just
    /// `written`, identified by its stamp. Returns the set of shards that entries were evicted from.
    fn evict(&self, mut written: Option<u64>, removed: &mut RemovedEntries) -> Result<u64> {
        let now = self.now();
        let mut shards = 0_u64;
        while let Some(cause) = self.excess() {
            let index = self.next_to_evict(now);
            let mut shard = self.lock(index);
            shards |= 1 << index;
            if shard.remove_expired(now, 1, removed) > 0 {
                continue;
            }
            if written.is_some_and(|written| written == shard.oldest()) {
                if self.entries.used() == 1 {
                    // The limit was lowered after the entry's size was checked.
                    shard.remove_oldest(cause, removed);
                    return Err(too_large());
                }
                written = Some(shard.touch_oldest(&self.stamps));
                continue;
            }
            self.evict_batch(&mut shard, cause, written, removed);
        }
        Ok(shards)
    }

    /// The shard that has expired entries, or else the least recently used entry.
    fn next_to_evict(&self, now: u64) -> usize {
        let order = |summary: &Summary| match summary.next_expiry.load(Relaxed) <= now {
            true => 0,
            false => summary.oldest.load(SeqCst).saturating_add(1),
        };
        let oldest = self.summaries.iter().enumerate().min_by_key(|(_, summary)| order(summary));
        oldest.map_or(0, |(index, _)| index)
    }

    /// Evicts the oldest entry of a shard and, in a large store, further ones as long as that is necessary: so few that
    /// they are among the oldest hundredth of the store.
    fn evict_batch(
        &self,
        shard: &mut ShardGuard<'_>,
        cause: RemovalCause,
        written: Option<u64>,
        removed: &mut RemovedEntries,
    ) {
        let batch = (self.entries.used() / (200 * self.shards.len() as u64)).clamp(1, 256);
        let (entries, bytes) = (shard.len(), shard.bytes());
        for _ in 0..batch {
            if written == Some(shard.oldest()) {
                return;
            }
            shard.remove_oldest(cause, removed);
            let enough =
                |meter: &UsageMeter, freed: usize| meter.used().saturating_sub(freed as u64) <= meter.max();
            if enough(&self.entries, entries - shard.len()) && enough(&self.bytes, bytes - shard.bytes()) {
                return;
            }
        }
    }

    /// Reports removed entries and, every so often, cleans up another shard. The caller holds no lock.
    fn finish(&self, removed: RemovedEntries) {
        self.notifier.notify(removed);
        let stamp = self.stamps.load(Relaxed);
        if stamp.is_multiple_of(OPERATIONS_PER_CLEANUP) {
            self.clean_up_batch((stamp / OPERATIONS_PER_CLEANUP) as usize % self.shards.len());
        }
    }

    pub(super) fn delete(&self, memory_type: MemoryType, id: &str) {
        let key = self.key(memory_type, id);
        let (now, mut removed) = (self.now(), self.notifier.collect());
        {
            let mut shard = self.lock(self.shard_of(key));
            shard.remove_expired(now, EXPIRED_PER_OPERATION, &mut removed);
            if let Some(entry) = shard.lookup(key, now, &self.stamps, &mut removed) {
                shard.remove(entry, RemovalCause::Deleted, &mut removed);
            }
            shard.release_unused();
        }
        self.finish(removed);
    }

    /// Removes all expired entries.
    pub(super) fn clean_up(&self) {
        for index in 0..self.shards.len() {
            while self.clean_up_batch(index) {}
        }
    }

    /// As [`clean_up`](Self::clean_up), yielding to other tasks in between.
    pub(super) async fn clean_up_async(&self) {
        for index in 0..self.shards.len() {
            while self.clean_up_batch(index) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Removes some expired entries of a shard; `true` if there may be more.
    fn clean_up_batch(&self, index: usize) -> bool {
        let now = self.now();
        if self.summaries[index].next_expiry.load(Relaxed) > now {
            return false;
        }
        let mut removed = self.notifier.collect();
        let count = {
            let mut shard = self.lock(index);
            let count = shard.remove_expired(now, REMOVED_PER_LOCK, &mut removed);
            shard.release_unused();
            count
        };
        self.notifier.notify(removed);
        count == REMOVED_PER_LOCK
    }

    /// Removes all entries.
    pub(super) fn clear(&self) {
        for index in 0..self.shards.len() {
            if self.notifier.has_listener() {
                self.clear_and_notify(index);
            }
            self.lock(index).clear();
        }
        self.spare.clear();
    }

    /// Removes the entries that a shard has now, with a call of the listener for each.
    fn clear_and_notify(&self, index: usize) {
        let newest = self.stamps.fetch_add(1, Relaxed);
        loop {
            let mut removed = self.notifier.collect();
            {
                let mut shard = self.lock(index);
                for _ in 0..REMOVED_PER_LOCK {
                    if shard.oldest() > newest {
                        break;
                    }
                    shard.remove_oldest(RemovalCause::Deleted, &mut removed);
                }
                shard.release_unused();
            }
            if removed.is_empty() {
                return;
            }
            self.notifier.notify(removed);
        }
    }

    pub(super) fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let meter = match key {
            MAX_ENTRIES => &self.entries,
            MAX_BYTES => &self.bytes,
            _ => return Err(unsupported_limit_error(COMPONENT, key)),
        };
        let [entries, bytes] = if key == MAX_ENTRIES { [max, u64::MAX] } else { [u64::MAX, max] };
        check_limits(entries, bytes, ErrorKind::InvalidInput)?;
        meter.set_max(max);
        let mut removed = self.notifier.collect();
        let result = self.make_room(None, None, &mut removed);
        self.finish(removed);
        result
    }

    pub(super) fn limits(&self) -> Vec<LimitUsage> {
        vec![self.entries.usage(), self.bytes.usage()]
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        stats.entries = self.entries.used();
        stats.bytes = self.bytes.used();
        for padded in &self.shards {
            let shard = padded.0.lock();
            stats.hits += shard.stats.hits;
            stats.misses += shard.stats.misses;
            stats.removals += shard.stats.removals;
        }
        stats
    }
}

fn check_limits(max_entries: u64, max_bytes: u64, kind: ErrorKind) -> Result<()> {
    if max_entries == 0 {
        return Err(Error::new(kind, COMPONENT, "max_entries must be at least 1"));
    }
    let min_bytes = entry_bytes(1);
    if max_bytes < min_bytes {
        let message = format!("the memory limit must be at least {min_bytes} bytes");
        return Err(Error::new(kind, COMPONENT, message));
    }
    Ok(())
}

fn too_large() -> Error {
    Error::new(ErrorKind::TooLarge, COMPONENT, "entry exceeds the memory limit")
}
