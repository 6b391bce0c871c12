//! One shard of a store: entries on pages, an index to find them, and their orders of use and of expiry.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::super::notifier::RemovedEntries;
use super::entry::{Entry, HEADER, Key, List, Number, hash, number, set_number};
use super::pages::{PAGE_BYTES, Pages, SpareMaps};
use crate::memory::{MemoryStats, RemovalCause, RemovedEntry};

/// Bytes of the index per entry, in a hash table that has just grown.
const INDEX_BYTES: usize = 24;

/// Unused slots of the index that do not count as sparse.
const MIN_UNUSED_SLOTS: usize = 64;

/// An entry in the index. The hash is here so that a table that grows need not read every page.
struct Slot {
    hash: u32,
    /// The first page of the entry's chain: header, id, metadata as JSON, text.
    first: u32,
}

impl Slot {
    /// The hash as the table wants it: it takes the lowest and the highest bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

pub(super) struct Shard {
    index: HashTable<Slot>,
    pages: Pages,
    by_use: List,
    by_expiry: List,
    /// Hits, misses and removals.
    pub(super) stats: MemoryStats,
}

/// Bytes that an entry with so many bytes of id, metadata and text counts: its pages and its share of the index.
pub(super) fn entry_bytes(bytes: usize) -> u64 {
    (Pages::needed(HEADER.saturating_add(bytes)) * PAGE_BYTES + INDEX_BYTES) as u64
}

impl Shard {
    pub(super) fn new(spare: Arc<SpareMaps>) -> Self {
        Self {
            index: HashTable::new(),
            pages: Pages::new(spare),
            by_use: List::by_use(),
            by_expiry: List::by_expiry(),
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
        self.by_use.front()
    }

    /// When the first entry expires; `u64::MAX` if there is none.
    pub(super) fn next_expiry(&self) -> u64 {
        self.by_expiry.front()
    }

    /// Marks an entry as used and returns it. An expired entry is removed.
    pub(super) fn lookup(
        &mut self,
        key: &Key<'_>,
        now: u64,
        stamps: &AtomicU64,
        removed: &mut RemovedEntries,
    ) -> Option<Entry> {
        let is_key = |slot: &Slot| slot.hash == key.hash && key.is_of(&self.pages, slot.first);
        let first = self.index.find(Slot::spread(key.hash), is_key)?.first;
        if number(&self.pages, first, Number::Expires) <= now {
            self.remove(first, RemovalCause::Expired, removed);
            return None;
        }
        self.by_use.move_to_end(&mut self.pages, first, stamps.fetch_add(1, Relaxed));
        Some(Entry::read(&self.pages, first))
    }

    /// Copies the text of an entry to the end of `to`.
    pub(super) fn copy_text<const N: usize>(&self, entry: Entry, to: &mut SmallVec<[u8; N]>)
    where
        [u8; N]: smallvec::Array<Item = u8>,
    {
        to.reserve_exact(entry.text_bytes);
        self.pages.read(entry.first, entry.text_offset(), entry.text_bytes, |piece| {
            to.extend_from_slice(piece);
            true
        });
    }

    pub(super) fn has_text(&self, entry: Entry, text: &str) -> bool {
        entry.text_bytes == text.len()
            && self.pages.has_bytes(entry.first, entry.text_offset(), text.as_bytes())
    }

    pub(super) fn metadata(&self, entry: Entry) -> Vec<u8> {
        self.pages.copy(entry.first, entry.metadata_offset(), entry.metadata_bytes)
    }

    /// Adds an entry that does not exist, and returns the stamp of this use.
    ///
    /// # Errors
    /// When the system has no memory left; nothing has changed then.
    pub(super) fn insert(
        &mut self,
        key: &Key<'_>,
        expires: u64,
        (metadata, text): (&[u8], &str),
        stamps: &AtomicU64,
    ) -> io::Result<u64> {
        let pages = Pages::needed(HEADER + key.id.len() + metadata.len() + text.len());
        self.pages.reserve(pages)?;
        let first = self.pages.allocate(pages);
        key.write(&mut self.pages, first, (metadata.len(), text.len()));
        let entry = Entry::read(&self.pages, first);
        self.pages.write(first, entry.metadata_offset(), metadata);
        self.pages.write(first, entry.text_offset(), text.as_bytes());
        let stamp = stamps.fetch_add(1, Relaxed);
        self.by_use.append(&mut self.pages, first, stamp);
        self.by_expiry.append(&mut self.pages, first, expires);
        let slot = Slot { hash: key.hash, first };
        self.index.insert_unique(Slot::spread(key.hash), slot, |slot| Slot::spread(slot.hash));
        Ok(stamp)
    }

    /// Replaces the text of an entry that was just looked up, and with `store` its metadata and the time it expires.
    /// Returns the stamp of its last use.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn replace(
        &mut self,
        old: Entry,
        store: Option<(u64, &[u8])>,
        text: &str,
        removed: &mut RemovedEntries,
    ) -> io::Result<u64> {
        let metadata_bytes = store.map_or(old.metadata_bytes, |(_, metadata)| metadata.len());
        let new = Entry { metadata_bytes, text_bytes: text.len(), ..old };
        self.pages.reserve(new.pages().saturating_sub(old.pages()))?;
        self.report(old, RemovalCause::Replaced, removed);
        self.pages.resize(old.first, old.pages(), new.pages());
        if let Some((expires, metadata)) = store {
            set_number(&mut self.pages, old.first, Number::MetadataBytes, metadata.len() as u64);
            self.pages.write(old.first, old.metadata_offset(), metadata);
            // All entries live equally long, so the list stays in the order of expiry.
            self.by_expiry.move_to_end(&mut self.pages, old.first, expires);
        }
        set_number(&mut self.pages, old.first, Number::TextBytes, text.len() as u64);
        self.pages.write(old.first, new.text_offset(), text.as_bytes());
        Ok(number(&self.pages, old.first, Number::Stamp))
    }

    /// Removes the entry with this first page.
    pub(super) fn remove(&mut self, first: u32, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.report(Entry::read(&self.pages, first), cause, removed);
        let hash = Slot::spread(hash(&self.pages, first));
        if let Ok(slot) = self.index.find_entry(hash, |slot| slot.first == first) {
            slot.remove();
        }
        self.by_use.remove(&mut self.pages, first);
        self.by_expiry.remove(&mut self.pages, first);
        self.pages.release(first);
    }

    /// Removes the least recently used entry, if there is one.
    pub(super) fn remove_oldest(&mut self, cause: RemovalCause, removed: &mut RemovedEntries) {
        if self.len() > 0 {
            self.remove(self.by_use.first(), cause, removed);
        }
    }

    /// Marks the least recently used entry as used and returns its stamp.
    pub(super) fn touch_oldest(&mut self, stamps: &AtomicU64) -> u64 {
        let stamp = stamps.fetch_add(1, Relaxed);
        if self.len() > 0 {
            self.by_use.move_to_end(&mut self.pages, self.by_use.first(), stamp);
        }
        stamp
    }

    /// Removes up to `max` expired entries and returns how many it removed.
    pub(super) fn remove_expired(&mut self, now: u64, max: usize, removed: &mut RemovedEntries) -> usize {
        let mut count = 0;
        while count < max && self.next_expiry() <= now && self.len() > 0 {
            self.remove(self.by_expiry.first(), RemovalCause::Expired, removed);
            count += 1;
        }
        count
    }

    /// Removes all entries without reporting them.
    pub(super) fn clear(&mut self) {
        self.stats.removals.deleted += self.len() as u64;
        self.index.clear();
        self.release_unused();
    }

    /// Returns unused memory to the system.
    pub(super) fn release_unused(&mut self) {
        if self.len() == 0 {
            self.index = HashTable::new();
            (self.by_use, self.by_expiry) = (List::by_use(), List::by_expiry());
            return self.pages.clear();
        }
        if self.index.capacity() > 4 * self.len() + MIN_UNUSED_SLOTS {
            self.index.shrink_to_fit(|slot| Slot::spread(slot.hash));
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
        let hash = Slot::spread(hash(&self.pages, to));
        if let Some(slot) = self.index.find_mut(hash, |slot| slot.first == from) {
            slot.first = to;
        }
        self.by_use.relink(&mut self.pages, to);
        self.by_expiry.relink(&mut self.pages, to);
    }

    /// Counts a removal, and copies the entry for the listener if there is one.
    fn report(&mut self, entry: Entry, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.stats.removals.add(cause);
        removed.push_with(|| {
            let id = self.pages.copy(entry.first, HEADER, entry.id_bytes);
            let text = self.pages.copy(entry.first, entry.text_offset(), entry.text_bytes);
            RemovedEntry::new(to_str(&id).into(), entry.memory_type, to_str(&text).into(), cause)
        });
    }
}

/// The string whose bytes were copied from pages.
pub(super) fn to_str(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).expect("only whole strings are written to pages")
}
