//! Numbers for pages and for entries, given out from zero and used again.

use std::io;

use super::maps::{SMALL_MAP, SpareMaps, Table};

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// The numbers below a maximum, in use or free.
pub(super) struct Numbers {
    max: usize,
    free: Table<u32, SMALL_MAP>,
    free_count: usize,
}

impl Numbers {
    pub(super) fn new(spare: SpareMaps) -> Self {
        Self { max: 0, free: Table::new(spare), free_count: 0 }
    }

    pub(super) fn used(&self) -> usize {
        self.max - self.free_count
    }

    pub(super) fn free(&self) -> usize {
        self.free_count
    }

    /// Makes it possible to take `count` numbers, and returns the length of tables that have an element for each number.
    ///
    /// # Errors
    /// The system's, when it has no memory left.
    pub(super) fn reserve(&mut self, count: usize) -> io::Result<usize> {
        let max = self.max.max(self.used() + count);
        self.free.reserve(max)?;
        Ok(max)
    }

    /// Takes a number, which was [reserved](Self::reserve).
    pub(super) fn take(&mut self) -> u32 {
        match self.free_count.checked_sub(1) {
            Some(last) => {
                self.free_count = last;
                self.free[last as u32]
            }
            None => {
                self.max += 1;
                self.max as u32 - 1
            }
        }
    }

    /// Frees a number.
    pub(super) fn put(&mut self, number: u32) {
        self.free[self.free_count as u32] = number;
        self.free_count += 1;
    }

    /// Lowers the maximum. Returns the numbers in use that are too high, each with a free one that is now taken instead.
    pub(super) fn lower_max(&mut self, max: usize) -> Vec<(u32, u32)> {
        let mut is_used = vec![true; self.max - max];
        let free_count = std::mem::take(&mut self.free_count);
        for at in 0..free_count as u32 {
            let number = self.free[at];
            match (number as usize).checked_sub(max) {
                Some(too_high) => is_used[too_high] = false,
                None => self.put(number),
            }
        }
        self.max = max;
        let too_high = (max as u32..).zip(is_used).filter(|(_, is_used)| *is_used).map(|(number, _)| number);
        let moves = too_high.map(|number| (number, self.take())).collect();
        self.free.shrink_to(max);
        moves
    }
}
