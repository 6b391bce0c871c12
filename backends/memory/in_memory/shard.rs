//! One shard of a store: an index in the order of use over entries on pages, and the order of expiry.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::{RawEntryMut, RawOccupiedEntryMut};

use super::super::notifier::RemovedEntries;
use super::pages::{Link, NONE, Number, PAGE_BYTES, Pages, SpareMaps};
use crate::memory::{MemoryStats, MemoryType, RemovalCause, RemovedEntry, WorkingMemory};

/// Bytes of the index per entry: a node on the heap and its share of the hash table.
const INDEX_BYTES: usize = 104;

/// Unused index nodes that do not count as sparse.
const MIN_UNUSED_NODES: usize = 32;

/// A borrowed key.
#[derive(Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub(super) hash: u64,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

/// The key of an index node.
#[derive(PartialEq, Eq)]
struct IndexKey {
    hash: u64,
    /// The first page of the entry's chain, which holds the id, the metadata as JSON and the text.
    first: u32,
    id_bytes: u16,
    memory_type: MemoryType,
}

/// The value of an index node.
struct IndexValue {
    /// The number of the last use.
    stamp: u64,
    /// Also on the first page, for the order of expiry: a read should not touch more memory than necessary.
    expires: u64,
    metadata_bytes: usize,
    text_bytes: usize,
}

/// An entry and where its parts are in its chain. Valid while the shard stays locked and unchanged.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    hash: u64,
    first: u32,
    id_bytes: usize,
    memory_type: MemoryType,
    pub(super) metadata_bytes: usize,
    text_bytes: usize,
}

impl Entry {
    fn new(key: &IndexKey, value: &IndexValue) -> Self {
        Self {
            hash: key.hash,
            first: key.first,
            id_bytes: key.id_bytes as usize,
            memory_type: key.memory_type,
            metadata_bytes: value.metadata_bytes,
            text_bytes: value.text_bytes,
        }
    }

    fn text_offset(&self) -> usize {
        self.id_bytes + self.metadata_bytes
    }

    fn chain_bytes(&self) -> usize {
        self.text_offset() + self.text_bytes
    }
}

impl Hash for IndexKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Passes on a hash that was computed before.
#[derive(Default)]
struct PrecomputedHasher(u64);

impl Hasher for PrecomputedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("index keys write one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Index = LinkedHashMap<IndexKey, IndexValue, BuildHasherDefault<PrecomputedHasher>>;
type IndexEntry<'a> = RawOccupiedEntryMut<'a, IndexKey, IndexValue, BuildHasherDefault<PrecomputedHasher>>;

pub(super) struct Shard {
    /// All entries in the order of use, the least recently used first.
    index: Index,
    /// Index nodes allocated since it was last shrunk.
    nodes: usize,
    pages: Pages,
    /// First pages of the entries that expire first and last.
    first_to_expire: u32,
    last_to_expire: u32,
    /// When the first entry expires; `u64::MAX` if there is none.
    next_expiry: u64,
    /// Hits, misses and removals.
    pub(super) stats: MemoryStats,
}

/// Bytes that an entry counts: its pages and its share of the index.
pub(super) fn entry_bytes(chain_bytes: usize) -> u64 {
    (Pages::needed(chain_bytes) * PAGE_BYTES + INDEX_BYTES) as u64
}

impl Shard {
    pub(super) fn new(spare: Arc<SpareMaps>) -> Self {
        Self {
            index: LinkedHashMap::default(),
            nodes: 0,
            pages: Pages::new(spare),
            first_to_expire: NONE,
            last_to_expire: NONE,
            next_expiry: u64::MAX,
            stats: MemoryStats::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.used() * PAGE_BYTES + self.len() * INDEX_BYTES
    }

    /// The stamp of the least recently used entry; `u64::MAX` if there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.index.front().map_or(u64::MAX, |(_, value)| value.stamp)
    }

    /// The stamp of the most recently used entry; 0 if there is none.
    pub(super) fn newest(&self) -> u64 {
        self.index.back().map_or(0, |(_, value)| value.stamp)
    }

    pub(super) fn next_expiry(&self) -> u64 {
        self.next_expiry
    }

    /// Marks an entry as used and returns it. An expired entry is removed.
    pub(super) fn lookup(
        &mut self,
        key: KeyRef<'_>,
        now: u64,
        stamps: &AtomicU64,
        removed: &mut RemovedEntries,
    ) -> Option<Entry> {
        let pages = &self.pages;
        let found = self.index.raw_entry_mut().from_hash(key.hash, |other| {
            other.hash == key.hash
                && other.id_bytes as usize == key.id.len()
                && other.memory_type == key.memory_type
                && pages.has_bytes(other.first, 0, key.id.as_bytes())
        });
        let RawEntryMut::Occupied(mut found) = found else { return None };
        let entry = Entry::new(found.key(), found.get());
        if found.get().expires <= now {
            self.remove(entry, RemovalCause::Expired, removed);
            return None;
        }
        found.get_mut().stamp = stamps.fetch_add(1, Relaxed);
        found.to_back();
        Some(entry)
    }

    pub(super) fn text(&self, entry: Entry) -> Vec<u8> {
        self.pages.copy(entry.first, entry.text_offset(), entry.text_bytes)
    }

    pub(super) fn has_text(&self, entry: Entry, text: &str) -> bool {
        entry.text_bytes == text.len()
            && self.pages.has_bytes(entry.first, entry.text_offset(), text.as_bytes())
    }

    pub(super) fn metadata(&self, entry: Entry) -> Vec<u8> {
        self.pages.copy(entry.first, entry.id_bytes, entry.metadata_bytes)
    }

    /// Adds an entry that does not exist.
    ///
    /// # Errors
    /// When the system has no memory left; nothing has changed then.
    pub(super) fn insert(
        &mut self,
        key: KeyRef<'_>,
        expires: u64,
        (metadata, text): (&[u8], &str),
        stamps: &AtomicU64,
    ) -> io::Result<()> {
        let pages = Pages::needed(key.id.len() + metadata.len() + text.len());
        self.pages.reserve(pages)?;
        let first = self.pages.allocate(pages);
        self.pages.write(first, 0, key.id.as_bytes());
        self.pages.write(first, key.id.len(), metadata);
        self.pages.write(first, key.id.len() + metadata.len(), text.as_bytes());
        self.pages.set_number(Number::Hash, first, key.hash);
        self.append_to_expiry(first, expires);
        let stamp = stamps.fetch_add(1, Relaxed);
        let value = IndexValue { stamp, expires, metadata_bytes: metadata.len(), text_bytes: text.len() };
        let id_bytes = key.id.len() as u16;
        self.index.insert(IndexKey { hash: key.hash, first, id_bytes, memory_type: key.memory_type }, value);
        self.nodes = self.nodes.max(self.index.len());
        Ok(())
    }

    /// Replaces the text of an entry that was just looked up, and with `store` its metadata and the time it expires.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn replace(
        &mut self,
        old: Entry,
        store: Option<(u64, &[u8])>,
        text: &str,
        removed: &mut RemovedEntries,
    ) -> io::Result<()> {
        let metadata_bytes = store.map_or(old.metadata_bytes, |(_, metadata)| metadata.len());
        let new = Entry { metadata_bytes, text_bytes: text.len(), ..old };
        let [old_pages, new_pages] = [old, new].map(|entry| Pages::needed(entry.chain_bytes()));
        self.pages.reserve(new_pages.saturating_sub(old_pages))?;
        self.report(old, RemovalCause::Replaced, removed);
        self.pages.resize(old.first, old_pages, new_pages);
        if let Some((expires, metadata)) = store {
            self.pages.write(old.first, old.id_bytes, metadata);
            self.remove_from_expiry(old.first);
            self.append_to_expiry(old.first, expires);
        }
        self.pages.write(old.first, new.text_offset(), text.as_bytes());
        if let Some(mut newest) = self.index.back_entry() {
            // The lookup moved it to the back.
            let value = newest.get_mut();
            (value.metadata_bytes, value.text_bytes) = (new.metadata_bytes, new.text_bytes);
            value.expires = store.map_or(value.expires, |(expires, _)| expires);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, entry: Entry, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.report(entry, cause, removed);
        if let Some(found) = find(&mut self.index, entry.hash, entry.first) {
            found.remove();
        }
        self.remove_from_expiry(entry.first);
        self.pages.release(entry.first);
    }

    /// Removes the least recently used entry.
    pub(super) fn remove_oldest(&mut self, cause: RemovalCause, removed: &mut RemovedEntries) {
        if let Some((key, value)) = self.index.front() {
            self.remove(Entry::new(key, value), cause, removed);
        }
    }

    /// Marks the least recently used entry as used and returns its stamp.
    pub(super) fn touch_oldest(&mut self, stamps: &AtomicU64) -> u64 {
        let stamp = stamps.fetch_add(1, Relaxed);
        if let Some(mut oldest) = self.index.front_entry() {
            oldest.get_mut().stamp = stamp;
            oldest.to_back();
        }
        stamp
    }

    /// Removes up to `max` expired entries and returns how many it removed.
    pub(super) fn remove_expired(&mut self, now: u64, max: usize, removed: &mut RemovedEntries) -> usize {
        let mut count = 0;
        while count < max && self.next_expiry <= now {
            let first = self.first_to_expire;
            let hash = self.pages.number(Number::Hash, first);
            let entry = find(&mut self.index, hash, first).map(|found| Entry::new(found.key(), found.get()));
            self.remove(
                entry.expect("entries in the order of expiry are in the index"),
                RemovalCause::Expired,
                removed,
            );
            count += 1;
        }
        count
    }

    /// Removes all entries without reporting them.
    pub(super) fn clear(&mut self) {
        self.stats.removals.deleted += self.index.len() as u64;
        (self.first_to_expire, self.last_to_expire, self.next_expiry) = (NONE, NONE, u64::MAX);
        self.release_unused();
    }

    /// Returns unused memory to the system.
    pub(super) fn release_unused(&mut self) {
        if self.first_to_expire == NONE {
            (self.index, self.nodes) = (LinkedHashMap::default(), 0);
            return self.pages.clear();
        }
        if self.nodes > 2 * self.index.len() + MIN_UNUSED_NODES {
            self.index.shrink_to_fit();
            self.nodes = self.index.len();
        }
        let Some(compaction) = self.pages.compaction() else { return };
        for (from, to) in compaction.moves {
            if self.pages.move_page(from, to) {
                self.relink_entry(from, to);
            }
        }
        self.pages.truncate(compaction.keep_maps);
    }

    /// Updates everything that refers to an entry whose first page moved.
    fn relink_entry(&mut self, from: u32, to: u32) {
        if let Some(mut found) = find(&mut self.index, self.pages.number(Number::Hash, to), from) {
            found.key_mut().first = to;
        }
        let [earlier, later] = [Link::Earlier, Link::Later].map(|link| self.pages.link(link, to));
        self.link_expiry(earlier, to);
        self.link_expiry(to, later);
    }

    fn append_to_expiry(&mut self, first: u32, expires: u64) {
        // All entries live equally long, so the list is in the order of expiry.
        self.pages.set_number(Number::Expires, first, expires);
        self.link_expiry(self.last_to_expire, first);
        self.link_expiry(first, NONE);
    }

    fn remove_from_expiry(&mut self, first: u32) {
        let [earlier, later] = [Link::Earlier, Link::Later].map(|link| self.pages.link(link, first));
        self.link_expiry(earlier, later);
    }

    /// Makes two entries neighbors in the order of expiry; `NONE` is an end of the list.
    fn link_expiry(&mut self, earlier: u32, later: u32) {
        match later {
            NONE => self.last_to_expire = earlier,
            _ => self.pages.set_link(Link::Earlier, later, earlier),
        }
        match earlier {
            NONE => {
                self.first_to_expire = later;
                self.next_expiry = match later {
                    NONE => u64::MAX,
                    _ => self.pages.number(Number::Expires, later),
                };
            }
            _ => self.pages.set_link(Link::Later, earlier, later),
        }
    }

    /// Counts a removal, and copies the entry for the listener if there is one.
    fn report(&mut self, entry: Entry, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.stats.removals.add(cause);
        removed.push_with(|| {
            let id = text_of(self.pages.copy(entry.first, 0, entry.id_bytes));
            let memory = WorkingMemory::new(text_of(self.text(entry)));
            RemovedEntry::new(id.into(), entry.memory_type, memory, cause)
        });
    }
}

/// The index node of the entry with this first page.
fn find(index: &mut Index, hash: u64, first: u32) -> Option<IndexEntry<'_>> {
    match index.raw_entry_mut().from_hash(hash, |key| key.first == first) {
        RawEntryMut::Occupied(found) => Some(found),
        RawEntryMut::Vacant(_) => None,
    }
}

/// The string whose bytes were copied from pages.
pub(super) fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("only whole strings are written to pages")
}
