//! The shards of a store and the budget they share.

use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use hashlink::DefaultHashBuilder;
use parking_lot::{RwLock, RwLockWriteGuard};
use serde_json::{Map, Value};

use super::COMPONENT;
use super::budget::Budget;
use super::key::{Key, Wanted};
use super::shard::{Departures, Entry, Shard, first_entry_bytes, text_bytes};
use super::size;
use crate::memory::{
    CasOutcome, EvictionListener, MemoryStats, MemoryType, RemovalCause, RemovedEntry, WorkingMemory,
};
use crate::{Clock, Error, ErrorKind, Result};

/// Expired entries a write clears away on the side: more than it can add, so they never pile up.
const EXPIRED_PER_WRITE: usize = 4;
/// Expired entries cleared away before the background cleanup lets others at the shard.
const EXPIRED_PER_LOCK: usize = 64;
/// Entries evicted for one large one before others are let at the shard.
const EVICTED_PER_LOCK: usize = 64;

/// A shard on cache lines of its own, with the counters that its readers write. A hit touches the first line
/// only: counter, lock and map.
#[repr(C, align(128))]
#[derive(Default)]
struct Cell {
    hits: AtomicU64,
    shard: RwLock<Shard>,
    misses: AtomicU64,
    /// How many entries the shard holds, for whoever looks for one to evict.
    len: AtomicUsize,
}

/// What a write brings.
pub(super) struct Write<'a> {
    pub(super) memory_type: MemoryType,
    pub(super) conversation_id: &'a str,
    pub(super) memory: WorkingMemory,
    pub(super) kind: WriteKind,
    /// The text that must be there for the write to take place.
    pub(super) expected: Option<Option<WorkingMemory>>,
}

/// Whether a write may create an entry.
pub(super) enum WriteKind {
    Store { metadata: Option<Box<Map<String, Value>>> },
    Update,
}

pub(super) struct Store {
    cells: Box<[Cell]>,
    hasher: DefaultHashBuilder,
    budget: Budget,
    /// Where to look next for an entry to evict when the shard at hand has few.
    hand: AtomicUsize,
    ttl: u64,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How many shards serve a store of those limits: one while it is small, so that eviction follows the order
/// of use exactly; then one per 128 entries up to 64, enough for the cores of a large machine; beyond that one
/// per 512 or so. That keeps every vector of a shard small enough to be grown, or freed, in an instant: on
/// freeing 64 KiB or more glibc tidies up all that was freed before, which can take it milliseconds.
fn shard_count(max_entries: u64, max_bytes: u64) -> usize {
    let entries = max_entries.min(max_bytes / 512).max(1);
    let wanted = (entries / 128).clamp(1, 64).max((entries / 512).min(8192));
    1 << wanted.ilog2()
}

impl Store {
    pub(super) fn new(
        limits: (u64, u64),
        ttl: Duration,
        clock: Arc<dyn Clock>,
        listener: Option<EvictionListener>,
    ) -> Result<Self> {
        let (max_entries, max_bytes) = limits;
        let cells: Box<[Cell]> = (0..shard_count(max_entries, max_bytes)).map(|_| Cell::default()).collect();
        let base = size::chunk(size_of_val(&*cells)) + size_of::<Self>();
        let store = Self {
            cells,
            hasher: DefaultHashBuilder::default(),
            budget: Budget::new(base as u64, max_entries, max_bytes),
            hand: AtomicUsize::new(0),
            ttl: nanos(ttl),
            clock,
            listener,
        };
        store.check_limits(Some(max_entries), Some(max_bytes), ErrorKind::Config)?;
        Ok(store)
    }

    /// What the store takes when it is empty.
    fn base_bytes(&self) -> u64 {
        (size::chunk(size_of_val(&*self.cells)) + size_of::<Self>()) as u64
    }

    fn check_limits(&self, max_entries: Option<u64>, max_bytes: Option<u64>, kind: ErrorKind) -> Result<()> {
        if max_entries == Some(0) {
            let message = "max_entries is 0; a store needs room for at least one entry";
            return Err(Error::new(kind, COMPONENT, message));
        }
        let least = self.base_bytes() + 1024;
        if max_bytes.is_some_and(|bytes| bytes < least) {
            let message = format!("the memory budget is too small; this store needs at least {least} bytes");
            return Err(Error::new(kind, COMPONENT, message));
        }
        Ok(())
    }

    fn hash(&self, memory_type: MemoryType, id: &str) -> u64 {
        self.hasher.hash_one((memory_type as u8, id))
    }

    /// The shard of a hash, by bits that its table uses for nothing.
    fn cell_of(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.cells.len() - 1)
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    fn wall_micros(&self) -> u64 {
        let since = self.clock.system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Reads an entry under a shared lock, by `take`, and counts the hit or miss.
    fn read<T>(&self, memory_type: MemoryType, id: &str, take: impl FnOnce(&Entry) -> T) -> Option<T> {
        let now = self.now();
        let wanted = Wanted { hash: self.hash(memory_type, id), memory_type, id };
        let cell = &self.cells[self.cell_of(wanted.hash)];
        let found = cell.shard.read().get(wanted, now).map(take);
        let counter = if found.is_some() { &cell.hits } else { &cell.misses };
        counter.fetch_add(1, Relaxed);
        found
    }

    pub(super) fn get(&self, memory_type: MemoryType, id: &str) -> Option<WorkingMemory> {
        self.read(memory_type, id, |entry| entry.memory.clone())
    }

    pub(super) fn metadata(&self, memory_type: MemoryType, id: &str) -> Option<Map<String, Value>> {
        self.read(memory_type, id, |entry| entry.metadata.as_deref().cloned().unwrap_or_default())
    }

    /// Stores or updates; `false` says that there was nothing to update.
    pub(super) fn write(&self, write: Write<'_>) -> Result<CasOutcome> {
        let Write { memory_type, conversation_id: id, memory, kind, expected } = write;
        let wanted = Wanted { hash: self.hash(memory_type, id), memory_type, id };
        let at = self.cell_of(wanted.hash);
        let (now, wall) = (self.now(), self.wall_micros());
        let expires = now.saturating_add(self.ttl);
        let brought = text_bytes(&memory)
            + match &kind {
                WriteKind::Store { metadata } => metadata.as_deref().map_or(0, size::metadata),
                WriteKind::Update => 0,
            };
        let update = matches!(kind, WriteKind::Update);
        self.check_size(brought + Key::heap_bytes(id.len()))?;

        let mut round = Round { gone: Departures::default(), now, desperate: false };
        let mut fruitless = 0;
        loop {
            let mut shard = self.cells[at].shard.write();
            shard.expire(now, EXPIRED_PER_WRITE, &mut round.gone);
            let held = shard.freshen(wanted, now, &mut round.gone);
            let current = shard.get(wanted, now).map(|entry| &entry.memory);
            let conflict = expected.as_ref().is_some_and(|expected| expected.as_ref() != current);
            if conflict || (held.is_none() && update) {
                self.settle(at, &mut shard);
                drop(shard);
                self.see_off(&mut round.gone);
                return Ok(if held.is_some() { CasOutcome::Conflict } else { CasOutcome::Missing });
            }
            let need = |shard: &Shard| match held {
                Some(held) => (0, brought.saturating_sub(if update { held.text } else { held.all })),
                None => (1, brought + Key::heap_bytes(id.len()) + shard.growth()),
            };
            let reserved = self.reserve(at, &mut shard, need, usize::from(held.is_some()), &mut round);
            let Err(reason) = reserved else {
                match (kind, held) {
                    (WriteKind::Update, _) => shard.rewrite(wanted, memory, wall, &mut round.gone),
                    (WriteKind::Store { metadata }, held) => {
                        let entry = Entry { memory, metadata, expires, created: wall, updated: wall };
                        match held {
                            Some(_) => shard.replace(wanted, entry, &mut round.gone),
                            None => shard.insert(Key::new(wanted), entry),
                        }
                    }
                }
                self.settle(at, &mut shard);
                drop(shard);
                self.see_off(&mut round.gone);
                return Ok(CasOutcome::Updated);
            };
            self.settle(at, &mut shard);
            drop(shard);
            round.desperate = !self.evict_elsewhere(at, reason, &mut round);
            if round.gone.is_empty() {
                fruitless += 1;
                self.check_patience(fruitless)?;
            }
            self.see_off(&mut round.gone);
        }
    }

    /// Refuses what could not fit even if it were alone.
    fn check_size(&self, heap_bytes: usize) -> Result<()> {
        let alone = self.base_bytes() + (first_entry_bytes() + heap_bytes) as u64;
        let budget = self.budget.max_bytes();
        if alone <= budget {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, COMPONENT, "the entry is larger than the whole memory budget")
            .with_context("entry_bytes", heap_bytes)
            .with_context("budget_bytes", budget))
    }

    /// Gives up when room is wanted and, again and again, there is nothing to evict: every other thread holds
    /// room that it has reserved but not filled yet.
    fn check_patience(&self, fruitless: usize) -> Result<()> {
        if fruitless < 10_000 {
            std::thread::yield_now();
            return Ok(());
        }
        let message = "no room came free: all of it is reserved by operations that run at the same time";
        Err(Error::new(ErrorKind::Capacity, COMPONENT, message))
    }

    /// Reserves the room that `need` asks for, evicting from this shard as long as it has its fair share of
    /// the entries.
    fn reserve(
        &self,
        at: usize,
        shard: &mut RwLockWriteGuard<'_, Shard>,
        need: impl Fn(&Shard) -> (usize, usize),
        spared: usize,
        round: &mut Round,
    ) -> Result<(), RemovalCause> {
        for evicted in 0.. {
            self.settle(at, shard);
            let (entries, bytes) = need(shard);
            let Err(reason) = self.budget.reserve(entries as u64, bytes as u64) else {
                shard.accounted_entries += entries;
                shard.accounted_bytes += bytes;
                break;
            };
            let fair = (shard.len() * self.cells.len()) as u64 >= self.budget.entries();
            let may = evicted < EVICTED_PER_LOCK && (fair || round.desperate);
            if !may || !shard.evict(reason, spared, round.now, &mut round.gone) {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Evicts one entry from another shard, from one that has its fair share of them if it can.
    fn evict_elsewhere(&self, at: usize, reason: RemovalCause, round: &mut Round) -> bool {
        let cells = self.cells.len();
        let start = self.hand.fetch_add(1, Relaxed);
        for fair in [true, false] {
            let share = if fair { self.budget.entries() } else { 0 };
            for other in (0..cells).map(|offset| start.wrapping_add(offset) & (cells - 1)) {
                let len = self.cells[other].len.load(Relaxed);
                if other == at || len == 0 || ((len * cells) as u64) < share {
                    continue;
                }
                let mut shard = self.cells[other].shard.write();
                let evicted = shard.evict(reason, 0, round.now, &mut round.gone);
                self.settle(other, &mut shard);
                if evicted {
                    return true;
                }
            }
        }
        false
    }

    /// Gives back to the budget what the shard no longer uses.
    fn settle(&self, at: usize, shard: &mut RwLockWriteGuard<'_, Shard>) {
        let (entries, bytes) = (shard.len(), shard.bytes());
        debug_assert!(bytes <= shard.accounted_bytes, "room is reserved before it is used");
        self.budget
            .release((shard.accounted_entries - entries) as u64, (shard.accounted_bytes - bytes) as u64);
        (shard.accounted_entries, shard.accounted_bytes) = (entries, bytes);
        self.cells[at].len.store(entries, Relaxed);
    }

    /// Tells the listener of entries that left, and drops them. Called without any lock.
    fn see_off(&self, gone: &mut Departures) {
        for departure in gone.drain() {
            let Some(listener) = &self.listener else { continue };
            let key = &departure.key;
            let evicted = RemovedEntry::new(
                key.conversation_id(),
                key.memory_type(),
                departure.memory,
                departure.reason,
            );
            if catch_unwind(AssertUnwindSafe(|| listener(evicted))).is_err() {
                tracing::error!("the eviction listener panicked; the store is unharmed");
            }
        }
    }

    pub(super) fn delete(&self, memory_type: MemoryType, id: &str) {
        let wanted = Wanted { hash: self.hash(memory_type, id), memory_type, id };
        let at = self.cell_of(wanted.hash);
        let mut gone = Departures::default();
        let mut shard = self.cells[at].shard.write();
        shard.remove(wanted, self.now(), &mut gone);
        self.settle(at, &mut shard);
        drop(shard);
        self.see_off(&mut gone);
    }

    /// Clears expired entries away, letting others at each shard after every few.
    pub(super) fn clean_up(&self) {
        for at in 0..self.cells.len() {
            while self.clean_up_some(at) {}
        }
        nudge_allocator();
    }

    /// The same from a task, letting other tasks run as well.
    pub(super) async fn clean_up_politely(&self) {
        for at in 0..self.cells.len() {
            while self.clean_up_some(at) {
                tokio::task::yield_now().await;
            }
        }
        nudge_allocator();
    }

    /// Clears a few expired entries of one shard away and says whether there may be more.
    fn clean_up_some(&self, at: usize) -> bool {
        let mut gone = Departures::default();
        let mut shard = self.cells[at].shard.write();
        let expired = shard.expire(self.now(), EXPIRED_PER_LOCK, &mut gone);
        self.settle(at, &mut shard);
        drop(shard);
        self.see_off(&mut gone);
        expired == EXPIRED_PER_LOCK
    }

    /// Removes every entry, letting others at each shard in between.
    pub(super) fn clear(&self) {
        for at in 0..self.cells.len() {
            let mut gone = Departures::default();
            let mut shard = self.cells[at].shard.write();
            shard.clear(&mut gone);
            self.settle(at, &mut shard);
            drop(shard);
            self.see_off(&mut gone);
        }
        nudge_allocator();
    }

    fn set_limits(&self, max_entries: Option<u64>, max_bytes: Option<u64>) -> Result<()> {
        self.check_limits(max_entries, max_bytes, ErrorKind::InvalidInput)?;
        self.budget.set_limits(max_entries, max_bytes);
        let mut round = Round { gone: Departures::default(), now: self.now(), desperate: false };
        while let Some(reason) = self.budget.excess() {
            if !self.evict_elsewhere(usize::MAX, reason, &mut round) {
                std::thread::yield_now();
            }
            self.see_off(&mut round.gone);
        }
        Ok(())
    }

    pub(super) fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        match key {
            "memory.max_entries" => self.set_limits(Some(max), None),
            "memory.max_memory_mb" => self.set_limits(None, Some(max)),
            _ => Err(crate::unsupported_limit_error("memory.in_memory", key)),
        }
    }

    pub(super) fn limits(&self) -> Vec<crate::LimitUsage> {
        self.budget.limits().into()
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let bounds = self.budget.limits();
        let mut stats = MemoryStats::default();
        stats.entries = bounds[0].used;
        stats.bytes = bounds[1].used;
        for cell in &self.cells {
            stats.hits += cell.hits.load(Relaxed);
            stats.misses += cell.misses.load(Relaxed);
            stats.removals += cell.shard.read().counts;
        }
        stats
    }
}

/// Lets glibc return what was freed to the system, which it considers only when something of 64 KiB or more
/// is freed.
fn nudge_allocator() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(96 * 1024)));
}

/// What an operation carries from one attempt to the next.
struct Round {
    gone: Departures,
    now: u64,
    /// Other shards have nothing left, so this one evicts whatever its share.
    desperate: bool,
}
