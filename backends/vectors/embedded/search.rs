//! Exact search over a snapshot.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::segment::{Row, RowPosition, Snapshot, check_running, normalise};
use crate::Result;
use crate::vectors::{
    CollectionConfig, Hit, HybridSearchRequest, Metric, QueryRequest, QueryVectors, SearchRequest,
    SparseVector,
};

/// Hits between two checks for cancellation.
const CHECK_EVERY: usize = 64;

/// The best hits of each query vector, found in one scan.
pub(super) fn search(
    snapshot: &Snapshot,
    config: &CollectionConfig,
    request: SearchRequest,
    stop: &CancellationToken,
) -> Result<Vec<Vec<Hit>>> {
    let SearchRequest { query_vectors, filter, output_fields, limit, offset, .. } = request;
    let mut best: Vec<_> = (0..query_vectors.len()).map(|_| TopK::new(limit + offset)).collect();
    let metric = match query_vectors {
        QueryVectors::Dense(mut queries) => {
            queries.iter_mut().for_each(|query| prepare(config.metric, query));
            snapshot.scan(config.dense_dim, filter.as_ref(), stop, |position, _, dense| {
                for (best, query) in best.iter_mut().zip(&queries) {
                    best.push(nearness(config.metric, dense, query), position);
                }
                true
            })?;
            config.metric
        }
        QueryVectors::Sparse(queries) => {
            snapshot.scan(config.dense_dim, filter.as_ref(), stop, |position, row, _| {
                for (best, query) in best.iter_mut().zip(&queries) {
                    push_sparse(best, row, query, position);
                }
                true
            })?;
            Metric::InnerProduct
        }
    };
    let fields = output_fields.as_deref();
    let hits = best.into_iter().map(|best| {
        let found = best.into_scores(metric).into_iter().skip(offset);
        collect_hits(snapshot, config, found, fields, stop)
    });
    hits.collect()
}

/// The best hits of both vectors, found in one scan and merged.
pub(super) fn hybrid_search(
    snapshot: &Snapshot,
    config: &CollectionConfig,
    mut request: HybridSearchRequest,
    stop: &CancellationToken,
) -> Result<Vec<Hit>> {
    prepare(config.metric, &mut request.dense);
    let candidates = request.offset + request.limit;
    let (mut dense_best, mut sparse_best) = (TopK::new(candidates), TopK::new(candidates));
    snapshot.scan(config.dense_dim, request.filter.as_ref(), stop, |position, row, dense| {
        dense_best.push(nearness(config.metric, dense, &request.dense), position);
        push_sparse(&mut sparse_best, row, &request.sparse, position);
        true
    })?;
    let dense = dense_best.into_scores(config.metric);
    let sparse = sparse_best.into_scores(Metric::InnerProduct);
    let merged = request.ranker.merge(config.metric, dense, sparse, candidates).into_iter().skip(request.offset);
    collect_hits(snapshot, config, merged, request.output_fields.as_deref(), stop)
}

/// The rows that match, in the order of their ids.
pub(super) fn query(
    snapshot: &Snapshot,
    config: &CollectionConfig,
    request: &QueryRequest,
    limit: usize,
    stop: &CancellationToken,
) -> Result<Vec<Hit>> {
    let mut skip = request.offset;
    let mut found = Vec::new();
    snapshot.scan(config.dense_dim, Some(&request.filter), stop, |position, _, _| {
        match skip.checked_sub(1) {
            Some(left) => skip = left,
            None => found.push((position, 0.0)),
        }
        found.len() < limit
    })?;
    collect_hits(snapshot, config, found.into_iter(), request.output_fields.as_deref(), stop)
}

fn collect_hits(
    snapshot: &Snapshot,
    config: &CollectionConfig,
    found: impl Iterator<Item = (RowPosition, f32)>,
    output_fields: Option<&[String]>,
    stop: &CancellationToken,
) -> Result<Vec<Hit>> {
    let hit = |(i, (position, score)): (usize, (RowPosition, f32))| {
        if i % CHECK_EVERY == 0 {
            check_running(stop)?;
        }
        let row = &snapshot.row(position).fields;
        let id = row.get(&config.pk_field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fields = match output_fields {
            None => row.clone(),
            Some(wanted) => {
                wanted.iter().filter_map(|name| Some((name.clone(), row.get(name)?.clone()))).collect()
            }
        };
        Ok(Hit::new(id, score, fields))
    };
    found.enumerate().map(hit).collect()
}

/// The greatest `k` of what is pushed.
struct TopK {
    k: usize,
    heap: BinaryHeap<Reverse<Scored>>,
}

impl TopK {
    fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    fn push(&mut self, nearness: f32, row: RowPosition) {
        let scored = Scored { nearness, row: Reverse(row) };
        if self.heap.len() < self.k {
            self.heap.push(Reverse(scored));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && scored > worst.0
        {
            *worst = Reverse(scored);
        }
    }

    /// Rows and scores, nearest first.
    fn into_scores(self, metric: Metric) -> Vec<(RowPosition, f32)> {
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

/// Brings a query vector into the form of the stored ones.
fn prepare(metric: Metric, query: &mut [f32]) {
    if metric == Metric::Cosine {
        normalise(query);
    }
}

/// The score, negated where lower is nearer. Finite, and never -0.
fn nearness(metric: Metric, vector: &[f32], query: &[f32]) -> f32 {
    let nearness = match metric {
        Metric::L2 => -sum_lanes(vector, query, |x, y| (x - y) * (x - y)),
        _ => sum_lanes(vector, query, |x, y| x * y),
    };
    if nearness.is_finite() {
        return nearness + 0.0;
    }
    let pairs = vector.iter().zip(query).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    clamp(match metric {
        Metric::L2 => -pairs.map(|(x, y)| (x - y) * (x - y)).sum::<f64>(),
        _ => pairs.map(|(x, y)| x * y).sum(),
    })
}

/// Sums over all pairs in lanes that the compiler keeps in vector registers.
#[inline(always)]
fn sum_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| term(*x, *y)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Scores a row if it has a dimension in common with the query, as an inverted index finds it.
fn push_sparse(best: &mut TopK, row: &Row, query: &SparseVector, position: RowPosition) {
    let mut common =
        row.sparse.iter().filter_map(|(dimension, x)| Some((*x, *query.get(dimension)?))).peekable();
    if common.peek().is_some() {
        let sum = common.map(|(x, y)| f64::from(x) * f64::from(y)).sum();
        best.push(clamp(sum), position);
    }
}

/// In doubles, products of floats do not overflow.
fn clamp(sum: f64) -> f32 {
    sum.clamp(f32::MIN.into(), f32::MAX.into()) as f32 + 0.0
}
