//! Vector storage: the seam and its types.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bounds::{Bound, Health};
use crate::error::Result;

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
    /// Any JSON.
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

    /// Sets the metadata.
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

/// Placeholder contract; settled by the vectors work.
#[async_trait]
pub trait VectorStore: Send + Sync + fmt::Debug {
    /// Counters and bounds, as of now.
    fn stats(&self) -> VectorStats;

    /// Whether the store can do its work now.
    async fn health(&self) -> Health;

    /// Connects, where there is something to connect to.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    async fn connect(&self) -> Result<()>;

    /// Closes the connection, where there is one.
    ///
    /// # Errors
    /// Whatever could not be written any more.
    async fn disconnect(&self) -> Result<()>;
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
    /// The bounds and how close they are.
    pub bounds: Vec<Bound>,
}
