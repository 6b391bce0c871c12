//! The inverted index of the sparse vectors of a segment.

use crate::vectors::SparseVector;

/// For each dimension, ascending, the rows that have it and their weights.
#[derive(Debug)]
pub(super) struct SparseIndex {
    dimensions: Box<[u32]>,
    /// Where the postings of each dimension end.
    ends: Box<[u32]>,
    postings: Box<[(u32, f32)]>,
}

impl SparseIndex {
    /// The index of rows of dimensions and weights.
    pub(super) fn new<'a>(rows: impl Iterator<Item = &'a [(u32, f32)]>) -> Self {
        let entries =
            rows.zip(0_u32..).flat_map(|(row, n)| row.iter().map(move |(d, weight)| (*d, n, *weight)));
        let mut entries: Vec<(u32, u32, f32)> = entries.collect();
        entries.sort_unstable_by_key(|(dimension, row, _)| (*dimension, *row));
        let (mut dimensions, mut ends) = (Vec::new(), Vec::new());
        for (end, (dimension, ..)) in (1..).zip(&entries) {
            if dimensions.last() != Some(dimension) {
                dimensions.push(*dimension);
                ends.push(end);
            } else if let Some(last) = ends.last_mut() {
                *last = end;
            }
        }
        let postings = entries.into_iter().map(|(_, row, weight)| (row, weight)).collect();
        Self { dimensions: dimensions.into(), ends: ends.into(), postings }
    }

    pub(super) fn bytes(&self) -> usize {
        48 + self.dimensions.len() * 8 + self.postings.len() * size_of::<(u32, f32)>()
    }

    /// Adds the products with a query to the sums of the rows.
    pub(super) fn add_products(&self, query: &SparseVector, sums: &mut Sums) {
        for (dimension, weight) in query {
            let Ok(found) = self.dimensions.binary_search(dimension) else { continue };
            let start = found.checked_sub(1).map_or(0, |before| self.ends[before]);
            for (row, other) in &self.postings[start as usize..self.ends[found] as usize] {
                sums.add(*row as usize, *other, *weight);
            }
        }
    }
}

/// The sum of products of each row with one query: 0 for rows that have nothing in common with it.
pub(super) struct Sums(Vec<f64>);

impl Sums {
    pub(super) fn new(rows: usize) -> Self {
        Self(vec![0.0; rows])
    }

    /// In doubles, products of floats do not overflow.
    pub(super) fn add(&mut self, row: usize, x: f32, y: f32) {
        self.0[row] += f64::from(x) * f64::from(y);
    }

    pub(super) fn get(&self, row: usize) -> f64 {
        self.0[row]
    }
}
