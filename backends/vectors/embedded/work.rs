//! How much work a read or write is: whether it may run on a thread that runs async tasks, and on how many others.

use super::snapshot::Snapshot;
use crate::vectors::{
    CollectionConfig, Entity, Filter, HybridSearchRequest, QueryVectors, SearchRequest, SparseVector,
};

/// Up to this much work is done on the caller's thread: well below a millisecond.
const SMALL: u64 = 1 << 18;
/// Work from which another thread pays.
const PARTITION: u64 = 4 << 20;
/// Elements of query vectors above which they are checked on a thread of the store.
const MAX_CHECKED: usize = 256 * 1024;
/// Bytes of entities above which an insert moves to a thread of the store.
const SMALL_INSERT_BYTES: usize = 256 * 1024;

/// The work of a read, before it is known on how many rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    /// Comparisons of the filter with one row.
    filter: u64,
    /// Multiplications with one row.
    multiplications: u64,
    sparse_queries: u64,
    queries: u64,
    limit: u64,
}

impl Work {
    pub(super) fn search(config: &CollectionConfig, request: &SearchRequest) -> Self {
        let queries = request.query_vectors.len() as u64;
        let (dense, sparse) = match &request.query_vectors {
            QueryVectors::Dense(_) => (queries, 0),
            QueryVectors::Sparse(_) => (0, queries),
        };
        Self {
            filter: filter_cost(request.filter.as_ref()),
            multiplications: dense.saturating_mul(config.dense_dim as u64),
            sparse_queries: sparse,
            queries,
            limit: request.limit.saturating_add(request.offset) as u64,
        }
    }

    pub(super) fn hybrid_search(config: &CollectionConfig, request: &HybridSearchRequest) -> Self {
        Self {
            filter: filter_cost(request.filter.as_ref()),
            multiplications: config.dense_dim as u64,
            sparse_queries: 1,
            queries: 1,
            limit: request.limit.saturating_add(request.offset) as u64,
        }
    }

    /// A query or a delete.
    pub(super) fn query(filter: &Filter, limit: usize) -> Self {
        Self { filter: filter_cost(Some(filter)), queries: 1, limit: limit as u64, ..Self::default() }
    }

    /// An estimate in nanoseconds.
    fn on(&self, snapshot: &Snapshot) -> u64 {
        let (rows, bytes) = (snapshot.len() as u64, snapshot.row_bytes());
        let filter = self.filter.saturating_mul(rows.saturating_mul(32).saturating_add(bytes));
        let sparse = self.sparse_queries.saturating_mul(bytes).saturating_mul(2);
        let hits = self.queries.saturating_mul(self.limit.min(rows));
        let copies = hits.saturating_mul(512 + bytes / rows.max(1));
        let scan = self.multiplications.saturating_mul(rows);
        filter.saturating_add(sparse).saturating_add(copies).saturating_add(scan)
    }

    /// Whether it can be done on the caller's thread.
    pub(super) fn is_small(&self, snapshot: &Snapshot) -> bool {
        self.on(snapshot) <= SMALL
    }

    /// The number of threads that it is worth. Queries stop at their limit, so they have one.
    pub(super) fn partitions(&self, snapshot: &Snapshot) -> usize {
        if self.multiplications + self.sparse_queries == 0 {
            return 1;
        }
        (self.on(snapshot) / PARTITION).clamp(1, 64) as usize
    }
}

fn filter_cost(filter: Option<&Filter>) -> u64 {
    filter.map_or(0, |filter| filter.cost() as u64)
}

/// Whether entities are few and short enough to insert on the caller's thread.
pub(super) fn is_small_insert(entities: &[Entity]) -> bool {
    let mut left = SMALL_INSERT_BYTES;
    entities.iter().all(|entity| {
        left = left.saturating_sub(entity.approximate_bytes(left));
        left > 0
    })
}

/// Whether query vectors can be checked on the caller's thread.
pub(super) fn is_small_query(vectors: &QueryVectors) -> bool {
    let elements = match vectors {
        QueryVectors::Dense(vectors) => vectors.iter().map(Vec::len).sum::<usize>(),
        QueryVectors::Sparse(vectors) => vectors.iter().map(SparseVector::len).sum(),
    };
    elements < MAX_CHECKED
}
