//! One Milvus for Rust, Python arshai 1.15.0 and pymilvus: whatever one side makes, the other uses.

mod collections;
mod entities;
mod floats;
mod quickstart;
mod seed;

use std::time::Duration;

use arshai::backends::vectors::MilvusStore;
use arshai::config::MilvusConfig;
use arshai::vectors::{CollectionConfig, Entity, FieldType, Hit};
use arshai::{BuildContext, Config};
use arshai_test_support::{MilvusServer, PythonPeer};
use serde_json::{Value, json};

/// Long enough that only a promise broken reaches it.
const LONG: Duration = Duration::from_secs(120);
const DIM: usize = 4;

/// A store and a Python process on one server.
struct Both {
    rust: MilvusStore,
    python: PythonPeer,
    server: MilvusServer,
}

impl Both {
    fn on(server: MilvusServer) -> Self {
        Self { rust: store(&server, |_| {}), python: PythonPeer::on_milvus(&server), server }
    }

    /// What a method of Python arshai's `MilvusClient` returns.
    fn arshai(&mut self, method: &str, config: &CollectionConfig, arguments: Value) -> Value {
        self.call(method, "config", python_config(config), arguments)
    }

    /// What pymilvus returns.
    fn pymilvus(&mut self, operation: &str, collection: &str, arguments: Value) -> Value {
        self.call(operation, "collection", collection.into(), arguments)
    }

    fn call(&mut self, operation: &str, on: &str, what: Value, arguments: Value) -> Value {
        let mut request = json!({"op": operation, on: what});
        request
            .as_object_mut()
            .expect("an object")
            .extend(arguments.as_object().cloned().expect("an object"));
        let answer = self.python.call(&request);
        assert!(answer.get("error").is_none(), "{operation}: {answer}");
        answer["ok"].clone()
    }

    /// Python's `insert_entities`, which flushes.
    fn python_inserts(&mut self, config: &CollectionConfig, entities: &[Entity]) {
        let fields: Vec<_> = entities.iter().map(|entity| &entity.fields).collect();
        let dense: Vec<_> = entities.iter().map(|entity| &entity.dense).collect();
        let sparse: Vec<_> = entities.iter().map(|entity| &entity.sparse).collect();
        let embedding = if config.is_hybrid {
            json!({"dense": dense, "sparse": sparse})
        } else {
            json!({"dense": dense})
        };
        self.arshai("insert_entities", config, json!({"entities": fields, "embedding": embedding}));
    }

    /// Asks Python until it gives `number` hits: its searches may run a few seconds behind.
    fn python_finds(
        &mut self,
        number: usize,
        method: &str,
        config: &CollectionConfig,
        arguments: Value,
    ) -> Value {
        let waiting = format!("{number} hits of Python's {method}");
        arshai_test_support::until(&waiting, LONG, || {
            let found = self.arshai(method, config, arguments.clone());
            (found[0].as_array().map(Vec::len) == Some(number)).then_some(found)
        })
    }
}

fn store(server: &MilvusServer, change: impl FnOnce(&mut MilvusConfig)) -> MilvusStore {
    let mut config = Config::default();
    config.milvus.host = "127.0.0.1".into();
    config.milvus.port = server.port();
    // The machine may be busy with other tests.
    config.milvus.request_timeout = LONG;
    change(&mut config.milvus);
    MilvusStore::from_context(&BuildContext::new(config)).expect("the configuration is valid")
}

/// A collection with a field of every type that both sides can write.
fn collection_with_every_type(name: &str) -> CollectionConfig {
    CollectionConfig::new(name, DIM)
        .with_field("name", FieldType::VarChar)
        .with_field("page", FieldType::Int64)
        .with_field("draft", FieldType::Bool)
        .with_field("more", FieldType::Json)
}

/// The configuration as an application of Python would write it.
fn python_config(config: &CollectionConfig) -> Value {
    let python_type = |field_type| match field_type {
        FieldType::VarChar => "str",
        FieldType::Int64 => "int",
        FieldType::Float => "float",
        FieldType::Bool => "bool",
        FieldType::Json => "dict",
        other => panic!("{other:?} is none of Python's"),
    };
    let model = config.extra_fields.iter();
    let model: Vec<_> = model.map(|field| (&field.name, python_type(field.field_type))).collect();
    json!({
        "collection_name": config.collection_name,
        "dense_dim": config.dense_dim,
        "text_field": config.text_field,
        "pk_field": config.pk_field,
        "dense_field": config.dense_field,
        "sparse_field": config.sparse_field,
        "metadata_field": config.metadata_field,
        "is_hybrid": config.is_hybrid,
        "schema_model": model,
    })
}

/// The entity with that number: no two have the same score for [`query_vector`] or [`sparse_query`].
fn entity(config: &CollectionConfig, number: u16) -> Entity {
    let step = f32::from(number) / 8.0;
    let mut entity = Entity::new(format!("text {number}"), vec![1.0, step, 0.5, 0.0])
        .with_metadata(every_kind_of_metadata(number));
    for field in &config.extra_fields {
        let value = match field.field_type {
            FieldType::VarChar => json!(format!("\"n\" \\ {number} é")),
            FieldType::Int64 => json!(i64::from(number)),
            FieldType::Float => json!(step),
            FieldType::Bool => json!(number.is_multiple_of(2)),
            _ => json!({"number": number, "deep": {"list": [1.5, null, "x"]}}),
        };
        entity = entity.with_field(&field.name, value);
    }
    if config.is_hybrid {
        entity = entity.with_sparse([(1, 1.0 + step), (100 + u32::from(number), 0.5)].into());
    }
    entity
}

/// Everything that JSON can say, but for floats at the top: `floats.rs` is about them.
fn every_kind_of_metadata(number: u16) -> Value {
    json!({
        "number": number,
        "text": format!("\"quotes\" and \\ and 'single' سلام 👋 line\nbreak\t{number}"),
        "empty": "",
        "large": i64::MAX,
        "least": i64::MIN,
        "yes": true,
        "nothing": null,
        "nested": {"float": 2.5, "list": [1, -2.5, "x", null, {"deep": [[]]}], "a key.with \"dots\"": {}},
        "list": [1.5, 2, "three"],
        "none": {},
        "long": "x".repeat(20_000),
    })
}

fn entities(config: &CollectionConfig, numbers: std::ops::Range<u16>) -> Vec<Entity> {
    numbers.map(|number| entity(config, number)).collect()
}

fn query_vector() -> Vec<f32> {
    vec![0.0, 1.0, 0.0, 0.0]
}

fn sparse_query() -> arshai::vectors::SparseVector {
    [(1, 1.0)].into()
}

/// Both sides found the same entities, in the same order, with the same fields and scores.
fn assert_same_hits(rust: &[Hit], python: &Value) {
    let python = python.as_array().expect("a list of hits");
    assert_eq!(rust.len(), python.len(), "{rust:?}\n{python:?}");
    for (rust, python) in rust.iter().zip(python) {
        assert_eq!(rust.id, python["id"], "{rust:?}\n{python:?}");
        assert_eq!(Value::Object(rust.fields.clone()), python["fields"]);
        let score = python["score"].as_f64().expect("a number");
        assert!((f64::from(rust.score) - score).abs() < 1e-4, "{} is not {score}", rust.score);
    }
}

/// Both sides selected the same rows with the same fields, in whatever order.
fn assert_same_rows(config: &CollectionConfig, rust: &[Hit], python: &Value) {
    let mut python = python.as_array().cloned().expect("a list of rows");
    python.sort_by_key(|row| row[&config.pk_field].as_str().map(str::to_owned));
    let mut rust: Vec<_> = rust.iter().map(|hit| Value::Object(hit.fields.clone())).collect();
    rust.sort_by_key(|row| row[&config.pk_field].as_str().map(str::to_owned));
    assert_eq!(rust, python);
}
