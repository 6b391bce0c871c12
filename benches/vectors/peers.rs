//! What a user would write or choose instead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use instant_distance::{Builder, Hnsw, PointId, Search};
use simsimd::SpatialSimilarity;

use crate::data::LIMIT;

pub(crate) const SIMSIMD: &str = "loop over simsimd 6.5";
pub(crate) const LOOP: &str = "plain loop";
pub(crate) const HNSW: &str = "instant-distance 0.6 (HNSW)";

/// Inner product of floats with the instructions of this processor.
pub(crate) fn simsimd_dot(a: &[f32], b: &[f32]) -> f32 {
    f32::dot(a, b).expect("same length") as f32
}

/// Inner product as one writes it.
pub(crate) fn plain_dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The best rows by a scan of all that `is_match` lets through.
pub(crate) fn brute_force(
    rows: &[Vec<f32>],
    query: &[f32],
    dot: fn(&[f32], &[f32]) -> f32,
    is_match: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let mut best = BinaryHeap::new();
    for (number, row) in rows.iter().enumerate().filter(|(number, _)| is_match(*number)) {
        // The bits of a score of unit vectors, moved above zero, are in the order of the scores.
        let score = (dot(row, query) + 2.0).to_bits();
        best.push(Reverse((score, Reverse(number))));
        if best.len() > LIMIT {
            best.pop();
        }
    }
    best.into_sorted_vec().into_iter().map(|Reverse((_, Reverse(number)))| number).collect()
}

#[derive(Clone)]
struct Point(Vec<f32>);

impl instant_distance::Point for Point {
    fn distance(&self, other: &Self) -> f32 {
        1.0 - simsimd_dot(&self.0, &other.0)
    }
}

/// A graph of neighbours.
pub(crate) struct Graph {
    graph: Hnsw<Point>,
    /// Numbers of the rows by point.
    numbers: Vec<usize>,
}

impl Graph {
    pub(crate) fn new(rows: &[Vec<f32>], candidates: usize) -> Self {
        let points = rows.iter().cloned().map(Point).collect();
        let (graph, ids) = Builder::default().seed(1).ef_search(candidates).build_hnsw(points);
        let mut numbers = vec![0; ids.len()];
        for (number, id) in ids.into_iter().enumerate() {
            numbers[PointId::into_inner(id) as usize] = number;
        }
        Self { graph, numbers }
    }

    /// The best rows among the candidates that `is_match` lets through.
    pub(crate) fn search(&self, query: &[f32], is_match: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut search = Search::default();
        let found = self.graph.search(&Point(query.to_vec()), &mut search);
        let numbers = found.map(|item| self.numbers[item.pid.into_inner() as usize]);
        numbers.filter(|number| is_match(*number)).take(LIMIT).collect()
    }
}

/// How many of the true best rows were found, from 0 to 1.
pub(crate) fn recall(found: &[Vec<usize>], truth: &[Vec<usize>]) -> f64 {
    let hits =
        |(found, truth): (&Vec<usize>, &Vec<usize>)| truth.iter().filter(|n| found.contains(n)).count();
    let all: usize = truth.iter().map(Vec::len).sum();
    found.iter().zip(truth).map(hits).sum::<usize>() as f64 / all as f64
}
