//! An entity as it is stored: checked against its collection, and measured.

use serde_json::{Map, Value};

use crate::vectors::{CollectionConfig, Entity, FieldType, SparseVector};
use crate::{Error, ErrorKind, Result};

/// Milvus's bound on text fields.
const MAX_TEXT_BYTES: usize = 65_535;
/// Milvus's bound on JSON fields, as text.
const MAX_JSON_BYTES: usize = 65_536;

#[derive(Debug)]
pub(super) struct Row {
    /// Every field but the vectors, the id included.
    pub fields: Map<String, Value>,
    pub dense: Vec<f32>,
    pub sparse: SparseVector,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "vectors.embedded", message.into())
}

impl Row {
    /// Checks an entity and names its fields as the collection does. The id comes when it is inserted.
    pub(super) fn new(config: &CollectionConfig, entity: Entity) -> Result<Self> {
        let Entity { mut fields, dense, sparse, .. } = entity;
        check_dense(config, &dense)?;
        let mut row = Map::new();
        let text =
            fields.remove("content").or_else(|| fields.remove(&config.text_field)).ok_or_else(|| {
                invalid(format!("Text field 'content' or '{}' not found in data.", config.text_field))
            })?;
        check_type(&config.text_field, FieldType::VarChar, &text)?;
        row.insert(config.text_field.clone(), text);
        let metadata = fields.remove("metadata").or_else(|| fields.remove(&config.metadata_field));
        let metadata = metadata.unwrap_or_else(|| Value::Object(Map::new()));
        if !metadata.is_object() {
            return Err(invalid(format!("the field {:?} must be an object", config.metadata_field)));
        }
        check_type(&config.metadata_field, FieldType::Json, &metadata)?;
        row.insert(config.metadata_field.clone(), metadata);
        for field in &config.extra_fields {
            let value = fields
                .remove(&field.name)
                .ok_or_else(|| invalid(format!("the field {:?} is missing", field.name)))?;
            check_type(&field.name, field.field_type, &value)?;
            row.insert(field.name.clone(), value);
        }
        if let Some(unknown) = fields.keys().next() {
            return Err(invalid(format!(
                "the collection has no field {unknown:?}; put it into the metadata"
            )));
        }
        let sparse = match (config.is_hybrid, sparse) {
            (true, Some(sparse)) => check_sparse(sparse)?,
            (true, None) => return Err(invalid("the collection is hybrid and the sparse vector is missing")),
            (false, None) => SparseVector::new(),
            (false, Some(_)) => {
                return Err(invalid("the collection is not hybrid and takes no sparse vector"));
            }
        };
        Ok(Self { fields: row, dense, sparse })
    }

    /// Bytes the row takes besides its dense vector.
    pub(super) fn bytes(&self) -> u64 {
        // A tree's nodes are at least five eleventh full; one of them holds eleven pairs of eight bytes.
        let sparse = if self.sparse.is_empty() { 0 } else { self.sparse.len().div_ceil(5) * 128 };
        (object(&self.fields) + sparse) as u64
    }
}

pub(super) fn check_dense(config: &CollectionConfig, vector: &[f32]) -> Result<()> {
    if vector.len() != config.dense_dim {
        let (has, wants) = (vector.len(), config.dense_dim);
        return Err(invalid(format!("the vector has {has} dimensions and the collection wants {wants}")));
    }
    match vector.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(invalid(format!("the vector's number at {at} is not finite"))),
        None => Ok(()),
    }
}

pub(super) fn check_sparse(vector: SparseVector) -> Result<SparseVector> {
    match vector.iter().find(|(_, weight)| !weight.is_finite()) {
        Some((dimension, _)) => {
            Err(invalid(format!("the sparse vector's weight of {dimension} is not finite")))
        }
        None => Ok(vector),
    }
}

fn check_type(name: &str, field_type: FieldType, value: &Value) -> Result<()> {
    let (fits, expected) = match field_type {
        FieldType::VarChar => (
            value.as_str().is_some_and(|text| text.len() <= MAX_TEXT_BYTES),
            "a text of at most 65 535 bytes",
        ),
        FieldType::Int64 => (value.is_i64(), "a whole number of 64 bits"),
        FieldType::Float => (value.is_number(), "a number"),
        FieldType::Bool => (value.is_boolean(), "true or false"),
        _ => (value.to_string().len() <= MAX_JSON_BYTES, "JSON of at most 65 536 bytes"),
    };
    if fits { Ok(()) } else { Err(invalid(format!("the field {name:?} must be {expected}"))) }
}

/// Bytes of a JSON object: a tree of nodes with room for eleven pairs, at least five of them used where there is more
/// than one node, and what keys and values hold besides.
fn object(fields: &Map<String, Value>) -> usize {
    const NODE: usize = 736;
    let nodes = if fields.len() <= 11 { fields.len().min(1) } else { fields.len().div_ceil(5) };
    nodes * NODE + fields.iter().map(|(key, value)| text(key) + held(value)).sum::<usize>()
}

/// Bytes a value holds besides itself.
fn held(value: &Value) -> usize {
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => {
            16 + items.capacity() * size_of::<Value>() + items.iter().map(held).sum::<usize>()
        }
        Value::Object(fields) => object(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Bytes a text holds on the heap.
pub(super) fn text(string: &str) -> usize {
    (string.len() + 8).next_multiple_of(16).max(32)
}
