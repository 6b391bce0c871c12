//! The sharded store: global bounds and one order of eviction over all shards.

use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{RwLock, RwLockWriteGuard};

use super::shard::{ALONE, EMPTY, Entry, Evicted as Outcome, Gone, Key, State, payload};
use crate::memory::{Evicted, EvictionCounts, EvictionListener, EvictionReason, MemoryType, WorkingMemory};
use crate::{Clock, Error, ErrorKind, Result};

/// Entries that a write may expire on its way.
const EXPIRE_ON_WRITE: usize = 8;
/// Entries that the background cleanup expires before it lets go of a shard's lock.
const EXPIRE_IN_BACKGROUND: usize = 128;
/// Used entries that an eviction passes over before it takes the next one, used or not: what it costs stays
/// bounded even where everything was used.
const SECOND_CHANCES: usize = 32;

/// Keeps neighbours off each other's cache lines (two of them: processors prefetch in pairs).
#[repr(align(128))]
#[derive(Debug, Default)]
struct Padded<T>(T);

#[derive(Debug, Default)]
struct Shard {
    state: RwLock<State>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Entries and bytes over all shards.
#[derive(Debug, Default)]
struct Totals {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Totals {
    fn load(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Acquire), self.bytes.load(Ordering::Acquire))
    }

    fn raise_to(&self, (entries, bytes): (u64, u64)) {
        self.entries.fetch_max(entries, Ordering::Relaxed);
        self.bytes.fetch_max(bytes, Ordering::Relaxed);
    }
}

pub(super) struct Store {
    hasher: hashlink::DefaultHashBuilder,
    shards: Box<[Padded<Shard>]>,
    /// For each shard the stamp of the entry next to go: the smallest of all is the oldest in the store.
    fronts: Box<[AtomicU64]>,
    totals: Padded<Totals>,
    peaks: Padded<Totals>,
    limits: Padded<Totals>,
    stamps: Padded<AtomicU64>,
    evictions: Padded<[AtomicU64; 5]>,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
}

/// A shard locked for writing. When it is let go, totals and the order of eviction are brought up to date.
struct Writing<'a> {
    state: RwLockWriteGuard<'a, State>,
    store: &'a Store,
    shard: usize,
    before: (u64, u64),
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.state.tidy();
        let totals = &self.store.totals.0;
        let (entries, bytes) = self.before;
        // Wrapping differences: adding them is subtracting where something left.
        totals.entries.fetch_add((self.state.len() as u64).wrapping_sub(entries), Ordering::AcqRel);
        totals.bytes.fetch_add(self.state.bytes().wrapping_sub(bytes), Ordering::AcqRel);
        self.store.fronts[self.shard].store(self.state.front(), Ordering::Release);
    }
}

impl Store {
    pub(super) fn new(
        ttl: Duration,
        max_entries: u64,
        max_bytes: u64,
        clock: Arc<dyn Clock>,
        listener: Option<EvictionListener>,
    ) -> Self {
        // Enough that threads rarely meet, and that no table is so large that growing it is felt.
        let shards = if max_entries > 1_000_000 { 256 } else { 64 };
        let limits = Totals { entries: AtomicU64::new(max_entries), bytes: AtomicU64::new(max_bytes) };
        Self {
            hasher: hashlink::DefaultHashBuilder::default(),
            shards: (0..shards).map(|_| Padded::default()).collect(),
            fronts: (0..shards).map(|_| AtomicU64::new(EMPTY)).collect(),
            totals: Padded::default(),
            peaks: Padded::default(),
            limits: Padded(limits),
            stamps: Padded::default(),
            evictions: Padded::default(),
            ttl,
            clock,
            listener,
        }
    }

    pub(super) fn get(&self, memory_type: MemoryType, id: &str) -> Option<WorkingMemory> {
        self.read(memory_type, id, |_, entry| WorkingMemory { working_memory: Arc::clone(&entry.text) })
    }

    /// Reads an entry that has not expired, under a shared lock.
    pub(super) fn read<T>(
        &self,
        memory_type: MemoryType,
        id: &str,
        read: impl FnOnce(&Key, &Entry) -> T,
    ) -> Option<T> {
        let hash = self.hash(memory_type, id);
        let Padded(shard) = &self.shards[self.shard_of(hash)];
        let now = self.now();
        let state = shard.state.read();
        match state.get(hash, memory_type, id) {
            Some((key, entry)) if key.expires > now => {
                entry.mark_used();
                shard.hits.fetch_add(1, Ordering::Relaxed);
                Some(read(key, entry))
            }
            _ => {
                shard.misses.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    pub(super) fn put(
        &self,
        memory_type: MemoryType,
        id: &str,
        text: Arc<str>,
        metadata: Option<Box<str>>,
    ) -> Result<()> {
        self.check_size(payload(id, &text, metadata.as_deref()))?;
        let hash = self.hash(memory_type, id);
        let now = self.now();
        let key = Key::new(hash, memory_type, id, now.saturating_add(nanos(self.ttl)));
        let entry = Entry::new(text, metadata, self.now_us());
        let mut gone = Vec::new();
        {
            let mut shard = self.write(self.shard_of(hash));
            shard.state.expire(now, EXPIRE_ON_WRITE, &mut gone);
            gone.extend(shard.state.put(key, entry, self.stamp(), now));
        }
        self.evict_to_fit(now, &mut gone);
        self.settle(gone);
        Ok(())
    }

    /// Replaces the text of an entry; whether there was one.
    pub(super) fn update(&self, memory_type: MemoryType, id: &str, text: Arc<str>) -> Result<bool> {
        let hash = self.hash(memory_type, id);
        let now = self.now();
        let mut gone = Vec::new();
        {
            let mut shard = self.write(self.shard_of(hash));
            let Some((_, entry)) = shard.state.get(hash, memory_type, id) else { return Ok(false) };
            self.check_size(payload(id, &text, entry.metadata.as_deref()))?;
            let moment = (self.stamp(), now, self.now_us());
            let Some(earlier) = shard.state.update((hash, memory_type, id), text, moment) else {
                return Ok(false);
            };
            // Only a listener wants to know whose text it was.
            let id = if self.listener.is_some() { id.into() } else { Box::default() };
            gone.push(Gone { id, memory_type, text: earlier, reason: EvictionReason::Replaced });
        }
        self.evict_to_fit(now, &mut gone);
        self.settle(gone);
        Ok(true)
    }

    pub(super) fn delete(&self, memory_type: MemoryType, id: &str) {
        let hash = self.hash(memory_type, id);
        let now = self.now();
        let mut gone = Vec::new();
        {
            let mut shard = self.write(self.shard_of(hash));
            shard.state.expire(now, EXPIRE_ON_WRITE, &mut gone);
            gone.extend(shard.state.remove(hash, memory_type, id, EvictionReason::Deleted, now));
        }
        self.settle(gone);
    }

    /// Expires what is due in one shard, a little at a time, so that nobody waits long for its lock.
    pub(super) fn clean_up(&self, shard: usize) {
        let now = self.now();
        let mut more = true;
        while more {
            let mut gone = Vec::new();
            more = self.write(shard).state.expire(now, EXPIRE_IN_BACKGROUND, &mut gone);
            self.settle(gone);
        }
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Changes the limits and evicts down to them.
    pub(super) fn set_limits(&self, max_entries: Option<u64>, max_bytes: Option<u64>) {
        let limits = &self.limits.0;
        if let Some(max) = max_entries {
            limits.entries.store(max, Ordering::Release);
        }
        if let Some(max) = max_bytes {
            limits.bytes.store(max, Ordering::Release);
        }
        let mut gone = Vec::new();
        self.evict_to_fit(self.now(), &mut gone);
        self.settle(gone);
    }

    pub(super) fn limits(&self) -> (u64, u64) {
        self.limits.0.load()
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        self.totals.0.load()
    }

    pub(super) fn peaks(&self) -> (u64, u64) {
        self.peaks.0.load()
    }

    pub(super) fn hits_and_misses(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(hits, misses), Padded(shard)| {
            (hits + shard.hits.load(Ordering::Relaxed), misses + shard.misses.load(Ordering::Relaxed))
        })
    }

    pub(super) fn evictions(&self) -> EvictionCounts {
        let count = |reason| self.evictions.0[reason as usize].load(Ordering::Relaxed);
        let mut counts = EvictionCounts::default();
        counts.size = count(EvictionReason::Size);
        counts.bytes = count(EvictionReason::Bytes);
        counts.expired = count(EvictionReason::Expired);
        counts.replaced = count(EvictionReason::Replaced);
        counts.deleted = count(EvictionReason::Deleted);
        counts
    }

    fn hash(&self, memory_type: MemoryType, id: &str) -> u64 {
        self.hasher.hash_one((memory_type as u8, id))
    }

    /// By bits of the hash that the shard's own table does not look at first.
    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.shards.len() - 1)
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    fn now_us(&self) -> u64 {
        let since = self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// The next place in the order of use.
    fn stamp(&self) -> u64 {
        self.stamps.0.fetch_add(1, Ordering::Relaxed)
    }

    fn write(&self, shard: usize) -> Writing<'_> {
        let state = self.shards[shard].0.state.write();
        let before = (state.len() as u64, state.bytes());
        Writing { state, store: self, shard, before }
    }

    fn check_size(&self, payload: u64) -> Result<()> {
        let (_, max_bytes) = self.limits();
        let needs = payload + ALONE;
        if needs <= max_bytes {
            return Ok(());
        }
        let message = format!(
            "the entry needs {needs} bytes and the whole store may hold {max_bytes} \
             (memory.max_memory_mb, ARSHAI_MAX_MEMORY_MB); nothing was changed"
        );
        Err(Error::new(ErrorKind::TooLarge, "memory.in_memory", message))
    }

    /// Evicts in order until both bounds hold.
    fn evict_to_fit(&self, now: u64, gone: &mut Vec<Gone>) {
        let (max_entries, max_bytes) = self.limits();
        loop {
            let (entries, bytes) = self.totals();
            let reason = match (entries > max_entries, bytes > max_bytes) {
                (true, _) => EvictionReason::Size,
                (false, true) => EvictionReason::Bytes,
                (false, false) => {
                    self.peaks.0.raise_to((entries, bytes));
                    return;
                }
            };
            if !self.evict_one(reason, now, gone) {
                return;
            }
        }
    }

    /// Evicts the oldest entry of the store, passing over a bounded number of used ones; whether there was any.
    fn evict_one(&self, reason: EvictionReason, now: u64, gone: &mut Vec<Gone>) -> bool {
        let mut chances = SECOND_CHANCES;
        while let Some(shard) = self.oldest_shard() {
            let outcome = self.write(shard).state.evict(reason, chances > 0, self.stamp(), now);
            match outcome {
                Outcome::Removed(entry) => {
                    gone.push(entry);
                    return true;
                }
                Outcome::SecondChance => chances -= 1,
                // Another thread was first; its shard's place in the order is up to date now.
                Outcome::Nothing => {}
            }
        }
        false
    }

    fn oldest_shard(&self) -> Option<usize> {
        let fronts = self.fronts.iter().map(|front| front.load(Ordering::Acquire)).enumerate();
        let (shard, front) = fronts.min_by_key(|(_, front)| *front)?;
        (front != EMPTY).then_some(shard)
    }

    /// Counts and reports what left, outside every lock.
    fn settle(&self, gone: Vec<Gone>) {
        for entry in gone {
            self.evictions.0[entry.reason as usize].fetch_add(1, Ordering::Relaxed);
            let Some(listener) = &self.listener else { continue };
            let memory = WorkingMemory { working_memory: entry.text };
            let evicted = Evicted::new(entry.id.into(), entry.memory_type, memory, entry.reason);
            if catch_unwind(AssertUnwindSafe(|| listener(evicted))).is_err() {
                tracing::error!(component = "memory.in_memory", "the eviction listener panicked");
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
