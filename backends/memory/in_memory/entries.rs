//! The entries of a shard by number, in the orders of use and of expiry.

use std::ops::{Index, IndexMut};

use super::entry::Entry;
use super::list::List;
use super::numbers::{FreeNumbers, grow};

/// Entries keep this share of their numbers free, and at least so many, before they return memory.
const FREE_SHARE: usize = 8;
const MIN_FREE: usize = 256;

/// The bytes that an entry accounts for: itself, its links, and the numbers that may be free.
pub(super) const ENTRY_BYTES: usize = (size_of::<Entry>() + 2 * List::BYTES_PER_ENTRY) * 9 / 8;

#[derive(Default)]
pub(super) struct Entries {
    all: Vec<Entry>,
    free: FreeNumbers,
    /// By the stamp of the last use.
    pub(super) by_use: List,
    /// By the time of expiry.
    pub(super) by_expiry: List,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Adds an entry at the ends of both orders, and returns its number.
    pub(super) fn add(&mut self, entry: Entry, stamp: u64, expires: u64) -> u32 {
        let number = self.free.take().unwrap_or_else(|| {
            grow(&mut self.all);
            self.all.push(entry);
            self.all.len() as u32 - 1
        });
        self[number] = entry;
        self.by_use.append(number, stamp);
        self.by_expiry.append(number, expires);
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.by_use.remove(number);
        self.by_expiry.remove(number);
        self.free.put(number);
    }

    /// Returns memory to the system if enough numbers are free. `moved` is called with each entry that gets another
    /// number, the old number and the new one.
    pub(super) fn compact(&mut self, mut moved: impl FnMut(&Entry, u32, u32)) {
        if self.free.len() < (self.len() / FREE_SHARE).max(MIN_FREE) {
            return;
        }
        let keep = self.len();
        for (from, to) in self.free.lower_max(self.all.len(), keep) {
            self[to] = self[from];
            self.by_use.renumber(from, to);
            self.by_expiry.renumber(from, to);
            moved(&self[to], from, to);
        }
        self.all.truncate(keep);
        self.all.shrink_to_fit();
        self.by_use.truncate(keep);
        self.by_expiry.truncate(keep);
    }
}

impl Index<u32> for Entries {
    type Output = Entry;

    fn index(&self, number: u32) -> &Entry {
        &self.all[number as usize]
    }
}

impl IndexMut<u32> for Entries {
    fn index_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.all[number as usize]
    }
}
