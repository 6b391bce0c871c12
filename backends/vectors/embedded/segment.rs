//! Immutable segments of rows.

use std::sync::Arc;

use super::codes::Codes;
use super::row::Row;
use super::sparse_index::{SparseIndex, Sums};
use crate::vectors::SparseVector;

/// Rows in the order of their ids, their dense vectors one after the other.
#[derive(Debug, Default)]
pub(super) struct Segment {
    rows: Vec<Arc<Row>>,
    dense: Vec<f32>,
    codes: Codes,
    /// Of a segment that no more rows are added to.
    sparse: Option<SparseIndex>,
    row_bytes: u64,
    sparse_entries: usize,
}

/// Entries of sparse vectors in a full segment: few enough to index them within an insert.
const MAX_SPARSE_ENTRIES: usize = 16 * 1024;

impl Segment {
    pub(super) fn with_capacity(rows: usize, dim: usize) -> Self {
        Self {
            rows: Vec::with_capacity(rows),
            dense: Vec::with_capacity(rows * dim),
            codes: Codes::with_capacity(rows, dim),
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, row: Arc<Row>, dense: &[f32]) {
        self.codes.push(dense);
        self.push_row(row, dense);
    }

    /// Adds a row of another segment.
    pub(super) fn push_from(&mut self, other: &Self, row: usize, dim: usize) {
        self.codes.push_from(&other.codes, row, dim);
        self.push_row(Arc::clone(&other.rows[row]), other.dense(row, dim));
    }

    fn push_row(&mut self, row: Arc<Row>, dense: &[f32]) {
        self.row_bytes += row.bytes;
        self.sparse_entries += row.sparse.len();
        self.rows.push(row);
        self.dense.extend_from_slice(dense);
    }

    /// Whether no more rows should be added, of which there are at most `max_rows`.
    pub(super) fn is_full(&self, max_rows: usize) -> bool {
        self.rows.len() >= max_rows || self.sparse_entries >= MAX_SPARSE_ENTRIES
    }

    /// Gives unused memory back. One that is `full` gets its index of sparse vectors.
    pub(super) fn close(&mut self, full: bool) {
        self.rows.shrink_to_fit();
        self.dense.shrink_to_fit();
        self.codes.shrink_to_fit();
        if full && self.sparse_entries > 0 {
            self.sparse = Some(SparseIndex::new(self.rows.iter().map(|row| &*row.sparse)));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, row: usize) -> &Row {
        &self.rows[row]
    }

    pub(super) fn dense(&self, row: usize, dim: usize) -> &[f32] {
        &self.dense[row * dim..(row + 1) * dim]
    }

    pub(super) fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The products of each row with a sparse vector.
    pub(super) fn sparse_products(&self, query: &SparseVector) -> Sums {
        let mut sums = Sums::new(self.rows.len());
        match &self.sparse {
            Some(index) => index.add_products(query, &mut sums),
            None => {
                for (n, row) in self.rows.iter().enumerate() {
                    let common = row.sparse.iter().filter_map(|(d, weight)| Some((*weight, *query.get(d)?)));
                    common.for_each(|(x, y)| sums.add(n, x, y));
                }
            }
        }
        sums
    }

    pub(super) fn row_bytes(&self) -> u64 {
        self.row_bytes
    }

    pub(super) fn bytes(&self) -> u64 {
        let heap =
            self.rows.capacity() * size_of::<Arc<Row>>() + self.dense.capacity() * 4 + self.codes.bytes();
        let index = self.sparse.as_ref().map_or(0, SparseIndex::bytes);
        (size_of::<Self>() + 16 + heap + index) as u64 + self.row_bytes
    }
}
