//! Collections as Milvus and as arshai describe them. Fields and indexes are those that Python arshai makes.

use milvus::proto::common::KeyValuePair;
use milvus::proto::milvus::IndexDescription;
use milvus::proto::schema::{CollectionSchema, DataType, FieldSchema};

use super::COMPONENT;
use crate::vectors::validation::MAX_STRING_BYTES;
use crate::vectors::{CollectionConfig, Entity, ExtraField, FieldType, IndexSettings, Metric};
use crate::{Error, ErrorKind, Result};

const MAX_ID_BYTES: usize = 100;

/// The schema of a new collection.
pub(super) fn new_schema(config: &CollectionConfig) -> CollectionSchema {
    let mut primary = field(&config.pk_field, DataType::VarChar, Some(("max_length", MAX_ID_BYTES)));
    (primary.is_primary_key, primary.auto_id) = (true, true);
    let text = Some(("max_length", MAX_STRING_BYTES));
    let mut fields = vec![
        primary,
        field(&config.text_field, DataType::VarChar, text),
        field(&config.metadata_field, DataType::Json, None),
        field(&config.dense_field, DataType::FloatVector, Some(("dim", config.dense_dim))),
    ];
    if config.is_hybrid {
        fields.push(field(&config.sparse_field, DataType::SparseFloatVector, None));
    }
    fields.extend(config.extra_fields.iter().map(|extra| match extra.field_type {
        FieldType::VarChar => field(&extra.name, DataType::VarChar, text),
        FieldType::Int64 => field(&extra.name, DataType::Int64, None),
        FieldType::Float => field(&extra.name, DataType::Float, None),
        FieldType::Bool => field(&extra.name, DataType::Bool, None),
        _ => field(&extra.name, DataType::Json, None),
    }));
    CollectionSchema { name: config.collection_name.clone(), fields, ..CollectionSchema::default() }
}

fn field(name: &str, data_type: DataType, parameter: Option<(&str, usize)>) -> FieldSchema {
    let type_params = parameter.map(|(key, value)| pair(key, value)).into_iter().collect();
    FieldSchema { name: name.to_owned(), data_type: data_type.into(), type_params, ..FieldSchema::default() }
}

pub(super) fn pair(key: impl Into<String>, value: impl ToString) -> KeyValuePair {
    KeyValuePair { key: key.into(), value: value.to_string() }
}

/// The indexes that a collection needs, in the order in which Python makes them: field and parameters.
pub(super) fn new_indexes(config: &CollectionConfig) -> Vec<(&str, Vec<KeyValuePair>)> {
    let parameters = |settings: &IndexSettings, metric| {
        let mut pairs = vec![pair("index_type", &settings.index_type), pair("metric_type", metric)];
        if !settings.params.is_empty() {
            pairs.push(pair("params", serde_json::Value::Object(settings.params.clone())));
        }
        pairs
    };
    let sparse = (config.sparse_field.as_str(), parameters(&config.sparse_index, "IP"));
    let dense = (config.dense_field.as_str(), parameters(&config.dense_index, metric_name(config.metric)));
    if config.is_hybrid { vec![sparse, dense] } else { vec![dense] }
}

pub(super) fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "COSINE",
        Metric::L2 => "L2",
        _ => "IP",
    }
}

/// A collection that exists.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) config: CollectionConfig,
    /// The string fields that take less than 65 535 bytes, as Python's UUIDs do.
    short_strings: Vec<(String, usize)>,
}

impl Schema {
    /// Reads a collection's schema. Which string is the text and which JSON the metadata follows `wanted`; they are the
    /// first ones without it.
    ///
    /// # Errors
    /// What is different from all collections that arshai makes.
    pub(super) fn read(
        name: &str,
        schema: &CollectionSchema,
        indexes: &[IndexDescription],
        wanted: Option<&CollectionConfig>,
    ) -> Result<Self, String> {
        let mut config = CollectionConfig::new(name, 0);
        let mut rest: Vec<&FieldSchema> = schema.fields.iter().filter(|field| !field.is_dynamic).collect();
        let mut take = |role: &str, data_type: DataType, wanted: Option<&String>| {
            let is_one = |field: &&FieldSchema| {
                field.data_type() == data_type && field.is_primary_key == (role == "primary key")
            };
            let named = rest.iter().position(|field| is_one(field) && Some(&field.name) == wanted);
            match named.or_else(|| rest.iter().position(is_one)) {
                Some(at) => Ok(rest.remove(at)),
                None => Err(format!("it has no {role} of type {data_type:?}")),
            }
        };
        let primary = take("primary key", DataType::VarChar, None)?;
        if !primary.auto_id {
            return Err(format!("ids of its primary key {:?} are not assigned by Milvus", primary.name));
        }
        config.pk_field = primary.name.clone();
        config.text_field =
            take("text", DataType::VarChar, wanted.map(|wanted| &wanted.text_field))?.name.clone();
        config.metadata_field =
            take("metadata", DataType::Json, wanted.map(|wanted| &wanted.metadata_field))?.name.clone();
        let dense = take("dense vector", DataType::FloatVector, None)?;
        config.dense_field = dense.name.clone();
        config.dense_dim = parameter(&dense.type_params, "dim").unwrap_or_default();
        if let Ok(sparse) = take("sparse vector", DataType::SparseFloatVector, None) {
            config.sparse_field = sparse.name.clone();
            config.is_hybrid = true;
        }
        config.extra_fields = rest.into_iter().map(extra_field).collect::<Result<_, _>>()?;
        let index = indexes.iter().find(|index| index.field_name == config.dense_field);
        config.metric = match index.and_then(|index| find(&index.params, "metric_type")) {
            Some(name) => parse_metric(name)?,
            None => wanted.map(|wanted| wanted.metric).unwrap_or_default(),
        };
        for (field, settings) in
            [(&config.dense_field, &mut config.dense_index), (&config.sparse_field, &mut config.sparse_index)]
        {
            let index = indexes.iter().find(|index| index.field_name == *field);
            if let Some(index_type) = index.and_then(|index| find(&index.params, "index_type")) {
                *settings = IndexSettings::new(index_type);
            }
        }
        let strings = schema.fields.iter().filter(|field| field.data_type() == DataType::VarChar);
        let length =
            |field: &FieldSchema| Some((field.name.clone(), parameter(&field.type_params, "max_length")?));
        let short_strings = strings.filter_map(length).filter(|(_, max)| *max < MAX_STRING_BYTES).collect();
        Ok(Self { config, short_strings })
    }

    /// Checks strings against fields that take fewer bytes than arshai's own.
    pub(super) fn check_strings(&self, entities: &[Entity]) -> Result<()> {
        for (name, max) in &self.short_strings {
            let is_long = |entity: &Entity| {
                entity.fields.get(name).and_then(|value| value.as_str()).is_some_and(|text| text.len() > *max)
            };
            if let Some(at) = entities.iter().position(is_long) {
                let message = format!("field {name:?} must be a string of at most {max} bytes");
                let error = Error::new(ErrorKind::InvalidInput, COMPONENT, message);
                return Err(error.with_context("entity", at).not_sent());
            }
        }
        Ok(())
    }
}

fn extra_field(field: &FieldSchema) -> Result<ExtraField, String> {
    let field_type = match field.data_type() {
        DataType::VarChar => FieldType::VarChar,
        DataType::Int64 => FieldType::Int64,
        DataType::Float => FieldType::Float,
        DataType::Bool => FieldType::Bool,
        DataType::Json => FieldType::Json,
        other => {
            return Err(format!(
                "field {:?} has the type {other:?}, which arshai has no field for",
                field.name
            ));
        }
    };
    Ok(ExtraField { name: field.name.clone(), field_type })
}

fn parse_metric(name: &str) -> Result<Metric, String> {
    match name {
        "IP" => Ok(Metric::InnerProduct),
        "COSINE" => Ok(Metric::Cosine),
        "L2" => Ok(Metric::L2),
        other => Err(format!("the metric of its dense vector is {other:?}")),
    }
}

fn find<'a>(pairs: &'a [KeyValuePair], key: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str())
}

fn parameter(pairs: &[KeyValuePair], key: &str) -> Option<usize> {
    find(pairs, key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::validation::check_same_schema;

    fn all_fields() -> CollectionConfig {
        let config = CollectionConfig::new("c", 8).hybrid().with_field("id", FieldType::VarChar);
        let config = config.with_field("page", FieldType::Int64).with_field("price", FieldType::Float);
        config.with_field("draft", FieldType::Bool).with_field("more", FieldType::Json)
    }

    #[test]
    fn fields_have_the_order_of_python() {
        let schema = new_schema(&all_fields());
        let names: Vec<_> = schema.fields.iter().map(|field| field.name.as_str()).collect();
        let expected = [
            "doc_id",
            "content",
            "metadata",
            "dense_vector",
            "sparse_vector",
            "id",
            "page",
            "price",
            "draft",
            "more",
        ];
        assert_eq!(names, expected);
        let config = all_fields();
        let indexes = new_indexes(&config);
        assert_eq!(indexes[0].0, "sparse_vector", "the sparse index is made first");
        assert_eq!(indexes[0].1, [pair("index_type", "SPARSE_INVERTED_INDEX"), pair("metric_type", "IP")]);
        assert_eq!(indexes[1].1, [pair("index_type", "AUTOINDEX"), pair("metric_type", "IP")]);
    }

    #[test]
    fn what_is_created_is_read_back() {
        let config = all_fields();
        let read = Schema::read("c", &new_schema(&config), &[], Some(&config)).expect("ours");
        check_same_schema(&read.config, &config).expect("the same");
        let read = Schema::read("c", &new_schema(&config), &[], None).expect("ours");
        check_same_schema(&read.config, &config).expect("the same by the order of its fields");
    }

    #[test]
    fn a_foreign_schema_says_what_is_different() {
        let mut schema = new_schema(&all_fields());
        schema.fields[0].data_type = DataType::Int64.into();
        let error = Schema::read("c", &schema, &[], None).expect_err("a number as the key");
        assert!(error.contains("primary key of type VarChar"), "{error}");
        let mut schema = new_schema(&all_fields());
        schema.fields[6].data_type = DataType::Double.into();
        let error = Schema::read("c", &schema, &[], None).expect_err("a double");
        assert!(error.contains("\"page\" has the type Double"), "{error}");
    }

    #[test]
    fn a_field_shorter_than_ours_limits_its_strings() {
        let mut schema = new_schema(&all_fields());
        schema.fields[5].type_params = vec![pair("max_length", 40)];
        let schema = Schema::read("c", &schema, &[], None).expect("as Python makes UUIDs");
        let entity = |length| Entity::new("text", vec![0.0; 8]).with_field("id", "x".repeat(length));
        assert!(schema.check_strings(&[entity(40)]).is_ok());
        let error = schema.check_strings(&[entity(1), entity(41)]).expect_err("too long");
        assert!(error.to_string().contains("\"id\"") && error.to_string().contains("entity: 1"), "{error}");
    }
}
