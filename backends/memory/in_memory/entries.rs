//! The entries of a shard by number, in the orders of use and of expiry.

use std::io;
use std::ops::{Index, IndexMut};

use super::entry::{Entry, Link};
use super::maps::{SMALL_MAP, SpareMaps, Table};
use super::numbers::{NONE, Numbers};

/// Entries keep this share of their numbers free, and at least so many, before they return memory.
const FREE_SHARE: usize = 8;
const MIN_FREE: usize = 64;

/// The bytes that an entry accounts for: itself, and the numbers that may be free.
pub(super) const ENTRY_BYTES: usize = (size_of::<Entry>() + size_of::<u32>()) * 9 / 8;

/// An order of entries. Each entry has a link in each.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// The stamp of the last use.
    Use,
    /// The time of expiry.
    Expiry,
}

pub(super) struct Entries {
    numbers: Numbers,
    all: Table<Entry, SMALL_MAP>,
    /// The first and the last entry of each order.
    ends: [[u32; 2]; 2],
}

impl Entries {
    pub(super) fn new(spare: SpareMaps) -> Self {
        Self { numbers: Numbers::new(spare.clone()), all: Table::new(spare), ends: [[NONE; 2]; 2] }
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.used()
    }

    /// Makes it possible to add an entry.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self) -> io::Result<()> {
        let len = self.numbers.reserve(1)?;
        self.all.reserve(len)
    }

    /// Adds an entry, which was [reserved](Self::reserve), at the ends of both orders, and returns its number.
    pub(super) fn add(&mut self, entry: Entry, stamp: u64, expires: u64) -> u32 {
        let number = self.numbers.take();
        self[number] = entry;
        self.append(By::Use, number, stamp);
        self.append(By::Expiry, number, expires);
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.unlink(By::Use, number);
        self.unlink(By::Expiry, number);
        self.numbers.put(number);
    }

    pub(super) fn first(&self, by: By) -> Option<u32> {
        known(self.ends[by as usize][0])
    }

    /// The order of the first entry; `u64::MAX` if there is none.
    pub(super) fn front(&self, by: By) -> u64 {
        self.first(by).map_or(u64::MAX, |first| self.order(by, first))
    }

    pub(super) fn order(&self, by: By, number: u32) -> u64 {
        self.link(by, number).order
    }

    /// All entries, the last one first.
    pub(super) fn last_to_first(&self, by: By) -> impl Iterator<Item = u32> {
        let previous = move |number: &u32| known(self.link(by, *number).previous);
        std::iter::successors(known(self.ends[by as usize][1]), previous)
    }

    /// Moves an entry to the end of an order.
    pub(super) fn move_to_end(&mut self, by: By, number: u32, order: u64) {
        if self.ends[by as usize][1] == number {
            self.link_mut(by, number).order = order;
        } else {
            self.unlink(by, number);
            self.append(by, number, order);
        }
    }

    fn link(&self, by: By, number: u32) -> &Link {
        &self[number].links[by as usize]
    }

    fn link_mut(&mut self, by: By, number: u32) -> &mut Link {
        &mut self[number].links[by as usize]
    }

    fn append(&mut self, by: By, number: u32, order: u64) {
        let last = self.ends[by as usize][1];
        *self.link_mut(by, number) = Link { order, previous: last, next: NONE };
        self.join(by, last, number);
        self.join(by, number, NONE);
    }

    fn unlink(&mut self, by: By, number: u32) {
        let Link { previous, next, .. } = *self.link(by, number);
        self.join(by, previous, next);
    }

    /// Makes two entries neighbors; [`NONE`] is an end of the order.
    fn join(&mut self, by: By, previous: u32, next: u32) {
        match known(previous) {
            Some(previous) => self.link_mut(by, previous).next = next,
            None => self.ends[by as usize][0] = next,
        }
        match known(next) {
            Some(next) => self.link_mut(by, next).previous = previous,
            None => self.ends[by as usize][1] = previous,
        }
    }

    /// Returns memory to the system if enough numbers are free. `moved` is called with each entry that gets another
    /// number, the old number and the new one.
    pub(super) fn compact(&mut self, mut moved: impl FnMut(&Entry, u32, u32)) {
        if self.numbers.free() < (self.len() / FREE_SHARE).max(MIN_FREE) {
            return;
        }
        let keep = self.len();
        for (from, to) in self.numbers.lower_max(keep) {
            self[to] = self[from];
            for by in [By::Use, By::Expiry] {
                let Link { previous, next, .. } = *self.link(by, to);
                self.join(by, previous, to);
                self.join(by, to, next);
            }
            moved(&self[to], from, to);
        }
        self.all.shrink_to(keep);
    }
}

fn known(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

impl Index<u32> for Entries {
    type Output = Entry;

    fn index(&self, number: u32) -> &Entry {
        &self.all[number]
    }
}

impl IndexMut<u32> for Entries {
    fn index_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.all[number]
    }
}
