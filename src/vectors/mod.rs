//! Vector storage: the seam, its types and the filter language.

mod filter;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::component::Component;
use crate::error::{Error, ErrorKind, Result};

pub use filter::{Filter, MAX_FILTER_BYTES, MAX_FILTER_DEPTH};

/// A sparse vector: dimension to weight.
pub type SparseVector = BTreeMap<u32, f32>;

/// A collection and its fields (Python: `ICollectionConfig`).
#[doc(alias = "ICollectionConfig")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionConfig {
    /// Its name.
    pub collection_name: String,
    /// Dimensions of the dense vector.
    pub dense_dim: usize,
    /// The field of the text.
    pub text_field: String,
    /// The primary key's field.
    pub pk_field: String,
    /// The dense vector's field.
    pub dense_field: String,
    /// The sparse vector's field.
    pub sparse_field: String,
    /// The metadata's field.
    pub metadata_field: String,
    /// Whether it has sparse vectors and hybrid search.
    pub is_hybrid: bool,
    /// Further typed fields, in order.
    pub extra_fields: Vec<ExtraField>,
}

impl CollectionConfig {
    /// A dense collection with Python arshai's field names.
    pub fn new(collection_name: impl Into<String>, dense_dim: usize) -> Self {
        Self {
            collection_name: collection_name.into(),
            dense_dim,
            text_field: "content".into(),
            pk_field: "doc_id".into(),
            dense_field: "dense_vector".into(),
            sparse_field: "sparse_vector".into(),
            metadata_field: "metadata".into(),
            is_hybrid: false,
            extra_fields: Vec::new(),
        }
    }

    /// Gives it sparse vectors and hybrid search.
    #[must_use]
    pub fn hybrid(mut self) -> Self {
        self.is_hybrid = true;
        self
    }

    /// Adds a typed field.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, field_type: FieldType) -> Self {
        self.extra_fields.push(ExtraField { name: name.into(), field_type });
        self
    }
}

/// A further typed field of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
}

/// Types of fields, as Milvus has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FieldType {
    /// Text of at most 65 535 bytes.
    VarChar,
    /// A 64-bit integer.
    Int64,
    /// A 32-bit float.
    Float,
    /// True or false.
    Bool,
    /// Any JSON of at most 65 536 bytes as text, like the metadata.
    Json,
}

/// One thing to insert: text, metadata, typed fields and its vectors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entity {
    /// Fields by name. The text is under `content` or the collection's text field, metadata under
    /// `metadata` or the collection's metadata field.
    pub fields: Map<String, Value>,
    /// The dense vector.
    pub dense: Vec<f32>,
    /// The sparse vector, of hybrid collections.
    pub sparse: Option<SparseVector>,
}

impl Entity {
    /// `content` with its dense vector.
    pub fn new(content: impl Into<String>, dense: Vec<f32>) -> Self {
        let mut fields = Map::new();
        fields.insert("content".into(), Value::String(content.into()));
        Self { fields, dense, sparse: None }
    }

    /// Sets a field.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Sets the metadata, an object.
    #[must_use]
    pub fn with_metadata(self, metadata: Value) -> Self {
        self.with_field("metadata", metadata)
    }

    /// Sets the sparse vector.
    #[must_use]
    pub fn with_sparse(mut self, sparse: SparseVector) -> Self {
        self.sparse = Some(sparse);
        self
    }
}

/// Keeps entities with their vectors and finds the nearest (Python: `IVectorDBClient`).
///
/// # Contract
/// - **Collections** are created by the first use and by [`get_or_create_collection`]; every method does so with the
///   configuration it is given. A configuration that differs from the collection's is an error.
/// - **Insert** takes all entities of a call or none: a missing text, a wrong dimension, a number that is not finite,
///   a field the collection lacks or a full store refuse the call, and nothing of it is kept. Ids are given by the
///   store, texts of at most 100 bytes, in the order of the entities. An acknowledged insert is seen by every later
///   search.
/// - **Search** orders by score, highest first, and by id where scores are equal. The score is the inner product; of a
///   hybrid search the weighted sum of both scores, each brought into 0 to 1 by `0.5 + atan(score)/π`, which is what
///   Milvus does. Filters are applied before the search: with enough matches there are always `limit` hits.
/// - **Delete** with a filter that matches everything is allowed; a filter that is missing is not, for there is no
///   empty filter.
/// - **Cancellation.** A dropped future leaves an insert or delete either done whole or not begun.
///   [`bulk_insert_optimized`] may stop between batches.
/// - **Bounds.** The store holds at most its budget of bytes; an insert beyond is refused with
///   [`ErrorKind::Capacity`] and nothing is lost.
///
/// `arshai::contract::vectors` (feature `contract`) tests all of this on any backend.
///
/// [`get_or_create_collection`]: Self::get_or_create_collection
/// [`bulk_insert_optimized`]: Self::bulk_insert_optimized
#[doc(alias = "IVectorDBClient")]
#[async_trait]
pub trait VectorStore: Component {
    /// Connects, where there is something to connect to.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    async fn connect(&self) -> Result<()>;

    /// Makes sure that the collection exists.
    ///
    /// # Errors
    /// `InvalidInput` when the configuration is not valid or differs from the existing collection's.
    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<()>;

    /// Inserts one entity and gives its id.
    ///
    /// # Errors
    /// As [`insert_entities`](Self::insert_entities).
    async fn insert_entity(&self, config: &CollectionConfig, entity: Entity) -> Result<String> {
        let ids = self.insert_entities(config, vec![entity]).await?;
        ids.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "vectors", "the backend gave no id for the entity it inserted")
        })
    }

    /// Inserts entities, all or none, and gives their ids in order.
    ///
    /// # Errors
    /// `InvalidInput` naming the first bad entity, `Capacity` when the store is full.
    async fn insert_entities(&self, config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<String>>;

    /// Inserts many entities in batches, telling `progress` how many are in after each. A batch that fails ends it;
    /// the report says what was written, so that the rest can be inserted later.
    ///
    /// # Errors
    /// What makes the collection unusable. A failing batch is in the report instead.
    async fn bulk_insert_optimized(
        &self,
        config: &CollectionConfig,
        entities: Vec<Entity>,
        progress: Option<&Progress>,
    ) -> Result<BulkInsertReport>;

    /// The entities nearest to each query vector.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong dimension, a number that is not finite, or a field that does not exist.
    async fn search_by_vector(
        &self,
        config: &CollectionConfig,
        request: SearchRequest,
    ) -> Result<Vec<Vec<Hit>>>;

    /// The entities nearest to a dense and a sparse vector together.
    ///
    /// # Errors
    /// As [`search_by_vector`](Self::search_by_vector); `InvalidInput` when the collection is not hybrid.
    async fn hybrid_search(&self, config: &CollectionConfig, request: HybridRequest) -> Result<Vec<Hit>>;

    /// The entities that match `filter`, in the order of their ids, without their vectors. `output_fields` defaults to
    /// all; `limit` to 16 384, Milvus's most.
    ///
    /// # Errors
    /// `InvalidInput` for a field that does not exist.
    async fn query_by_expr(
        &self,
        config: &CollectionConfig,
        filter: &Filter,
        output_fields: Option<&[String]>,
        limit: Option<usize>,
    ) -> Result<Vec<Hit>>;

    /// Deletes the entities that match `filter`; gives how many there were.
    ///
    /// # Errors
    /// `InvalidInput` for a field that does not exist.
    async fn delete_entity(&self, config: &CollectionConfig, filter: &Filter) -> Result<u64>;

    /// What the collection holds.
    ///
    /// # Errors
    /// As [`get_or_create_collection`](Self::get_or_create_collection).
    async fn get_collection_stats(&self, config: &CollectionConfig) -> Result<CollectionStats>;

    /// Counters and bounds, as of now.
    fn stats(&self) -> VectorStats;

    /// What this backend does beyond or short of the contract.
    fn capabilities(&self) -> VectorCapabilities;
}

/// Told how many entities of a bulk insert are in so far.
pub type Progress = dyn Fn(usize) + Send + Sync;

/// What to search for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SearchRequest {
    /// The query vectors; each gets its own hits.
    pub query_vectors: Vec<Vec<f32>>,
    /// Which entities count.
    pub filter: Option<Filter>,
    /// The fields to give back; all but vectors if unset.
    pub output_fields: Option<Vec<String>>,
    /// Hits per query vector. Default: 3, as in Python.
    pub limit: usize,
}

impl SearchRequest {
    /// The three entities nearest to `query`.
    #[must_use]
    pub fn new(query: Vec<f32>) -> Self {
        Self { query_vectors: vec![query], filter: None, output_fields: None, limit: 3 }
    }

    /// Sets how many hits to give.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Sets which entities count.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Sets the fields to give back.
    #[must_use]
    pub fn with_output_fields(mut self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.output_fields = Some(fields.into_iter().map(Into::into).collect());
        self
    }
}

/// What to search for by both vectors.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HybridRequest {
    /// The dense query vector.
    pub dense: Vec<f32>,
    /// The sparse query vector.
    pub sparse: SparseVector,
    /// The weights of the dense and the sparse score. Default: 0.5 each, as in Python.
    pub weights: (f32, f32),
    /// Which entities count.
    pub filter: Option<Filter>,
    /// The fields to give back; all but vectors if unset.
    pub output_fields: Option<Vec<String>>,
    /// Hits, and candidates taken from each of the two searches. Default: 3, as in Python.
    pub limit: usize,
}

impl HybridRequest {
    /// The three entities nearest to both.
    #[must_use]
    pub fn new(dense: Vec<f32>, sparse: SparseVector) -> Self {
        Self { dense, sparse, weights: (0.5, 0.5), filter: None, output_fields: None, limit: 3 }
    }

    /// Sets how many hits to give.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Sets which entities count.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }
}

/// An entity that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// Its score; zero where nothing was scored.
    pub score: f32,
    /// Its fields.
    pub fields: Map<String, Value>,
}

impl Hit {
    /// A hit.
    #[must_use]
    pub fn new(id: String, score: f32, fields: Map<String, Value>) -> Self {
        Self { id, score, fields }
    }
}

/// What became of a bulk insert.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct BulkInsertReport {
    /// The ids of what was written, in order: the first entities of the input.
    pub ids: Vec<String>,
    /// Entities of the input that were not written: its last ones.
    pub not_written: usize,
    /// Why it ended early, if it did.
    pub error: Option<Error>,
}

impl BulkInsertReport {
    /// A report.
    #[must_use]
    pub fn new(ids: Vec<String>, not_written: usize, error: Option<Error>) -> Self {
        Self { ids, not_written, error }
    }
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionStats {
    /// Its name.
    pub name: String,
    /// Entities in it.
    pub num_entities: u64,
    /// Bytes it takes, where the backend knows.
    pub bytes: Option<u64>,
}

impl CollectionStats {
    /// The figures of a collection.
    #[must_use]
    pub fn new(name: impl Into<String>, num_entities: u64, bytes: Option<u64>) -> Self {
        Self { name: name.into(), num_entities, bytes }
    }
}

/// What a vector backend does beyond or short of the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VectorCapabilities {
    /// It holds a budget of bytes.
    pub bounded: bool,
    /// Its results are exact.
    pub exact: bool,
}

impl VectorCapabilities {
    /// Sets whether the backend holds a budget of bytes.
    #[must_use]
    pub const fn bounded(mut self, yes: bool) -> Self {
        self.bounded = yes;
        self
    }

    /// Sets whether results are exact.
    #[must_use]
    pub const fn exact(mut self, yes: bool) -> Self {
        self.exact = yes;
        self
    }
}

/// What a vector store holds and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VectorStats {
    /// Collections held.
    pub collections: u64,
    /// Entities held.
    pub entities: u64,
    /// Bytes held, overhead included.
    pub bytes: u64,
    /// Searches answered.
    pub searches: u64,
}

impl VectorStats {
    /// The figures of a store.
    #[must_use]
    pub fn new(collections: u64, entities: u64, bytes: u64, searches: u64) -> Self {
        Self { collections, entities, bytes, searches }
    }
}
