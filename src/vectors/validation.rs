//! Checks of configurations, entities and requests, the same for every backend.
//!
//! All errors are [`ErrorKind::InvalidInput`] with [`Outcome::NotSent`](crate::Outcome::NotSent). The limits are
//! Milvus's, so that what one store accepts, the other accepts too.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Map, Value};

use super::{
    CollectionConfig, Entity, FieldType, Filter, HybridSearchRequest, QueryRequest, QueryVectors, Ranker,
    SearchRequest, SparseVector,
};
use crate::error::{Error, ErrorKind, Result};

/// Maximum length of a collection's or field's name.
pub const MAX_NAME_BYTES: usize = 255;
/// Maximum number of fields of a collection, vectors included.
pub const MAX_FIELDS: usize = 64;
/// Maximum number of dimensions of a dense vector.
pub const MAX_DENSE_DIM: usize = 32_768;
/// Maximum length of a string field.
pub const MAX_STRING_BYTES: usize = 65_535;
/// Maximum length of a JSON field as text.
pub const MAX_JSON_BYTES: usize = 65_536;
/// Maximum nesting depth of a JSON field, which JSON parsers can still read.
pub const MAX_JSON_DEPTH: usize = 100;
/// Maximum of `offset + limit`.
pub const MAX_RESULTS: usize = 16_384;
/// Maximum number of query vectors of one search.
pub const MAX_QUERY_VECTORS: usize = 1_000;
/// Maximum number of hits over all query vectors of one search.
pub const MAX_TOTAL_HITS: usize = 100_000;

/// Checks the names, number and types of fields and the number of dimensions.
///
/// # Errors
/// `InvalidInput` saying what is wrong.
pub fn check_config(config: &CollectionConfig) -> Result<()> {
    check_name("collection", &config.collection_name)?;
    let mut fields: Vec<&str> = config.scalar_fields().chain([config.dense_field.as_str()]).collect();
    if config.is_hybrid {
        fields.push(&config.sparse_field);
    }
    if fields.len() > MAX_FIELDS {
        return Err(invalid(format!("{} fields exceed the limit of {MAX_FIELDS}", fields.len())));
    }
    let mut unique = BTreeSet::new();
    for name in fields {
        check_name("field", name)?;
        if Filter::is_keyword(name) {
            return Err(invalid(format!("field name {name:?} is a keyword of the filter language")));
        }
        if !unique.insert(name) {
            return Err(invalid(format!("duplicate field name {name:?}")));
        }
    }
    if !(1..=MAX_DENSE_DIM).contains(&config.dense_dim) {
        let dim = config.dense_dim;
        return Err(invalid(format!("dense_dim = {dim} is out of range (1 to {MAX_DENSE_DIM})")));
    }
    Ok(())
}

fn check_name(kind: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("collection and field names must not be empty"));
    }
    let is_valid = name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if is_valid {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(invalid(format!(
        "invalid {kind} name {shown:?}; allowed are up to {MAX_NAME_BYTES} ASCII letters, digits and underscores, not \
         beginning with a digit"
    )))
}

/// Checks that an existing collection has the schema of `wanted`. Index settings are no part of it.
///
/// # Errors
/// `InvalidInput` saying what differs.
pub fn check_same_schema(existing: &CollectionConfig, wanted: &CollectionConfig) -> Result<()> {
    let fields = |config: &CollectionConfig| {
        let extra = config.extra_fields.iter().map(|field| format!("{}: {:?}", field.name, field.field_type));
        extra.collect::<Vec<_>>().join(", ")
    };
    let pairs = [
        ("dense_dim", existing.dense_dim.to_string(), wanted.dense_dim.to_string()),
        ("metric", format!("{:?}", existing.metric), format!("{:?}", wanted.metric)),
        ("text_field", existing.text_field.clone(), wanted.text_field.clone()),
        ("pk_field", existing.pk_field.clone(), wanted.pk_field.clone()),
        ("dense_field", existing.dense_field.clone(), wanted.dense_field.clone()),
        ("metadata_field", existing.metadata_field.clone(), wanted.metadata_field.clone()),
        ("is_hybrid", existing.is_hybrid.to_string(), wanted.is_hybrid.to_string()),
        ("extra_fields", fields(existing), fields(wanted)),
    ];
    let sparse = ("sparse_field", existing.sparse_field.clone(), wanted.sparse_field.clone());
    let sparse = (existing.is_hybrid && wanted.is_hybrid).then_some(sparse);
    match pairs.into_iter().chain(sparse).find(|(_, exists, wants)| exists != wants) {
        Some((field, exists, wants)) => Err(invalid(format!(
            "collection {:?} exists with a different schema: {field} is [{exists}], not [{wants}]",
            wanted.collection_name
        ))),
        None => Ok(()),
    }
}

/// Checks an entity and returns it with the collection's field names: text, metadata (an empty object if missing) and
/// every extra field, without the primary key.
///
/// # Errors
/// `InvalidInput` naming the field.
pub fn check_entity(config: &CollectionConfig, entity: Entity) -> Result<Entity> {
    let Entity { mut fields, dense, sparse } = entity;
    check_dense(config, &dense)?;
    let mut checked = Map::new();
    let text = take(&mut fields, "content", &config.text_field).ok_or_else(|| {
        invalid(format!("Text field 'content' or '{}' not found in data.", config.text_field))
    })?;
    check_value(&config.text_field, FieldType::VarChar, &text)?;
    checked.insert(config.text_field.clone(), text);
    let metadata = take(&mut fields, "metadata", &config.metadata_field);
    let metadata = metadata.unwrap_or_else(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        return Err(invalid(format!("field {:?} must be an object", config.metadata_field)));
    }
    check_value(&config.metadata_field, FieldType::Json, &metadata)?;
    checked.insert(config.metadata_field.clone(), metadata);
    for field in &config.extra_fields {
        let name = &field.name;
        let value = fields.remove(name).ok_or_else(|| invalid(format!("missing field {name:?}")))?;
        check_value(name, field.field_type, &value)?;
        checked.insert(name.clone(), value);
    }
    if let Some(unknown) = fields.keys().next() {
        return Err(invalid(format!("unknown field {unknown:?}; put extra data in the metadata")));
    }
    match (config.is_hybrid, &sparse) {
        (true, Some(sparse)) => check_sparse(sparse)?,
        (true, None) => return Err(invalid("missing sparse vector: the collection is hybrid")),
        (false, Some(_)) => return Err(invalid("unexpected sparse vector: the collection is not hybrid")),
        (false, None) => {}
    }
    Ok(Entity { fields: checked, dense, sparse })
}

/// Python arshai's names take precedence over the collection's.
fn take(fields: &mut Map<String, Value>, common: &str, own: &str) -> Option<Value> {
    fields.remove(common).or_else(|| fields.remove(own))
}

/// Checks entities in order, as [`check_entity`] does; errors have the index of the entity.
///
/// # Errors
/// As [`check_entity`], for the first invalid one.
pub fn check_entities(config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<Entity>> {
    let check = |(i, entity)| check_entity(config, entity).map_err(|error| error.with_context("entity", i));
    entities.into_iter().enumerate().map(check).collect()
}

fn check_value(name: &str, field_type: FieldType, value: &Value) -> Result<()> {
    let (is_valid, expected) = match field_type {
        FieldType::VarChar => (
            value.as_str().is_some_and(|string| string.len() <= MAX_STRING_BYTES),
            "a string of at most 65535 bytes",
        ),
        FieldType::Int64 => (value.is_i64(), "a 64-bit integer"),
        FieldType::Float => (
            value.as_f64().is_some_and(|number| (number as f32).is_finite()),
            "a number in the range of a 32-bit float",
        ),
        FieldType::Bool => (value.is_boolean(), "a boolean"),
        FieldType::Json => (
            is_nested_at_most(value, MAX_JSON_DEPTH) && is_json_at_most(value, MAX_JSON_BYTES),
            "JSON of at most 65536 bytes and 100 levels",
        ),
    };
    if is_valid { Ok(()) } else { Err(invalid(format!("field {name:?} must be {expected}"))) }
}

fn is_nested_at_most(value: &Value, depth: usize) -> bool {
    let Some(inner) = depth.checked_sub(1) else { return !value.is_array() && !value.is_object() };
    match value {
        Value::Array(items) => items.iter().all(|item| is_nested_at_most(item, inner)),
        Value::Object(fields) => fields.values().all(|value| is_nested_at_most(value, inner)),
        _ => true,
    }
}

/// Whether the value's text has at most `max` bytes; writes no further than that.
fn is_json_at_most(value: &Value, max: usize) -> bool {
    struct Remaining(usize);
    impl io::Write for Remaining {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Remaining(max), value).is_ok()
}

fn check_dense(config: &CollectionConfig, vector: &[f32]) -> Result<()> {
    let (got, expected) = (vector.len(), config.dense_dim);
    if got != expected {
        return Err(invalid(format!("dimension mismatch: got {got}, expected {expected}")));
    }
    match vector.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(invalid(format!("vector element {at} is not finite"))),
        None => Ok(()),
    }
}

fn check_sparse(vector: &SparseVector) -> Result<()> {
    if vector.contains_key(&u32::MAX) {
        return Err(invalid(format!("sparse dimension {} is out of range", u32::MAX)));
    }
    match vector.iter().find(|(_, weight)| !weight.is_finite() || **weight < 0.0) {
        Some((dimension, _)) => {
            Err(invalid(format!("sparse weight of dimension {dimension} must be finite and not negative")))
        }
        None => Ok(()),
    }
}

/// Checks a search: vectors, their number, limits, filter and output fields.
///
/// # Errors
/// `InvalidInput` saying what is wrong.
pub fn check_search(config: &CollectionConfig, request: &SearchRequest) -> Result<()> {
    let number = request.query_vectors.len();
    if number > MAX_QUERY_VECTORS {
        return Err(invalid(format!("{number} query vectors exceed the limit of {MAX_QUERY_VECTORS}")));
    }
    match &request.query_vectors {
        QueryVectors::Dense(vectors) => vectors.iter().try_for_each(|vector| check_dense(config, vector))?,
        QueryVectors::Sparse(_) if !config.is_hybrid => return Err(not_hybrid()),
        QueryVectors::Sparse(vectors) => vectors.iter().try_for_each(check_sparse)?,
    }
    check_limit(request.limit, request.offset)?;
    let hits = number * (request.offset + request.limit);
    if number > 1 && hits > MAX_TOTAL_HITS {
        return Err(invalid(format!(
            "{hits} hits over {number} query vectors exceed the limit of {MAX_TOTAL_HITS}"
        )));
    }
    check_fields(config, request.filter.as_ref(), request.output_fields.as_deref())
}

/// Checks a hybrid search: both vectors, ranker, limits, filter and output fields.
///
/// # Errors
/// `InvalidInput` saying what is wrong.
pub fn check_hybrid_search(config: &CollectionConfig, request: &HybridSearchRequest) -> Result<()> {
    if !config.is_hybrid {
        return Err(not_hybrid());
    }
    check_dense(config, &request.dense)?;
    check_sparse(&request.sparse)?;
    match request.ranker {
        Ranker::Weighted { dense, sparse } => {
            if let Some(weight) = [dense, sparse].into_iter().find(|weight| !(0.0..=1.0).contains(weight)) {
                return Err(invalid(format!("weight {weight} is out of range (0 to 1)")));
            }
        }
        Ranker::ReciprocalRank { k } => {
            if !(k > 0.0 && k < 16_384.0) {
                return Err(invalid(format!("k = {k} must be above 0 and below 16384")));
            }
        }
    }
    check_limit(request.limit, request.offset)?;
    check_fields(config, request.filter.as_ref(), request.output_fields.as_deref())
}

/// Checks a query: limits, filter and output fields. Returns the effective limit.
///
/// # Errors
/// `InvalidInput` saying what is wrong.
pub fn check_query(config: &CollectionConfig, request: &QueryRequest) -> Result<usize> {
    let limit = request.limit.unwrap_or_else(|| MAX_RESULTS.saturating_sub(request.offset).max(1));
    check_limit(limit, request.offset)?;
    check_fields(config, Some(&request.filter), request.output_fields.as_deref())?;
    Ok(limit)
}

/// Checks that a filter names only fields of the collection.
///
/// # Errors
/// `InvalidInput` naming the field.
pub fn check_filter(config: &CollectionConfig, filter: &Filter) -> Result<()> {
    check_fields(config, Some(filter), None)
}

fn check_limit(limit: usize, offset: usize) -> Result<()> {
    if limit == 0 || limit.saturating_add(offset) > MAX_RESULTS {
        return Err(invalid(format!(
            "limit = {limit} with offset = {offset} is out of range; expected a limit of at least 1 and at most \
             {MAX_RESULTS} together"
        )));
    }
    Ok(())
}

fn check_fields(config: &CollectionConfig, filter: Option<&Filter>, output: Option<&[String]>) -> Result<()> {
    let paths = filter.map(Filter::paths).unwrap_or_default();
    let filtered = paths.into_iter().map(|path| path.field.as_str());
    let wanted = output.into_iter().flatten().map(String::as_str);
    match filtered.chain(wanted).find(|name| config.scalar_fields().all(|known| known != *name)) {
        Some(name) => {
            Err(invalid(format!("collection {:?} does not have a field {name:?}", config.collection_name)))
        }
        None => Ok(()),
    }
}

fn not_hybrid() -> Error {
    invalid("the collection is not hybrid; create it with CollectionConfig::hybrid")
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, "vectors", message.into()).not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_measured_in_bytes_and_levels() {
        let check = |value: &Value| check_value("f", FieldType::Json, value).is_ok();
        assert!(check(&Value::String("x".repeat(MAX_JSON_BYTES - 2))));
        assert!(!check(&Value::String("x".repeat(MAX_JSON_BYTES - 1))));
        let nested = |levels| (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(check(&nested(MAX_JSON_DEPTH)));
        assert!(!check(&nested(MAX_JSON_DEPTH + 1)));
    }

    #[test]
    fn a_different_schema_says_what_differs_and_index_settings_are_no_part_of_it() {
        let config = CollectionConfig::new("c", 8);
        let mut other = config.clone();
        other.dense_index = super::super::IndexSettings::new("HNSW");
        other.sparse_field = "unused".into();
        assert!(check_same_schema(&config, &other).is_ok());
        let error = check_same_schema(&config, &CollectionConfig::new("c", 9)).expect_err("differs");
        assert!(error.message().contains("dense_dim is [8], not [9]"), "{error}");
    }

    #[test]
    fn names_are_ascii_identifiers_and_not_keywords() {
        for name in ["a", "_a9", "A_b"] {
            check_config(&CollectionConfig::new(name, 1)).expect(name);
        }
        for name in ["", "9a", "a-b", "a b", "ä", &"a".repeat(256)] {
            check_config(&CollectionConfig::new(name, 1)).expect_err(name);
        }
        check_config(&CollectionConfig::new("c", 1).with_field("In", FieldType::Bool))
            .expect_err("a keyword");
    }

    #[test]
    fn rankers_have_finite_parameters_in_range() {
        let config = CollectionConfig::new("c", 1).hybrid();
        let check = |ranker| {
            let request = HybridSearchRequest::new(vec![1.0], SparseVector::new()).with_ranker(ranker);
            check_hybrid_search(&config, &request).is_ok()
        };
        assert!(check(Ranker::Weighted { dense: 0.0, sparse: 1.0 }));
        assert!(check(Ranker::ReciprocalRank { k: 60.0 }));
        for weight in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
            assert!(!check(Ranker::Weighted { dense: weight, sparse: 0.5 }), "{weight}");
            assert!(!check(Ranker::Weighted { dense: 0.5, sparse: weight }), "{weight}");
        }
        for k in [0.0, -1.0, 16_384.0, f32::NAN, f32::INFINITY] {
            assert!(!check(Ranker::ReciprocalRank { k }), "{k}");
        }
    }
}
