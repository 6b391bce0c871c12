//! One shard: a linked hash map in the order of last use, and a queue in the order of expiry.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;

use super::cost;
use crate::memory::{EvictionReason, MemoryType};

/// A shard's `front` when it is empty.
pub(super) const EMPTY: u64 = u64::MAX;

/// The pieces of a map node besides key and value: two links.
const NODE: u64 = cost::allocation(size_of::<(Key, Entry)>() + 16);

/// Stale queue items looked at per write.
const TRIM: usize = 4;

/// Which entry. It carries its hash, so that a growing table never hashes an id again.
#[derive(Debug)]
pub(super) struct Key {
    hash: u64,
    /// When the entry expires, in nanoseconds of the store's clock. Together with the hash it tells an entry
    /// from an earlier one of the same conversation.
    pub expires: u64,
    pub id: Box<str>,
    pub memory_type: MemoryType,
}

impl Key {
    pub(super) fn new(hash: u64, memory_type: MemoryType, id: &str, expires: u64) -> Self {
        Self { hash, expires, id: id.into(), memory_type }
    }

    fn is(&self, memory_type: MemoryType, id: &str) -> bool {
        self.memory_type == memory_type && *self.id == *id
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.memory_type, &other.id)
    }
}

impl Eq for Key {}

/// Passes the hash that a [`Key`] carries through.
#[derive(Debug, Default)]
pub(super) struct Carried(u64);

impl Hasher for Carried {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key writes its hash and nothing else")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Entry {
    pub text: Arc<str>,
    /// As compact JSON: its size is known exactly.
    pub metadata: Option<Box<str>>,
    /// Microseconds since the Unix epoch.
    pub created_at: u64,
    pub last_update: u64,
    /// Its place in the order of use over all shards.
    stamp: u64,
    /// Whether it was read since it was stamped: it gets a second chance.
    referenced: AtomicBool,
}

impl Entry {
    pub(super) fn new(text: Arc<str>, metadata: Option<Box<str>>, now_us: u64) -> Self {
        Self {
            text,
            metadata,
            created_at: now_us,
            last_update: now_us,
            stamp: 0,
            referenced: AtomicBool::new(false),
        }
    }

    /// Marks it as used. A plain load first: a hot entry is marked already, and a write would make every
    /// reader wait for its cache line.
    pub(super) fn mark_used(&self) {
        if !self.referenced.load(Ordering::Relaxed) {
            self.referenced.store(true, Ordering::Relaxed);
        }
    }
}

/// Bytes of an entry besides its node, table and queue shares.
pub(super) fn payload(id: &str, text: &str, metadata: Option<&str>) -> u64 {
    cost::allocation(id.len())
        + cost::shared_text(text.len())
        + metadata.map_or(0, |m| cost::allocation(m.len()))
}

/// The least an entry costs besides its payload, alone in a store.
pub(super) const ALONE: u64 = NODE + 256;

/// An entry that left, to be dropped and reported outside the lock.
#[derive(Debug)]
pub(super) struct Gone {
    pub id: Box<str>,
    pub memory_type: MemoryType,
    pub text: Arc<str>,
    pub reason: EvictionReason,
}

impl Gone {
    fn new((key, entry): (Key, Entry), reason: EvictionReason) -> Self {
        Self { id: key.id, memory_type: key.memory_type, text: entry.text, reason }
    }
}

#[derive(Debug, Clone, Copy)]
struct Expiry {
    hash: u64,
    expires: u64,
}

/// What an eviction at the front came to.
pub(super) enum Evicted {
    /// It removed this entry.
    Removed(Gone),
    /// The entry had been used and went to the back.
    SecondChance,
    /// There was nothing.
    Nothing,
}

/// The state of one shard, behind its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    map: LinkedHashMap<Key, Entry, BuildHasherDefault<Carried>>,
    /// In the order of expiry, which is the order of storing. Items of entries that have left otherwise are
    /// stale and fall away in time.
    expiries: VecDeque<Expiry>,
    /// Map nodes allocated, in use or kept by the map for reuse.
    nodes: usize,
    payload: u64,
}

impl State {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes of everything here.
    pub(super) fn bytes(&self) -> u64 {
        let queue = cost::allocation(self.expiries.capacity() * size_of::<Expiry>());
        self.payload + self.nodes as u64 * NODE + cost::hash_table(self.map.capacity()) + queue
    }

    /// The stamp of the entry that is next to go.
    pub(super) fn front(&self) -> u64 {
        self.map.front().map_or(EMPTY, |(_, entry)| entry.stamp)
    }

    pub(super) fn get(&self, hash: u64, memory_type: MemoryType, id: &str) -> Option<(&Key, &Entry)> {
        self.map.raw_entry().from_hash(hash, |key| key.is(memory_type, id))
    }

    /// Puts an entry at the back; gives the one it replaces, which counts as expired if its time had passed.
    pub(super) fn put(&mut self, key: Key, mut entry: Entry, stamp: u64, now: u64) -> Option<Gone> {
        let replaced = self.remove(key.hash, key.memory_type, &key.id, EvictionReason::Replaced, now);
        entry.stamp = stamp;
        self.payload += payload(&key.id, &entry.text, entry.metadata.as_deref());
        self.expiries.push_back(Expiry { hash: key.hash, expires: key.expires });
        self.map.insert(key, entry);
        self.nodes = self.nodes.max(self.map.len());
        replaced
    }

    /// Replaces the text of an entry that has not expired and moves it to the back; gives the earlier text.
    pub(super) fn update(
        &mut self,
        (hash, memory_type, id): (u64, MemoryType, &str),
        text: Arc<str>,
        (stamp, now, now_us): (u64, u64, u64),
    ) -> Option<Arc<str>> {
        let found = self.map.raw_entry_mut().from_hash(hash, |key| key.is(memory_type, id));
        let RawEntryMut::Occupied(mut occupied) = found else { return None };
        if occupied.key().expires <= now {
            return None;
        }
        occupied.to_back();
        let entry = occupied.get_mut();
        self.payload += cost::shared_text(text.len());
        self.payload -= cost::shared_text(entry.text.len());
        entry.last_update = now_us;
        entry.stamp = stamp;
        Some(std::mem::replace(&mut entry.text, text))
    }

    /// Removes an entry; one whose time has passed goes as expired whatever the reason.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        memory_type: MemoryType,
        id: &str,
        reason: EvictionReason,
        now: u64,
    ) -> Option<Gone> {
        let found = self.map.raw_entry_mut().from_hash(hash, |key| key.is(memory_type, id));
        let RawEntryMut::Occupied(occupied) = found else { return None };
        let removed = occupied.remove_entry();
        Some(self.gone(removed, reason, now))
    }

    /// Removes what is next to go, unless it was used and `second_chance` lets it stay.
    pub(super) fn evict(
        &mut self,
        reason: EvictionReason,
        second_chance: bool,
        stamp: u64,
        now: u64,
    ) -> Evicted {
        let Some((key, entry)) = self.map.front() else { return Evicted::Nothing };
        if second_chance && key.expires > now && entry.referenced.load(Ordering::Relaxed) {
            if let Some(mut front) = self.map.front_entry() {
                front.to_back();
                let entry = front.get_mut();
                entry.referenced = AtomicBool::new(false);
                entry.stamp = stamp;
            }
            return Evicted::SecondChance;
        }
        match self.map.pop_front() {
            Some(removed) => Evicted::Removed(self.gone(removed, reason, now)),
            None => Evicted::Nothing,
        }
    }

    fn gone(&mut self, removed: (Key, Entry), reason: EvictionReason, now: u64) -> Gone {
        let (key, entry) = &removed;
        self.payload -= payload(&key.id, &entry.text, entry.metadata.as_deref());
        let expired = key.expires <= now;
        Gone::new(removed, if expired { EvictionReason::Expired } else { reason })
    }

    /// Removes entries whose time has passed, looking at no more than `most` queue items; whether it may have
    /// left some.
    pub(super) fn expire(&mut self, now: u64, most: usize, gone: &mut Vec<Gone>) -> bool {
        for _ in 0..most {
            let Some(due) = self.expiries.front().copied().filter(|due| due.expires <= now) else {
                return false;
            };
            self.expiries.pop_front();
            let found = self
                .map
                .raw_entry_mut()
                .from_hash(due.hash, |key| key.hash == due.hash && key.expires == due.expires);
            if let RawEntryMut::Occupied(occupied) = found {
                let removed = occupied.remove_entry();
                gone.push(self.gone(removed, EvictionReason::Expired, now));
            }
        }
        true
    }

    /// Lets stale queue items fall away and gives back memory no longer needed. Costs nothing most times; when
    /// it works, its cost was paid for by as many removals before.
    pub(super) fn tidy(&mut self) {
        let live = self.map.len();
        if live == 0 {
            *self = Self::default();
            return;
        }
        if self.expiries.len() > live + live / 2 + 16 {
            self.trim_queue();
        }
        if self.nodes > live + live / 2 + 32 {
            self.map.shrink_to_fit();
            self.nodes = live;
        }
        if self.expiries.capacity() > 4 * self.expiries.len() + 64 {
            self.expiries.shrink_to(2 * self.expiries.len());
        }
    }

    fn trim_queue(&mut self) {
        let Self { map, expiries, .. } = self;
        let is_live = |item: &Expiry| {
            map.raw_entry()
                .from_hash(item.hash, |key| key.hash == item.hash && key.expires == item.expires)
                .is_some()
        };
        for _ in 0..TRIM {
            match expiries.front() {
                Some(item) if !is_live(item) => expiries.pop_front(),
                _ => break,
            };
        }
        if expiries.len() > 2 * map.len() + 32 {
            expiries.retain(is_live);
        }
    }
}
