//! Lists of entries, linked through a table beside them.

use super::numbers::{NONE, grow};

/// Entries, by their number, in an order such as the time of their last use.
pub(super) struct List {
    links: Vec<Link>,
    first: u32,
    last: u32,
}

#[derive(Clone, Copy)]
struct Link {
    order: u64,
    previous: u32,
    next: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { links: Vec::new(), first: NONE, last: NONE }
    }
}

impl List {
    pub(super) const BYTES_PER_ENTRY: usize = size_of::<Link>();

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// The order of the first entry; `u64::MAX` if there is none.
    pub(super) fn front(&self) -> u64 {
        self.links.get(self.first as usize).map_or(u64::MAX, |link| link.order)
    }

    pub(super) fn order(&self, entry: u32) -> u64 {
        self.links[entry as usize].order
    }

    /// All entries, the last one first.
    pub(super) fn last_to_first(&self) -> impl Iterator<Item = u32> {
        let known = |entry: u32| (entry != NONE).then_some(entry);
        std::iter::successors(known(self.last), move |entry| known(self.links[*entry as usize].previous))
    }

    /// Adds an entry at the end.
    pub(super) fn append(&mut self, entry: u32, order: u64) {
        let link = Link { order, previous: self.last, next: NONE };
        if entry as usize == self.links.len() {
            grow(&mut self.links);
            self.links.push(link);
        } else {
            self.links[entry as usize] = link;
        }
        self.join(self.last, entry);
        self.last = entry;
    }

    pub(super) fn remove(&mut self, entry: u32) {
        let Link { previous, next, .. } = self.links[entry as usize];
        self.join(previous, next);
    }

    /// Moves an entry to the end.
    pub(super) fn move_to_end(&mut self, entry: u32, order: u64) {
        if self.last == entry {
            self.links[entry as usize].order = order;
        } else {
            self.remove(entry);
            self.append(entry, order);
        }
    }

    /// Gives an entry another number.
    pub(super) fn renumber(&mut self, from: u32, to: u32) {
        let link = self.links[from as usize];
        self.links[to as usize] = link;
        self.join(link.previous, to);
        self.join(to, link.next);
    }

    /// Forgets the numbers from `len` on, which no entry has.
    pub(super) fn truncate(&mut self, len: usize) {
        self.links.truncate(len);
        self.links.shrink_to_fit();
    }

    /// Makes two entries neighbors; [`NONE`] is an end of the list.
    fn join(&mut self, previous: u32, next: u32) {
        match self.links.get_mut(previous as usize) {
            Some(link) => link.next = next,
            None => self.first = next,
        }
        match self.links.get_mut(next as usize) {
            Some(link) => link.previous = previous,
            None => self.last = previous,
        }
    }
}
