//! The best rows of a search.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::snapshot::RowPosition;
use crate::vectors::Metric;

/// The greatest `k` of what is pushed.
pub(super) struct TopK {
    k: usize,
    heap: BinaryHeap<Reverse<Scored>>,
}

impl TopK {
    pub(super) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    pub(super) fn push(&mut self, nearness: f32, row: RowPosition) {
        let scored = Scored { nearness, row: Reverse(row) };
        if self.heap.len() < self.k {
            self.heap.push(Reverse(scored));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && scored > worst.0
        {
            *worst = Reverse(scored);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.heap.len() == self.k
    }

    /// Whether a row of at most this nearness is certainly not among them.
    pub(super) fn excludes(&self, max_nearness: f64) -> bool {
        self.is_full() && self.heap.peek().is_some_and(|worst| max_nearness < f64::from(worst.0.nearness))
    }

    pub(super) fn merge(&mut self, other: Self) {
        other.heap.into_iter().for_each(|Reverse(scored)| self.push(scored.nearness, scored.row.0));
    }

    /// Rows and scores, nearest first.
    pub(super) fn into_scores(self, metric: Metric) -> Vec<(RowPosition, f32)> {
        let sign = if metric.higher_is_nearer() { 1.0 } else { -1.0 };
        // Ascending order of the reversed is descending order. Adding zero turns -0 into 0.
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|Reverse(scored)| (scored.row.0, scored.nearness * sign + 0.0)).collect()
    }
}

/// A scored row, ordered so that the best is the greatest: by nearness, then by the lower position.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scored {
    nearness: f32,
    row: Reverse<RowPosition>,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nearness.total_cmp(&other.nearness).then(self.row.cmp(&other.row))
    }
}
