//! One shard of a store: a linked hash map in the order of use, the order of expiry beside it, and the exact
//! count of the bytes that both take.

use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;
use serde_json::{Map, Value};

use super::expiry::ExpiryList;
use super::key::{Carried, Key, Wanted};
use super::size;
use crate::memory::{RemovalCause, RemovalCounts, WorkingMemory};

/// A node of the map on the heap: key, entry and two links.
const NODE: usize = size::chunk(size_of::<(Key, Entry)>() + 2 * size_of::<usize>());

/// Unused memory a shard keeps before it gives any back.
const SPARE: usize = 32;

/// What is kept of one conversation; what a hit reads stands first.
#[repr(C)]
pub(super) struct Entry {
    pub(super) memory: WorkingMemory,
    /// Monotonic nanoseconds.
    pub(super) expires: u64,
    pub(super) metadata: Option<Box<Map<String, Value>>>,
    /// Microseconds since the Unix epoch, as are those of `updated`.
    pub(super) created: u64,
    pub(super) updated: u64,
}

impl Entry {
    /// What the entry takes besides its node.
    fn heap_bytes(&self) -> usize {
        text_bytes(&self.memory) + self.metadata.as_deref().map_or(0, size::metadata)
    }
}

/// What the entry that a write replaces takes besides its node.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) text: usize,
    pub(super) all: usize,
}

/// What a text takes.
pub(super) fn text_bytes(memory: &WorkingMemory) -> usize {
    size::shared_text(memory.working_memory.len())
}

/// The least that a shard with nothing but one entry takes, apart from what the entry has on the heap: its
/// node, the list's guard node, the smallest table and the smallest expiry list.
pub(super) fn first_entry_bytes() -> usize {
    Shard::default().growth()
}

/// An entry that has left its shard. It is dropped, and the listener told, once no lock is held.
pub(super) struct Departure {
    pub(super) key: Key,
    pub(super) memory: WorkingMemory,
    pub(super) reason: RemovalCause,
    /// Only kept to be dropped outside the lock.
    _metadata: Option<Box<Map<String, Value>>>,
}

/// Departures of one operation; nearly always none or one, for which no vector is needed.
#[derive(Default)]
pub(super) struct Departures {
    first: Option<Departure>,
    more: Vec<Departure>,
}

impl Departures {
    fn push(&mut self, departure: Departure) {
        if self.first.is_none() {
            self.first = Some(departure);
            return;
        }
        if self.more.capacity() == 0 {
            // Room for many at once is more than is needed, on purpose: glibc puts off tidying up after small
            // frees until someone asks for a kilobyte. Asked for now, it tidies up after a few; put off until
            // some table grows, it would tidy up after all that ever expired, and take 20 ms to do it.
            self.more.reserve(32);
        }
        self.more.push(departure);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Departure> {
        self.first.take().into_iter().chain(self.more.drain(..))
    }
}

/// The map stands first, on the cache line of the shard's lock.
#[repr(C)]
#[derive(Default)]
pub(super) struct Shard {
    map: LinkedHashMap<Key, Entry, Carried>,
    expiry: ExpiryList,
    /// What the entries have on the heap: texts, metadata, long ids.
    payload: usize,
    /// Nodes the map has allocated: the entries', unused ones, and its guard.
    nodes: usize,
    /// The room its table was last allocated for.
    table: usize,
    /// What the budget believes this shard takes.
    pub(super) accounted_bytes: usize,
    /// Entries the budget believes are here.
    pub(super) accounted_entries: usize,
    pub(super) counts: RemovalCounts,
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// What the shard takes on the heap, to the byte.
    pub(super) fn bytes(&self) -> usize {
        self.payload + self.nodes * NODE + size::table(self.table) + self.expiry.bytes()
    }

    /// What one more entry would add to that besides its own heap bytes.
    pub(super) fn growth(&self) -> usize {
        let node = match self.nodes {
            0 => 2 * NODE,
            nodes if nodes > self.map.len() + 1 => 0,
            _ => NODE,
        };
        let table = if self.map.capacity() > self.map.len() {
            0
        } else {
            size::table(self.table + 1) - size::table(self.table)
        };
        node + table + self.expiry.growth()
    }

    /// The live entry of that key. A reader's lock is enough.
    pub(super) fn get(&self, wanted: Wanted<'_>, now: u64) -> Option<&Entry> {
        let (key, entry) = self.map.raw_entry().from_hash(wanted.hash, |key| wanted.is(key))?;
        if entry.expires <= now {
            return None;
        }
        key.touch();
        Some(entry)
    }

    /// Makes the live entry of that key the last to be evicted and gives what it has on the heap. One that
    /// has expired is removed.
    pub(super) fn freshen(&mut self, wanted: Wanted<'_>, now: u64, gone: &mut Departures) -> Option<Held> {
        let RawEntryMut::Occupied(mut found) =
            self.map.raw_entry_mut().from_hash(wanted.hash, |key| wanted.is(key))
        else {
            return None;
        };
        if found.get().expires <= now {
            let (key, entry) = found.remove_entry();
            self.departed(key, entry, RemovalCause::Expired, gone);
            return None;
        }
        found.key_mut().untouch();
        found.to_back();
        let entry = found.get();
        Some(Held { text: text_bytes(&entry.memory), all: entry.heap_bytes() })
    }

    /// Adds an entry that was not there.
    pub(super) fn insert(&mut self, mut key: Key, entry: Entry) {
        key.untouch();
        key.set_slot(self.expiry.push(key.hash(), entry.expires));
        self.payload += entry.heap_bytes() + Key::heap_bytes(key.id().len());
        self.map.insert(key, entry);
        self.nodes = self.nodes.max(self.map.len() + 1);
        self.table = self.table.max(self.map.capacity());
    }

    /// Puts another entry in the place of a live one. Its time to live counts anew.
    pub(super) fn replace(&mut self, wanted: Wanted<'_>, entry: Entry, gone: &mut Departures) {
        let Some((key, held)) = find_mut(&mut self.map, wanted) else { return };
        self.expiry.remove(key.slot());
        key.set_slot(self.expiry.push(wanted.hash, entry.expires));
        self.payload += entry.heap_bytes();
        let old = std::mem::replace(held, entry);
        self.payload -= old.heap_bytes();
        self.replaced(wanted, old.memory, old.metadata, gone);
    }

    /// Puts another text in the place of a live entry's; all else stays.
    pub(super) fn rewrite(
        &mut self,
        wanted: Wanted<'_>,
        memory: WorkingMemory,
        updated: u64,
        gone: &mut Departures,
    ) {
        let Some((_, held)) = find_mut(&mut self.map, wanted) else { return };
        held.updated = updated;
        self.payload += text_bytes(&memory);
        let old = std::mem::replace(&mut held.memory, memory);
        self.payload -= text_bytes(&old);
        self.replaced(wanted, old, None, gone);
    }

    fn replaced(
        &mut self,
        wanted: Wanted<'_>,
        memory: WorkingMemory,
        _metadata: Option<Box<Map<String, Value>>>,
        gone: &mut Departures,
    ) {
        self.counts.replaced += 1;
        let key = Key::new(wanted);
        gone.push(Departure { key, memory, reason: RemovalCause::Replaced, _metadata });
    }

    /// Removes the entry of that key.
    pub(super) fn remove(&mut self, wanted: Wanted<'_>, now: u64, gone: &mut Departures) {
        let RawEntryMut::Occupied(found) =
            self.map.raw_entry_mut().from_hash(wanted.hash, |key| wanted.is(key))
        else {
            return;
        };
        let (key, entry) = found.remove_entry();
        let live = entry.expires > now;
        let reason = if live { RemovalCause::Deleted } else { RemovalCause::Expired };
        self.departed(key, entry, reason, gone);
        self.give_back();
    }

    /// Removes every entry.
    pub(super) fn clear(&mut self, gone: &mut Departures) {
        while let Some(oldest) = self.map.front_entry() {
            let (key, entry) = oldest.remove_entry();
            self.departed(key, entry, RemovalCause::Deleted, gone);
        }
        self.give_back();
    }

    /// Removes up to `most` expired entries and says how many it removed.
    pub(super) fn expire(&mut self, now: u64, most: usize, gone: &mut Departures) -> usize {
        let mut removed = 0;
        while removed < most && self.expire_one(now, gone) {
            removed += 1;
        }
        if removed > 0 {
            self.give_back();
        }
        removed
    }

    fn expire_one(&mut self, now: u64, gone: &mut Departures) -> bool {
        let Some(next) = self.expiry.first().filter(|next| next.expires <= now) else { return false };
        let found = self
            .map
            .raw_entry_mut()
            .from_hash(next.hash, |key| key.hash() == next.hash && key.slot() == next.slot);
        let RawEntryMut::Occupied(found) = found else {
            unreachable!("the expiry list holds exactly the entries of the map");
        };
        let (key, entry) = found.remove_entry();
        self.departed(key, entry, RemovalCause::Expired, gone);
        true
    }

    /// Removes one entry to make room, sparing the last `spared`: an expired one if there is one, else the
    /// least recently used one. An entry read since it was last looked at gets a second chance. With none
    /// left to remove, unused memory is given back. Says whether anything was gained.
    pub(super) fn evict(
        &mut self,
        reason: RemovalCause,
        spared: usize,
        now: u64,
        gone: &mut Departures,
    ) -> bool {
        /// Second chances given at most before one entry goes regardless, so that no store waits long.
        const CHANCES: usize = 256;
        if self.expire_one(now, gone) {
            self.give_back();
            return true;
        }
        if self.map.len() <= spared {
            let before = self.bytes();
            self.compact();
            return self.bytes() < before;
        }
        for chance in 0.. {
            let Some(mut oldest) = self.map.front_entry() else { break };
            if oldest.key_mut().untouch() && chance < CHANCES {
                oldest.to_back();
                continue;
            }
            let (key, entry) = oldest.remove_entry();
            self.departed(key, entry, reason, gone);
            break;
        }
        self.give_back();
        true
    }

    /// Settles the accounts for an entry that was taken out of the map.
    fn departed(&mut self, key: Key, entry: Entry, reason: RemovalCause, gone: &mut Departures) {
        self.expiry.remove(key.slot());
        self.payload -= entry.heap_bytes() + Key::heap_bytes(key.id().len());
        self.counts.add(reason);
        gone.push(Departure { key, memory: entry.memory, reason, _metadata: entry.metadata });
    }

    /// Gives memory back once more than half of it is unused. What that costs was paid for by the removals
    /// that led to it.
    fn give_back(&mut self) {
        let len = self.map.len();
        if len == 0 {
            self.map = LinkedHashMap::default();
            self.expiry = ExpiryList::default();
            (self.nodes, self.table) = (0, 0);
        } else if self.nodes > 2 * len + SPARE {
            self.compact();
        }
    }

    fn compact(&mut self) {
        if self.map.is_empty() {
            return;
        }
        self.map.shrink_to_fit();
        self.nodes = self.map.len() + 1;
        self.table = self.map.capacity();
        let moved = self.expiry.compact();
        for key in self.map.keys() {
            key.set_slot(moved[key.slot() as usize]);
        }
    }
}

fn find_mut<'a>(
    map: &'a mut LinkedHashMap<Key, Entry, Carried>,
    wanted: Wanted<'_>,
) -> Option<(&'a mut Key, &'a mut Entry)> {
    match map.raw_entry_mut().from_hash(wanted.hash, |key| wanted.is(key)) {
        RawEntryMut::Occupied(found) => Some(found.into_key_value()),
        RawEntryMut::Vacant(_) => None,
    }
}
