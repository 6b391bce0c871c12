//! An entity to insert.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A sparse vector: dimension to weight.
pub type SparseVector = BTreeMap<u32, f32>;

/// One entity to insert: text, metadata, typed fields and vectors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entity {
    /// Fields by name. The text is under `content` or the collection's text field, metadata under `metadata` or the
    /// collection's metadata field; `content` and `metadata` take precedence.
    pub fields: Map<String, Value>,
    /// The dense vector.
    pub dense: Vec<f32>,
    /// The sparse vector, required in hybrid collections.
    pub sparse: Option<SparseVector>,
}

impl Entity {
    /// An entity with its text and dense vector.
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

    /// An estimate of its size in bytes, for sizing batches: vectors, strings as JSON and 16 bytes per JSON value. It stops
    /// counting at `limit`, so that its cost is bounded.
    #[must_use]
    pub fn approximate_bytes(&self, limit: usize) -> usize {
        let mut bytes = self.dense.len() * 4 + self.sparse.as_ref().map_or(0, |sparse| sparse.len() * 8);
        for (name, value) in &self.fields {
            bytes += name.len();
            add_bytes(value, limit, &mut bytes);
        }
        bytes.min(limit)
    }
}

fn add_bytes(value: &Value, limit: usize, bytes: &mut usize) {
    if *bytes >= limit {
        return;
    }
    *bytes += 16;
    match value {
        Value::String(string) => *bytes += escaped_len(string),
        Value::Array(items) => items.iter().for_each(|item| add_bytes(item, limit, bytes)),
        Value::Object(fields) => {
            for (name, value) in fields {
                *bytes += name.len();
                add_bytes(value, limit, bytes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The length of a string within JSON, where a control character takes up to six bytes.
fn escaped_len(string: &str) -> usize {
    let len = |byte| match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    string.bytes().map(len).sum()
}
