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

    /// An upper bound of its size in bytes as vectors and JSON, for sizing batches. It stops counting at `limit`, so that
    /// its cost is bounded.
    #[must_use]
    pub fn approximate_bytes(&self, limit: usize) -> usize {
        let mut bytes = self.dense.len() * 4 + self.sparse.as_ref().map_or(0, |sparse| sparse.len() * 8);
        bytes += VALUE_BYTES;
        add_fields(&self.fields, limit, &mut bytes);
        bytes.min(limit)
    }
}

/// Bytes of the longest number (`-2.2250738585072014e-308`), or of the brackets around items, and of a comma.
const VALUE_BYTES: usize = 25;

fn add_bytes(value: &Value, limit: usize, bytes: &mut usize) {
    if *bytes >= limit {
        return;
    }
    *bytes += VALUE_BYTES;
    match value {
        Value::String(string) => *bytes += escaped_len(string),
        Value::Array(items) => items.iter().for_each(|item| add_bytes(item, limit, bytes)),
        Value::Object(fields) => add_fields(fields, limit, bytes),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn add_fields(fields: &Map<String, Value>, limit: usize, bytes: &mut usize) {
    for (name, value) in fields {
        // Two quotes and a colon.
        *bytes += escaped_len(name) + 3;
        add_bytes(value, limit, bytes);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_is_at_least_that_of_its_json() {
        for value in [
            json!(null),
            json!(-f64::MIN_POSITIVE),
            json!([i64::MIN, u64::MAX, false, [], {}]),
            json!({"": "", "\u{1}\"\\": "\u{1}\n\"\\ü", "a": {"b": [{"c": [1.5]}]}}),
        ] {
            let entity = Entity::default().with_field("metadata\u{7f}", value);
            let text = serde_json::to_string(&entity.fields).expect("valid JSON");
            let bytes = entity.approximate_bytes(usize::MAX);
            assert!(bytes >= text.len(), "{bytes} of {}: {text}", text.len());
            assert_eq!(entity.approximate_bytes(10), 10, "it stops at the limit");
        }
    }
}
