//! Searches and queries.

use serde::{Deserialize, Serialize};

use super::{Filter, Ranker, SparseVector};

/// Default number of hits, as in Python.
const DEFAULT_LIMIT: usize = 3;

/// Which acknowledged writes a request sees, with Milvus's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Consistency {
    /// All writes by all clients.
    Strong,
    /// All writes by all clients until a few seconds ago.
    Bounded,
    /// All writes made through this store. The default.
    #[default]
    Session,
    /// Writes become visible at some time.
    Eventually,
}

/// Query vectors of one kind; each has its own hits.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryVectors {
    /// Dense vectors.
    Dense(Vec<Vec<f32>>),
    /// Sparse vectors.
    Sparse(Vec<SparseVector>),
}

impl QueryVectors {
    /// Number of query vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Dense(vectors) => vectors.len(),
            Self::Sparse(vectors) => vectors.len(),
        }
    }

    /// Whether there are no query vectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<f32>> for QueryVectors {
    fn from(vector: Vec<f32>) -> Self {
        Self::Dense(vec![vector])
    }
}

impl From<Vec<Vec<f32>>> for QueryVectors {
    fn from(vectors: Vec<Vec<f32>>) -> Self {
        Self::Dense(vectors)
    }
}

impl From<SparseVector> for QueryVectors {
    fn from(vector: SparseVector) -> Self {
        Self::Sparse(vec![vector])
    }
}

impl From<Vec<SparseVector>> for QueryVectors {
    fn from(vectors: Vec<SparseVector>) -> Self {
        Self::Sparse(vectors)
    }
}

/// A search by dense or by sparse vectors.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SearchRequest {
    /// The query vectors.
    pub query_vectors: QueryVectors,
    /// Restricts the search to matching entities.
    pub filter: Option<Filter>,
    /// Fields of the hits; all but vectors if unset.
    pub output_fields: Option<Vec<String>>,
    /// Maximum number of hits per query vector. Default: 3, as in Python.
    pub limit: usize,
    /// Number of best hits to skip. Default: 0.
    pub offset: usize,
    /// Which writes it sees.
    pub consistency: Consistency,
}

impl SearchRequest {
    /// A search by one or several dense or sparse vectors.
    #[must_use]
    pub fn new(query_vectors: impl Into<QueryVectors>) -> Self {
        Self {
            query_vectors: query_vectors.into(),
            filter: None,
            output_fields: None,
            limit: DEFAULT_LIMIT,
            offset: 0,
            consistency: Consistency::default(),
        }
    }
}

/// A search by a dense and a sparse vector together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HybridSearchRequest {
    /// The dense query vector.
    pub dense: Vec<f32>,
    /// The sparse query vector.
    pub sparse: SparseVector,
    /// How both lists of hits are merged. Default: weighted, 0.5 each, as in Python.
    pub ranker: Ranker,
    /// Restricts the search to matching entities.
    pub filter: Option<Filter>,
    /// Fields of the hits; all but vectors if unset.
    pub output_fields: Option<Vec<String>>,
    /// Maximum number of hits. Each vector contributes its best `offset + limit`. Default: 3, as in Python.
    pub limit: usize,
    /// Number of best hits to skip. Default: 0.
    pub offset: usize,
    /// Which writes it sees.
    pub consistency: Consistency,
}

impl HybridSearchRequest {
    /// A search by both vectors.
    #[must_use]
    pub fn new(dense: Vec<f32>, sparse: SparseVector) -> Self {
        Self {
            dense,
            sparse,
            ranker: Ranker::default(),
            filter: None,
            output_fields: None,
            limit: DEFAULT_LIMIT,
            offset: 0,
            consistency: Consistency::default(),
        }
    }

    /// Sets how both lists of hits are merged.
    #[must_use]
    pub fn with_ranker(mut self, ranker: Ranker) -> Self {
        self.ranker = ranker;
        self
    }
}

/// A query by filter alone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QueryRequest {
    /// Selects the entities.
    pub filter: Filter,
    /// Fields of the entities; all but vectors if unset.
    pub output_fields: Option<Vec<String>>,
    /// Maximum number of entities; if unset, the maximum that [`validation`](super::validation) allows.
    pub limit: Option<usize>,
    /// Number of entities to skip. Default: 0.
    pub offset: usize,
    /// Which writes it sees.
    pub consistency: Consistency,
}

impl QueryRequest {
    /// All entities that match, up to the maximum.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, output_fields: None, limit: None, offset: 0, consistency: Consistency::default() }
    }

    /// Sets the maximum number of entities.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Setters that requests have in common.
macro_rules! setters {
    ($($request:ident)+) => {$(
        impl $request {
            /// Sets the fields of the hits.
            #[must_use]
            pub fn with_output_fields(mut self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
                self.output_fields = Some(fields.into_iter().map(Into::into).collect());
                self
            }

            /// Sets the number of hits to skip.
            #[must_use]
            pub fn with_offset(mut self, offset: usize) -> Self {
                self.offset = offset;
                self
            }

            /// Sets which writes it sees.
            #[must_use]
            pub fn with_consistency(mut self, consistency: Consistency) -> Self {
                self.consistency = consistency;
                self
            }
        }
    )+};
}

setters!(SearchRequest HybridSearchRequest QueryRequest);

/// Setters that searches have in common.
macro_rules! search_setters {
    ($($request:ident)+) => {$(
        impl $request {
            /// Sets the maximum number of hits, of each query vector where there are several.
            #[must_use]
            pub fn with_limit(mut self, limit: usize) -> Self {
                self.limit = limit;
                self
            }

            /// Restricts the search to matching entities.
            #[must_use]
            pub fn with_filter(mut self, filter: Filter) -> Self {
                self.filter = Some(filter);
                self
            }
        }
    )+};
}

search_setters!(SearchRequest HybridSearchRequest);
