//! The shards of a store behind their locks, and what it knows of them without.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use parking_lot::{Mutex, MutexGuard};

use super::maps::SpareMaps;
use super::shard::Shard;
use crate::support::UsageMeter;

/// A shard on separate cache lines.
#[repr(align(128))]
struct PaddedShard(Mutex<Shard>);

/// The facts about a shard that eviction reads without its lock. Those of all shards are close together.
struct Summary {
    /// The stamp of the least recently used entry.
    oldest: AtomicU64,
    next_expiry: AtomicU64,
}

pub(super) struct Shards {
    shards: Box<[PaddedShard]>,
    summaries: Box<[Summary]>,
    spare: SpareMaps,
    pub(super) entries: UsageMeter,
    pub(super) bytes: UsageMeter,
}

impl Shards {
    /// As many shards as suit `bytes`.
    pub(super) fn new(entries: UsageMeter, bytes: UsageMeter) -> Self {
        let spare = SpareMaps::default();
        // A shard keeps some memory free: few shards for small stores.
        let count = (bytes.max() >> 21).clamp(1, 16);
        let shard = |_| PaddedShard(Mutex::new(Shard::new(spare.clone())));
        let summary = |_| Summary { oldest: u64::MAX.into(), next_expiry: u64::MAX.into() };
        Self {
            shards: (0..count).map(shard).collect(),
            summaries: (0..count).map(summary).collect(),
            spare,
            entries,
            bytes,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn lock(&self, index: usize) -> LockedShard<'_> {
        let shard = self.shards[index].0.lock();
        let (entries, bytes) = (shard.len(), shard.bytes());
        let summary = &self.summaries[index];
        LockedShard { shards: self, summary, shard, entries, bytes }
    }

    /// When the first entry of a shard expires; `u64::MAX` if there is none.
    pub(super) fn next_expiry(&self, index: usize) -> u64 {
        self.summaries[index].next_expiry.load(Relaxed)
    }

    /// The shard that has expired entries, or else the least recently used entry.
    pub(super) fn next_to_evict(&self, now: u64) -> usize {
        let order = |summary: &Summary| match summary.next_expiry.load(Relaxed) <= now {
            true => 0,
            false => summary.oldest.load(SeqCst).saturating_add(1),
        };
        let oldest = self.summaries.iter().enumerate().min_by_key(|(_, summary)| order(summary));
        oldest.map_or(0, |(index, _)| index)
    }

    /// Returns the maps that are kept for reuse to the system.
    pub(super) fn release_spare(&self) {
        self.spare.clear();
    }
}

/// A locked shard. On drop it returns memory that became unused, and updates what is known of the shard without its lock.
pub(super) struct LockedShard<'a> {
    shards: &'a Shards,
    summary: &'a Summary,
    shard: MutexGuard<'a, Shard>,
    entries: usize,
    bytes: usize,
}

impl Deref for LockedShard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for LockedShard<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for LockedShard<'_> {
    fn drop(&mut self) {
        if self.shard.bytes() < self.bytes {
            self.shard.release_unused();
        }
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
        adjust(&self.shards.entries, self.entries, self.shard.len());
        adjust(&self.shards.bytes, self.bytes, self.shard.bytes());
    }
}
