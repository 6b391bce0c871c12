//! One shard of a store: an index of entries and the pages with their texts.

use std::io;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::super::notifier::RemovedEntries;
use super::entries::{By, ENTRY_BYTES, Entries};
use super::entry::{Entry, Key};
use super::maps::SpareMaps;
use super::pages::{PAGE_BYTES, Pages};
use crate::memory::{MemoryStats, RemovalCause, RemovedEntry};

/// Bytes of an entry besides its pages: of the index, in a hash table that has just grown, and of its place among entries.
const OVERHEAD_BYTES: usize = 24 + ENTRY_BYTES;

/// Unused slots of the index that do not count as sparse.
const MIN_UNUSED_SLOTS: usize = 64;

/// An entry in the index. The hash is here so that a table that grows need not read every entry.
struct Slot {
    hash: u32,
    number: u32,
}

impl Slot {
    /// The hash as the table wants it: it takes the lowest and the highest bits.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

pub(super) struct Shard {
    index: HashTable<Slot>,
    entries: Entries,
    pages: Pages,
    spare: SpareMaps,
    /// Hits, misses and removals.
    pub(super) stats: MemoryStats,
}

/// Bytes that an entry with so many bytes of id, metadata and text counts.
pub(super) fn entry_bytes(bytes: usize) -> u64 {
    (Pages::needed(bytes) * PAGE_BYTES + OVERHEAD_BYTES) as u64
}

impl Shard {
    pub(super) fn new(spare: SpareMaps) -> Self {
        Self {
            index: HashTable::new(),
            entries: Entries::new(spare.clone()),
            pages: Pages::new(spare.clone()),
            spare,
            stats: MemoryStats::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.used() * PAGE_BYTES + self.len() * OVERHEAD_BYTES
    }

    /// The stamp of the least recently used entry; `u64::MAX` if there is none.
    pub(super) fn oldest(&self) -> u64 {
        self.entries.front(By::Use)
    }

    /// When the first entry expires; `u64::MAX` if there is none.
    pub(super) fn next_expiry(&self) -> u64 {
        self.entries.front(By::Expiry)
    }

    /// The entry with this number.
    pub(super) fn entry(&self, number: u32) -> &Entry {
        &self.entries[number]
    }

    /// Returns the number of an entry, valid while the shard stays locked and unchanged. An expired entry is removed.
    pub(super) fn find(&mut self, key: &Key<'_>, now: u64, removed: &mut RemovedEntries) -> Option<u32> {
        let is_key =
            |slot: &Slot| slot.hash == key.hash && self.entries[slot.number].has_key(&self.pages, key);
        let number = self.index.find(Slot::spread(key.hash), is_key)?.number;
        if self.next_expiry() <= now && self.entries.order(By::Expiry, number) <= now {
            self.remove(number, RemovalCause::Expired, removed);
            return None;
        }
        Some(number)
    }

    /// Marks an entry as used, with a stamp later than those of all entries.
    pub(super) fn touch(&mut self, number: u32, stamp: u64) {
        self.entries.move_to_end(By::Use, number, stamp);
    }

    /// Copies the text of an entry to the end of `to`.
    pub(super) fn copy_text<const N: usize>(&self, number: u32, to: &mut SmallVec<[u8; N]>)
    where
        [u8; N]: smallvec::Array<Item = u8>,
    {
        let entry = self.entry(number);
        to.reserve_exact(entry.text_bytes());
        self.pages.read(entry.first, entry.text_offset(), entry.text_bytes(), |piece| {
            to.extend_from_slice(piece);
            true
        });
    }

    pub(super) fn has_text(&self, number: u32, text: &str) -> bool {
        let entry = self.entry(number);
        entry.text_bytes() == text.len()
            && self.pages.has_bytes(entry.first, entry.text_offset(), text.as_bytes())
    }

    pub(super) fn metadata(&self, number: u32) -> Vec<u8> {
        let entry = self.entry(number);
        self.pages.copy(entry.first, entry.id_bytes(), entry.metadata_bytes())
    }

    /// Adds an entry that does not exist, with the stamp of this use.
    ///
    /// # Errors
    /// When the system has no memory left; nothing has changed then.
    pub(super) fn insert(
        &mut self,
        key: &Key<'_>,
        expires: u64,
        (metadata, text): (&[u8], &str),
        stamp: u64,
    ) -> io::Result<()> {
        let entry = Entry::new(key, metadata, text);
        self.add(entry, &[key.id.as_bytes(), metadata, text.as_bytes()], stamp, expires).map(drop)
    }

    /// Adds an entry with the contents of its pages, and returns its number.
    fn add(&mut self, mut entry: Entry, contents: &[&[u8]], stamp: u64, expires: u64) -> io::Result<u32> {
        self.pages.reserve(entry.pages())?;
        self.entries.reserve()?;
        entry.first = self.pages.allocate(entry.pages());
        let mut offset = 0;
        for bytes in contents {
            self.pages.write(entry.first, offset, bytes);
            offset += bytes.len();
        }
        let number = self.entries.add(entry, stamp, expires);
        self.pages.set_owner(entry.first, number);
        let slot = Slot { hash: entry.hash, number };
        self.index.insert_unique(Slot::spread(entry.hash), slot, |slot| Slot::spread(slot.hash));
        Ok(number)
    }

    /// Replaces the text of an entry, and with `store` its metadata and the time it expires.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn replace(
        &mut self,
        number: u32,
        store: Option<(u64, &[u8])>,
        text: &str,
        stamp: u64,
        removed: &mut RemovedEntries,
    ) -> io::Result<()> {
        let old = *self.entry(number);
        let metadata_bytes = store.map_or(old.metadata_bytes(), |(_, metadata)| metadata.len());
        let new = old.with_contents(metadata_bytes, text.len());
        self.pages.reserve(new.pages().saturating_sub(old.pages()))?;
        self.report(number, RemovalCause::Replaced, removed);
        self.pages.resize(new.first, old.pages(), new.pages());
        self.entries[number] = new;
        if let Some((expires, metadata)) = store {
            self.pages.write(new.first, new.id_bytes(), metadata);
            // All entries live equally long, so the list stays in the order of expiry.
            self.entries.move_to_end(By::Expiry, number, expires);
        }
        self.pages.write(new.first, new.text_offset(), text.as_bytes());
        self.touch(number, stamp);
        Ok(())
    }

    /// Removes the entry with this number.
    pub(super) fn remove(&mut self, number: u32, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.report(number, cause, removed);
        let Entry { hash, first, .. } = *self.entry(number);
        if let Ok(slot) = self.index.find_entry(Slot::spread(hash), |slot| slot.number == number) {
            slot.remove();
        }
        self.entries.remove(number);
        self.pages.release(first);
    }

    /// Removes the least recently used entry, if there is one.
    pub(super) fn remove_oldest(&mut self, cause: RemovalCause, removed: &mut RemovedEntries) {
        if let Some(number) = self.entries.first(By::Use) {
            self.remove(number, cause, removed);
        }
    }

    /// Marks the least recently used entry, if there is one, as used.
    pub(super) fn touch_oldest(&mut self, stamp: u64) {
        if let Some(number) = self.entries.first(By::Use) {
            self.touch(number, stamp);
        }
    }

    /// Removes up to `max` expired entries and returns how many it removed.
    pub(super) fn remove_expired(&mut self, now: u64, max: usize, removed: &mut RemovedEntries) -> usize {
        for count in 0..max {
            match self.entries.first(By::Expiry) {
                Some(number) if self.next_expiry() <= now => {
                    self.remove(number, RemovalCause::Expired, removed);
                }
                _ => return count,
            }
        }
        max
    }

    /// The stamps and sizes of the most recently used entries, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = (u64, u64)> {
        let entries = &self.entries;
        entries
            .last_to_first(By::Use)
            .map(|number| (entries.order(By::Use, number), entry_bytes(entries[number].bytes())))
    }

    /// Removes the entries that were used before the one with this stamp, without reporting them. It costs as much as what
    /// it keeps: a new shard takes over, and the old one, which is returned, goes with all its pages at once.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub(super) fn keep_since(&mut self, stamp: u64, cause: RemovalCause) -> io::Result<Self> {
        let entries = &self.entries;
        let used_since = |number: &u32| entries.order(By::Use, *number) >= stamp;
        let mut kept: Vec<_> = entries.last_to_first(By::Use).take_while(used_since).collect();
        kept.sort_by_key(|number| entries.order(By::Expiry, *number));
        let mut new = Self::new(self.spare.clone());
        let mut stamps = Vec::with_capacity(kept.len());
        for number in kept {
            let old = self.entry(number);
            let bytes = self.pages.copy(old.first, 0, old.bytes());
            let added = new.add(*old, &[&bytes], 0, entries.order(By::Expiry, number))?;
            stamps.push((entries.order(By::Use, number), added));
        }
        stamps.sort_unstable();
        for (stamp, number) in stamps {
            new.entries.move_to_end(By::Use, number, stamp);
        }
        new.stats = std::mem::take(&mut self.stats);
        new.stats.removals.add_many(cause, (self.len() - new.len()) as u64);
        Ok(std::mem::replace(self, new))
    }

    /// Removes all entries without reporting them.
    pub(super) fn clear(&mut self) {
        self.stats.removals.deleted += self.len() as u64;
        self.reset();
    }

    /// Forgets all entries; their memory returns to the system.
    fn reset(&mut self) {
        *self = Self { stats: std::mem::take(&mut self.stats), ..Self::new(self.spare.clone()) };
    }

    /// Returns unused memory to the system.
    pub(super) fn release_unused(&mut self) {
        if self.len() == 0 {
            return self.reset();
        }
        if self.index.capacity() > 4 * self.len() + MIN_UNUSED_SLOTS {
            self.index.shrink_to_fit(|slot| Slot::spread(slot.hash));
        }
        self.pages.compact(|owner, first| self.entries[owner].first = first);
        let (index, pages) = (&mut self.index, &mut self.pages);
        self.entries.compact(|entry, from, to| {
            pages.set_owner(entry.first, to);
            if let Some(slot) = index.find_mut(Slot::spread(entry.hash), |slot| slot.number == from) {
                slot.number = to;
            }
        });
    }

    /// Counts a removal, and copies the entry for the listener if there is one.
    fn report(&mut self, number: u32, cause: RemovalCause, removed: &mut RemovedEntries) {
        self.stats.removals.add(cause);
        removed.push_with(|| {
            let entry = self.entry(number);
            let id = self.pages.copy(entry.first, 0, entry.id_bytes());
            let text = self.pages.copy(entry.first, entry.text_offset(), entry.text_bytes());
            RemovedEntry::new(to_str(&id).into(), entry.memory_type(), to_str(&text).into(), cause)
        });
    }
}

/// The string whose bytes were copied from pages.
pub(super) fn to_str(bytes: &[u8]) -> &str {
    simdutf8::basic::from_utf8(bytes).expect("only whole strings are written to pages")
}
