//! Exact search over a snapshot.

use std::ops::Range;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::codes::QueryCodes;
use super::row::normalise;
use super::segment::Segment;
use super::snapshot::{RowPosition, Snapshot, check_interval, check_running};
use super::sparse_index::Sums;
use super::top_k::TopK;
use crate::Result;
use crate::vectors::{
    CollectionConfig, Filter, Hit, HybridSearchRequest, Metric, QueryRequest, QueryVectors, SearchRequest,
    SparseVector,
};

/// Hits between two checks for cancellation.
const CHECK_EVERY: usize = 64;

/// A snapshot to search, and how.
pub(super) struct Search<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) config: &'a CollectionConfig,
    /// Number of parts that are scanned concurrently.
    pub(super) partitions: usize,
    pub(super) stop: &'a CancellationToken,
}

impl Search<'_> {
    /// The best hits of each query vector, found in one scan.
    pub(super) fn search(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        let SearchRequest { query_vectors, filter, output_fields, limit, offset, .. } = request;
        let (metric, best) = match query_vectors {
            QueryVectors::Dense(queries) => {
                (self.config.metric, self.scan(queries, &[], filter.as_ref(), limit + offset)?.dense)
            }
            QueryVectors::Sparse(queries) => (
                Metric::InnerProduct,
                self.scan(Vec::new(), &queries, filter.as_ref(), limit + offset)?.sparse,
            ),
        };
        let hits = best.into_iter().map(|best| {
            let found = best.into_scores(metric).into_iter().skip(offset);
            self.collect_hits(found, output_fields.as_deref())
        });
        hits.collect()
    }

    /// The best hits of both vectors, found in one scan and merged.
    pub(super) fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        let HybridSearchRequest { dense, sparse, ranker, filter, output_fields, limit, offset, .. } = request;
        let metric = self.config.metric;
        let candidates = offset + limit;
        let best = self.scan(vec![dense], &[sparse], filter.as_ref(), candidates)?;
        let scores =
            |best: Vec<TopK>, metric| best.into_iter().flat_map(move |best| best.into_scores(metric));
        let dense = scores(best.dense, metric).collect();
        let sparse = scores(best.sparse, Metric::InnerProduct).collect();
        let merged = ranker.merge(metric, dense, sparse, candidates).into_iter().skip(offset);
        self.collect_hits(merged, output_fields.as_deref())
    }

    /// The rows that match, in the order of their ids.
    pub(super) fn query(&self, request: &QueryRequest, limit: usize) -> Result<Vec<Hit>> {
        let mut skip = request.offset;
        let mut found = Vec::new();
        self.snapshot.scan(&request.filter, self.stop, |position| {
            match skip.checked_sub(1) {
                Some(left) => skip = left,
                None => found.push((position, 0.0)),
            }
            found.len() < limit
        })?;
        self.collect_hits(found.into_iter(), request.output_fields.as_deref())
    }

    /// The best `k` rows of each query vector.
    fn scan(
        &self,
        dense: Vec<Vec<f32>>,
        sparse: &[SparseVector],
        filter: Option<&Filter>,
        k: usize,
    ) -> Result<Best> {
        let dense: Vec<_> =
            dense.into_iter().map(|query| DenseQuery::new(self.config.metric, query)).collect();
        let scan = |segments: Range<usize>| {
            let mut best = Best::new(dense.len(), sparse.len(), k);
            for position in segments {
                self.scan_segment(position, &dense, sparse, filter, &mut best)?;
            }
            Ok(best)
        };
        let parts = self.snapshot.scan_partitions(self.partitions, scan)?;
        Ok(parts.into_iter().reduce(Best::merge).unwrap_or_else(|| Best::new(dense.len(), sparse.len(), k)))
    }

    /// Evaluates the filter only on rows that would be among the best, which finds the same ones.
    fn scan_segment(
        &self,
        position: usize,
        dense: &[DenseQuery],
        sparse: &[SparseVector],
        filter: Option<&Filter>,
        best: &mut Best,
    ) -> Result<()> {
        let segment = self.snapshot.segment(position);
        let products: Vec<Sums> = sparse.iter().map(|query| segment.sparse_products(query)).collect();
        let check_every = check_interval(filter);
        for row in 0..segment.len() {
            if row % check_every == 0 {
                check_running(self.stop)?;
            }
            let mut is_match = None;
            let mut matches = || {
                let matches = || filter.is_none_or(|filter| filter.matches(&segment.row(row).fields));
                *is_match.get_or_insert_with(matches)
            };
            for (best, query) in best.dense.iter_mut().zip(dense) {
                if !query.is_excluded(segment, row, best) && matches() {
                    best.push(query.nearness(segment, row), (position, row));
                }
            }
            for (best, products) in best.sparse.iter_mut().zip(&products) {
                // As in Milvus, what has a score of 0 is not found.
                let sum = clamp(products.get(row));
                if sum > 0.0 && !best.excludes(sum.into()) && matches() {
                    best.push(sum, (position, row));
                }
            }
        }
        Ok(())
    }

    fn collect_hits(
        &self,
        found: impl Iterator<Item = (RowPosition, f32)>,
        output_fields: Option<&[String]>,
    ) -> Result<Vec<Hit>> {
        let hit = |(i, (position, score)): (usize, (RowPosition, f32))| {
            if i % CHECK_EVERY == 0 {
                check_running(self.stop)?;
            }
            let row = &self.snapshot.row(position).fields;
            let id = row.get(&self.config.pk_field).and_then(Value::as_str).unwrap_or_default().to_owned();
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
}

/// The best rows of each query vector.
struct Best {
    dense: Vec<TopK>,
    sparse: Vec<TopK>,
}

impl Best {
    fn new(dense: usize, sparse: usize, k: usize) -> Self {
        let best = |queries| (0..queries).map(|_| TopK::new(k)).collect();
        Self { dense: best(dense), sparse: best(sparse) }
    }

    fn merge(mut self, other: Self) -> Self {
        let mine = self.dense.iter_mut().chain(&mut self.sparse);
        mine.zip(other.dense.into_iter().chain(other.sparse)).for_each(|(mine, other)| mine.merge(other));
        self
    }
}

struct DenseQuery {
    metric: Metric,
    vector: Vec<f32>,
    codes: Option<QueryCodes>,
}

impl DenseQuery {
    /// Brings a query vector into the form of the stored ones.
    fn new(metric: Metric, mut vector: Vec<f32>) -> Self {
        if metric == Metric::Cosine {
            normalise(&mut vector);
        }
        Self { metric, codes: QueryCodes::new(metric, &vector), vector }
    }

    /// Whether the codes of a row say that it is not among the best.
    fn is_excluded(&self, segment: &Segment, row: usize, best: &TopK) -> bool {
        best.is_full()
            && self
                .codes
                .as_ref()
                .is_some_and(|codes| best.excludes(codes.max_nearness(segment.codes(), row)))
    }

    fn nearness(&self, segment: &Segment, row: usize) -> f32 {
        nearness(self.metric, segment.dense(row, self.vector.len()), &self.vector)
    }
}

/// The score, negated where lower is nearer. Finite, and never -0.
pub(super) fn nearness(metric: Metric, vector: &[f32], query: &[f32]) -> f32 {
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

fn clamp(sum: f64) -> f32 {
    sum.clamp(f32::MIN.into(), f32::MAX.into()) as f32 + 0.0
}
