//! The entries of a shard in the order in which they expire.

use super::size::chunk;

/// No slot.
const NONE: u32 = u32::MAX;

/// A doubly linked list in one vector. Every entry of a shard stands in it once; removing one from the
/// middle is a matter of two neighbours, so it never holds anything that is gone and is never scanned.
///
/// All entries of a store live equally long, so pushing at the end keeps the list sorted.
#[derive(Debug, Default)]
pub(super) struct ExpiryList {
    slots: Vec<Slot>,
    len: usize,
    first: Option<u32>,
    last: Option<u32>,
    /// The first of the unused slots, linked by `next`.
    unused: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    expires: u64,
    previous: u32,
    next: u32,
}

/// The entry that expires next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) hash: u64,
    pub(super) expires: u64,
    pub(super) slot: u32,
}

const fn link(slot: u32) -> Option<u32> {
    if slot == NONE { None } else { Some(slot) }
}

impl ExpiryList {
    /// Appends an entry and gives its slot.
    pub(super) fn push(&mut self, hash: u64, expires: u64) -> u32 {
        let slot = Slot { hash, expires, previous: self.last.unwrap_or(NONE), next: NONE };
        let at = match self.unused {
            Some(at) => {
                self.unused = link(self.slots[at as usize].next);
                self.slots[at as usize] = slot;
                at
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    self.slots.reserve_exact(self.increment());
                }
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        match self.last {
            Some(last) => self.slots[last as usize].next = at,
            None => self.first = Some(at),
        }
        self.last = Some(at);
        self.len += 1;
        at
    }

    pub(super) fn remove(&mut self, at: u32) {
        let Slot { previous, next, .. } = self.slots[at as usize];
        match link(previous) {
            Some(previous) => self.slots[previous as usize].next = next,
            None => self.first = link(next),
        }
        match link(next) {
            Some(next) => self.slots[next as usize].previous = previous,
            None => self.last = link(previous),
        }
        self.slots[at as usize].next = self.unused.unwrap_or(NONE);
        self.unused = Some(at);
        self.len -= 1;
    }

    pub(super) fn first(&self) -> Option<Next> {
        let slot = self.first?;
        let Slot { hash, expires, .. } = self.slots[slot as usize];
        Some(Next { hash, expires, slot })
    }

    /// Moves the entries together and gives the rest of the memory back. The answer maps old slots to new.
    pub(super) fn compact(&mut self) -> Vec<u32> {
        let mut moved = vec![NONE; self.slots.len()];
        let mut slots = Vec::with_capacity(self.len);
        let mut at = self.first;
        while let Some(old) = at {
            let Slot { hash, expires, next, .. } = self.slots[old as usize];
            let new = slots.len() as u32;
            moved[old as usize] = new;
            let previous = new.checked_sub(1).unwrap_or(NONE);
            slots.push(Slot { hash, expires, previous, next: new + 1 });
            at = link(next);
        }
        if let Some(last) = slots.last_mut() {
            last.next = NONE;
        }
        let last = slots.len().checked_sub(1).map(|last| last as u32);
        *self = Self { len: slots.len(), first: last.map(|_| 0), last, unused: None, slots };
        moved
    }

    /// What it takes on the heap.
    pub(super) fn bytes(&self) -> usize {
        chunk(self.slots.capacity() * size_of::<Slot>())
    }

    /// What one more entry would add to that.
    pub(super) fn growth(&self) -> usize {
        if self.unused.is_some() || self.slots.len() < self.slots.capacity() {
            return 0;
        }
        chunk((self.slots.capacity() + self.increment()) * size_of::<Slot>()) - self.bytes()
    }

    /// Growing by half each time costs little and wastes little.
    fn increment(&self) -> usize {
        (self.slots.capacity() / 2).max(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(list: &ExpiryList) -> Vec<u64> {
        let mut hashes = Vec::new();
        let mut at = list.first;
        while let Some(slot) = at {
            hashes.push(list.slots[slot as usize].hash);
            at = link(list.slots[slot as usize].next);
        }
        hashes
    }

    #[test]
    fn entries_stay_in_order_whatever_is_removed_and_compacting_moves_them_together() {
        let mut list = ExpiryList::default();
        let slots: Vec<_> = (0..20).map(|n| list.push(n, n)).collect();
        for n in [0, 19, 7, 8, 3] {
            list.remove(slots[n]);
        }
        let again = list.push(100, 100);
        assert_eq!(again, slots[3], "the slot freed last is used first");
        let expected = [1, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 100];
        assert_eq!(order(&list), expected);
        let moved = list.compact();
        assert_eq!(order(&list), expected);
        assert_eq!((moved[slots[1] as usize], moved[again as usize]), (0, 15));
        assert_eq!(list.bytes(), chunk(16 * size_of::<Slot>()));
    }

    #[test]
    fn growth_is_foretold_exactly() {
        let mut list = ExpiryList::default();
        for n in 0..1_000 {
            let foretold = list.bytes() + list.growth();
            list.push(n, n);
            assert_eq!(list.bytes(), foretold);
        }
    }
}
