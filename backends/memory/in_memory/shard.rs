//! One shard of a store: an index in the order of use over entries on pages, and the order of expiry.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashlink::LinkedHashMap;
use hashlink::linked_hash_map::RawEntryMut;

use super::super::notifier::RemovedEntries;
use super::pages::{NONE, PAGE, Pages, SpareMaps};
use super::record::{RECORD, Record};
use crate::memory::{MemoryStats, MemoryType, RemovalCause, RemovedEntry, WorkingMemory};

/// Bytes of the index per entry: a node on the heap and its share of the hash table.
pub(super) const INDEX_BYTES: usize = 72;

/// Unused index nodes that do not count as sparse.
const MIN_UNUSED_NODES: usize = 32;

/// A borrowed key.
#[derive(Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub(super) hash: u64,
    pub(super) memory_type: MemoryType,
    pub(super) id: &'a str,
}

/// The key of an index node: the entry's hash and the first page of its chain.
#[derive(PartialEq, Eq)]
struct IndexKey {
    hash: u64,
    first: u32,
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

pub(super) struct Shard {
    /// Stamps of the last use by key, oldest first.
    index: LinkedHashMap<IndexKey, u64, BuildHasherDefault<PrecomputedHasher>>,
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
    (Pages::needed(chain_bytes) * PAGE + INDEX_BYTES) as u64
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
        self.pages.used() * PAGE + self.len() * INDEX_BYTES
    }

    /// The stamp of the least recently used entry; `u64::MAX` if there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.index.front().map_or(u64::MAX, |(_, stamp)| *stamp)
    }

    /// The stamp of the most recently used entry; 0 if there is none.
    pub(super) fn newest(&self) -> u64 {
        self.index.back().map_or(0, |(_, stamp)| *stamp)
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
    ) -> Option<(u32, Record)> {
        let pages = &self.pages;
        let found = self.index.raw_entry_mut().from_hash(key.hash, |other| matches(pages, other, key));
        let RawEntryMut::Occupied(mut found) = found else { return None };
        let first = found.key().first;
        let record = Record::decode(self.pages.payload(first));
        if record.expires <= now {
            self.remove(first, record, RemovalCause::Expired, removed);
            return None;
        }
        *found.get_mut() = stamps.fetch_add(1, Relaxed);
        found.to_back();
        Some((first, record))
    }

    pub(super) fn text(&self, first: u32, record: &Record) -> Vec<u8> {
        self.pages.copy(first, record.text_offset(), record.text_bytes as usize)
    }

    pub(super) fn has_text(&self, first: u32, record: &Record, text: &str) -> bool {
        record.text_bytes == text.len() as u64
            && self.pages.has_bytes(first, record.text_offset(), text.as_bytes())
    }

    pub(super) fn metadata(&self, first: u32, record: &Record) -> Vec<u8> {
        self.pages.copy(first, record.metadata_offset(), record.metadata_bytes as usize)
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
        let record = Record {
            hash: key.hash,
            expires,
            previous: NONE,
            next: NONE,
            id_bytes: key.id.len() as u16,
            memory_type: key.memory_type,
            metadata_bytes: metadata.len() as u64,
            text_bytes: text.len() as u64,
        };
        let pages = Pages::needed(record.chain_bytes());
        self.pages.reserve(pages)?;
        let first = self.pages.allocate(pages);
        self.pages.write(first, RECORD, key.id.as_bytes());
        self.pages.write(first, record.metadata_offset(), metadata);
        self.pages.write(first, record.text_offset(), text.as_bytes());
        self.append_to_expiry(first, record);
        let stamp = stamps.fetch_add(1, Relaxed);
        self.index.insert(IndexKey { hash: key.hash, first }, stamp);
        self.nodes = self.nodes.max(self.index.len());
        Ok(())
    }

    /// Replaces the text of an entry, and with `store` its metadata and the time it expires.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn replace(
        &mut self,
        first: u32,
        old: Record,
        store: Option<(u64, &[u8])>,
        text: &str,
        removed: &mut RemovedEntries,
    ) -> io::Result<()> {
        let mut new = Record { text_bytes: text.len() as u64, ..old };
        if let Some((expires, metadata)) = store {
            (new.expires, new.metadata_bytes) = (expires, metadata.len() as u64);
        }
        let [old_pages, new_pages] = [old, new].map(|record| Pages::needed(record.chain_bytes()));
        self.pages.reserve(new_pages.saturating_sub(old_pages))?;
        self.report(first, &old, RemovalCause::Replaced, removed);
        self.pages.resize(first, old_pages, new_pages);
        match store {
            Some((_, metadata)) => {
                self.pages.write(first, new.metadata_offset(), metadata);
                self.remove_from_expiry(first);
                self.append_to_expiry(first, new);
            }
            None => new.encode(self.pages.payload_mut(first)),
        }
        self.pages.write(first, new.text_offset(), text.as_bytes());
        Ok(())
    }

    /// Removes the entry with this first page.
    pub(super) fn remove(
        &mut self,
        first: u32,
        record: Record,
        cause: RemovalCause,
        removed: &mut RemovedEntries,
    ) {
        self.report(first, &record, cause, removed);
        let found = self.index.raw_entry_mut().from_hash(record.hash, |key| key.first == first);
        if let RawEntryMut::Occupied(found) = found {
            found.remove();
        }
        self.remove_from_expiry(first);
        self.pages.release(first);
    }

    /// Removes the least recently used entry.
    pub(super) fn remove_oldest(&mut self, cause: RemovalCause, removed: &mut RemovedEntries) {
        let Some(first) = self.index.front().map(|(key, _)| key.first) else { return };
        self.remove(first, Record::decode(self.pages.payload(first)), cause, removed);
    }

    /// Marks the least recently used entry as used and returns its stamp.
    pub(super) fn touch_oldest(&mut self, stamps: &AtomicU64) -> u64 {
        let stamp = stamps.fetch_add(1, Relaxed);
        if let Some(mut oldest) = self.index.front_entry() {
            *oldest.get_mut() = stamp;
            oldest.to_back();
        }
        stamp
    }

    /// Removes up to `max` expired entries and returns how many it removed.
    pub(super) fn remove_expired(&mut self, now: u64, max: usize, removed: &mut RemovedEntries) -> usize {
        let mut count = 0;
        while count < max && self.next_expiry <= now {
            let first = self.first_to_expire;
            self.remove(first, Record::decode(self.pages.payload(first)), RemovalCause::Expired, removed);
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
        let record = Record::decode(self.pages.payload(to));
        let found = self.index.raw_entry_mut().from_hash(record.hash, |key| key.first == from);
        if let RawEntryMut::Occupied(mut found) = found {
            found.key_mut().first = to;
        }
        self.link_expiry(record.previous, to);
        self.link_expiry(to, record.next);
    }

    fn append_to_expiry(&mut self, first: u32, record: Record) {
        // All entries live equally long, so the list is in the order of expiry.
        let record = Record { previous: NONE, next: NONE, ..record };
        record.encode(self.pages.payload_mut(first));
        self.link_expiry(self.last_to_expire, first);
        self.link_expiry(first, NONE);
    }

    fn remove_from_expiry(&mut self, first: u32) {
        let Record { previous, next, .. } = Record::decode(self.pages.payload(first));
        self.link_expiry(previous, next);
    }

    /// Makes two entries neighbors in the order of expiry; `NONE` is the end of the list.
    fn link_expiry(&mut self, previous: u32, next: u32) {
        let edit = |pages: &mut Pages, first: u32, edit: &dyn Fn(&mut Record)| {
            let mut record = Record::decode(pages.payload(first));
            edit(&mut record);
            record.encode(pages.payload_mut(first));
            record.expires
        };
        match previous {
            NONE => self.first_to_expire = next,
            _ => {
                edit(&mut self.pages, previous, &|record| record.next = next);
            }
        }
        let expires = match next {
            NONE => {
                self.last_to_expire = previous;
                u64::MAX
            }
            _ => edit(&mut self.pages, next, &|record| record.previous = previous),
        };
        if previous == NONE {
            self.next_expiry = expires;
        }
    }

    /// Counts a removal, and copies the entry for the listener if there is one.
    fn report(&mut self, first: u32, record: &Record, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.stats.removals.add(cause);
        removed.push_with(|| {
            let id = self.pages.copy(first, RECORD, record.id_bytes as usize);
            RemovedEntry::new(
                text_of(id).into(),
                record.memory_type,
                WorkingMemory::new(text_of(self.text(first, record))),
                cause,
            )
        });
    }
}

fn matches(pages: &Pages, other: &IndexKey, key: KeyRef<'_>) -> bool {
    if other.hash != key.hash {
        return false;
    }
    let record = Record::decode(pages.payload(other.first));
    record.id_bytes as usize == key.id.len()
        && record.memory_type == key.memory_type
        && pages.has_bytes(other.first, RECORD, key.id.as_bytes())
}

/// The string whose bytes were copied from pages.
pub(super) fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("only whole strings are written to pages")
}
