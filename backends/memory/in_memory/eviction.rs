//! The limits of a store: eviction across its shards.

use std::cmp::Reverse;

use parking_lot::MutexGuard;

use super::super::notifier::RemovedEntries;
use super::COMPONENT;
use super::shard::entry_bytes;
use super::shards::LockedShard;
use super::store::{MAX_BYTES, MAX_ENTRIES, Store};
use crate::memory::RemovalCause;
use crate::support::UsageMeter;
use crate::{Error, ErrorKind, Result, unsupported_limit_error};

impl Store {
    /// Rejects an entry that could not fit even alone.
    pub(super) fn check_size(&self, bytes: usize) -> Result<()> {
        let (entry, max) = (entry_bytes(bytes), self.shards.bytes.max());
        if entry <= max {
            return Ok(());
        }
        Err(too_large().with_context("entry_bytes", entry).with_context("max_bytes", max))
    }

    pub(super) fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let meter = match key {
            MAX_ENTRIES => &self.shards.entries,
            MAX_BYTES => &self.shards.bytes,
            _ => return Err(unsupported_limit_error(COMPONENT, key)),
        };
        let [entries, bytes] = if key == MAX_ENTRIES { [max, u64::MAX] } else { [u64::MAX, max] };
        check_limits(entries, bytes, ErrorKind::InvalidInput)?;
        meter.set_max(max);
        if !self.notifier.has_listener() {
            self.drop_most()?;
        }
        let mut removed = self.notifier.collect();
        let result = self.make_room(None, None, &mut removed);
        self.shards.release_spare();
        self.finish(self.stamp(), removed);
        result
    }

    /// Drops all entries but the most recently used ones at once, if a limit was lowered so far that few stay: evicting the
    /// others one by one would take long.
    fn drop_most(&self) -> Result<()> {
        let _evicting = self.evicting.lock();
        let (entries, bytes) = (&self.shards.entries, &self.shards.bytes);
        let few_stay = |meter: &UsageMeter| meter.max() < meter.used() / 8;
        let Some(cause) = self.excess().filter(|_| few_stay(entries) || few_stay(bytes)) else {
            return Ok(());
        };
        self.clean_up();
        let fits = |kept: &mut (u64, u64), size: u64| {
            *kept = (kept.0 + 1, kept.1 + size);
            kept.0 <= entries.max() && kept.1 <= bytes.max()
        };
        let now = self.stamp();
        let mut newest = Vec::new();
        for index in 0..self.shards.count() {
            let (shard, mut kept) = (self.shards.lock(index), (0, 0));
            newest.extend(shard.newest().take_while(|(_, size)| fits(&mut kept, *size)));
        }
        newest.sort_unstable_by_key(|(stamp, _)| Reverse(*stamp));
        let mut kept = (0, 0);
        let stay = newest.iter().take_while(|(_, size)| fits(&mut kept, *size));
        // If none stays, then still those that are written meanwhile.
        let oldest = stay.last().map_or(now, |(stamp, _)| *stamp);
        let mut dropped = Vec::new();
        for index in 0..self.shards.count() {
            dropped.push(self.shards.lock(index).keep_since(oldest, cause).map_err(no_memory)?);
        }
        // The system takes its time to take back gigabytes. If no thread can start, they are dropped here.
        let _ = std::thread::Builder::new().name("arshai-memory".into()).spawn(move || drop(dropped));
        Ok(())
    }

    fn excess(&self) -> Option<RemovalCause> {
        match (self.shards.entries.is_exceeded(), self.shards.bytes.is_exceeded()) {
            (true, _) => Some(RemovalCause::MaxEntries),
            (_, true) => Some(RemovalCause::MaxBytes),
            _ => None,
        }
    }

    /// Evicts if a limit is exceeded.
    pub(super) fn make_room(
        &self,
        evicting: Option<MutexGuard<'_, ()>>,
        written: Option<u64>,
        removed: &mut RemovedEntries,
    ) -> Result<()> {
        if self.excess().is_none() {
            return Ok(());
        }
        let _evicting = evicting.unwrap_or_else(|| self.evicting.lock());
        self.evict(written, removed)
    }

    /// Evicts until the limits hold: expired entries, then the least recently used ones, but not the one that was just
    /// `written`, identified by its stamp.
    fn evict(&self, mut written: Option<u64>, removed: &mut RemovedEntries) -> Result<()> {
        let now = self.now();
        while let Some(cause) = self.excess() {
            let mut shard = self.shards.lock(self.shards.next_to_evict(now));
            if shard.remove_expired(now, 1, removed) > 0 {
                continue;
            }
            if written.is_some_and(|written| written == shard.oldest()) {
                if self.shards.entries.used() == 1 {
                    // The limit was lowered after the entry's size was checked.
                    shard.remove_oldest(cause, removed);
                    return Err(too_large());
                }
                let stamp = self.stamp();
                shard.touch_oldest(stamp);
                written = Some(stamp);
                continue;
            }
            self.evict_batch(&mut shard, cause, written, removed);
        }
        Ok(())
    }

    /// Evicts the oldest entry of a shard and, in a large store, further ones as long as that is necessary: so few that
    /// they are among the oldest hundredth of the store.
    fn evict_batch(
        &self,
        shard: &mut LockedShard<'_>,
        cause: RemovalCause,
        written: Option<u64>,
        removed: &mut RemovedEntries,
    ) {
        let batch = (self.shards.entries.used() / (200 * self.shards.count() as u64)).clamp(1, 256);
        let (entries, bytes) = (shard.len(), shard.bytes());
        for _ in 0..batch {
            if written == Some(shard.oldest()) {
                return;
            }
            shard.remove_oldest(cause, removed);
            let enough =
                |meter: &UsageMeter, freed: usize| meter.used().saturating_sub(freed as u64) <= meter.max();
            if enough(&self.shards.entries, entries - shard.len())
                && enough(&self.shards.bytes, bytes - shard.bytes())
            {
                return;
            }
        }
    }
}

pub(super) fn check_limits(max_entries: u64, max_bytes: u64, kind: ErrorKind) -> Result<()> {
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

pub(super) fn no_memory(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Capacity, COMPONENT, "failed to map memory").with_source(cause)
}
