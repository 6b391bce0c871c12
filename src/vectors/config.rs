//! The schema of a collection.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A collection and its fields (Python: `ICollectionConfig`).
#[doc(alias = "ICollectionConfig")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CollectionConfig {
    /// Name of the collection.
    pub collection_name: String,
    /// Number of dimensions of the dense vector.
    pub dense_dim: usize,
    /// Metric of the dense vector; the sparse vector's is always the inner product.
    #[serde(default)]
    pub metric: Metric,
    /// Name of the text field.
    pub text_field: String,
    /// Name of the primary key field.
    pub pk_field: String,
    /// Name of the dense vector field.
    pub dense_field: String,
    /// Name of the sparse vector field.
    pub sparse_field: String,
    /// Name of the metadata field.
    pub metadata_field: String,
    /// Whether it has sparse vectors, and with them hybrid search.
    pub is_hybrid: bool,
    /// Further typed fields, in order.
    pub extra_fields: Vec<ExtraField>,
    /// Index of the dense vector, for backends that have indexes. Not part of the schema: an existing collection keeps
    /// its own.
    #[serde(default)]
    pub dense_index: IndexSettings,
    /// Index of the sparse vector, likewise.
    #[serde(default = "IndexSettings::sparse")]
    pub sparse_index: IndexSettings,
}

impl CollectionConfig {
    /// A dense collection with the inner product and Python arshai's field names.
    pub fn new(collection_name: impl Into<String>, dense_dim: usize) -> Self {
        Self {
            collection_name: collection_name.into(),
            dense_dim,
            metric: Metric::InnerProduct,
            text_field: "content".into(),
            pk_field: "doc_id".into(),
            dense_field: "dense_vector".into(),
            sparse_field: "sparse_vector".into(),
            metadata_field: "metadata".into(),
            is_hybrid: false,
            extra_fields: Vec::new(),
            dense_index: IndexSettings::default(),
            sparse_index: IndexSettings::sparse(),
        }
    }

    /// Adds sparse vectors and hybrid search.
    #[must_use]
    pub fn hybrid(mut self) -> Self {
        self.is_hybrid = true;
        self
    }

    /// Sets the metric of the dense vector.
    #[must_use]
    pub fn with_metric(mut self, metric: Metric) -> Self {
        self.metric = metric;
        self
    }

    /// Adds a typed field.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, field_type: FieldType) -> Self {
        self.extra_fields.push(ExtraField { name: name.into(), field_type });
        self
    }

    /// The fields that filters and output fields can name: all but the vectors.
    pub fn scalar_fields(&self) -> impl Iterator<Item = &str> {
        let fixed = [&self.pk_field, &self.text_field, &self.metadata_field];
        fixed.into_iter().map(String::as_str).chain(self.extra_fields.iter().map(|field| field.name.as_str()))
    }
}

/// How the distance of two dense vectors is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Metric {
    /// Inner product; higher is nearer.
    #[default]
    #[serde(rename = "IP")]
    InnerProduct,
    /// Cosine of the angle; higher is nearer. Zero for a vector of zeros.
    #[serde(rename = "COSINE")]
    Cosine,
    /// Squared Euclidean distance; lower is nearer.
    #[serde(rename = "L2")]
    L2,
}

impl Metric {
    /// Whether the nearer of two entities has the higher score.
    #[must_use]
    pub const fn higher_is_nearer(self) -> bool {
        !matches!(self, Self::L2)
    }
}

/// A further typed field of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraField {
    /// Name of the field.
    pub name: String,
    /// Type of the field.
    pub field_type: FieldType,
}

/// Types of fields, with Milvus's names and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FieldType {
    /// A string of at most 65 535 bytes.
    VarChar,
    /// A 64-bit integer.
    Int64,
    /// A 32-bit float.
    Float,
    /// A boolean.
    Bool,
    /// JSON of at most 65 536 bytes as text, like the metadata.
    Json,
}

/// Type and parameters of an index, with Milvus's names. Backends without indexes ignore them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexSettings {
    /// Index type, such as `AUTOINDEX`, `HNSW` or `IVF_FLAT`.
    pub index_type: String,
    /// Build parameters, such as `{"M": 16}`.
    #[serde(default)]
    pub params: Map<String, Value>,
}

impl IndexSettings {
    /// An index type without parameters.
    pub fn new(index_type: impl Into<String>) -> Self {
        Self { index_type: index_type.into(), params: Map::new() }
    }

    /// Sets a build parameter.
    #[must_use]
    pub fn with_param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    fn sparse() -> Self {
        Self::new("SPARSE_INVERTED_INDEX")
    }
}

/// Python arshai's dense index: `AUTOINDEX`.
impl Default for IndexSettings {
    fn default() -> Self {
        Self::new("AUTOINDEX")
    }
}
