//! Schemas and indexes.

use arshai::vectors::{CollectionConfig, ExtraField, FieldType, VectorStore};
use arshai::{Error, ErrorKind};
use arshai_test_support::MilvusServer;
use serde_json::json;

use crate::{Both, DIM, collection_with_every_type, python_config};

#[tokio::test]
async fn on_the_small_engine_a_collection_is_the_same_whoever_makes_it() {
    let mut both = Both::on(MilvusServer::small());
    let every_type = collection_with_every_type("dense").with_field("price", FieldType::Float);
    the_same_whoever_makes_it(&mut both, every_type.clone()).await;
    let mut hybrid = every_type.hybrid();
    hybrid.collection_name = "hybrid".into();
    the_same_whoever_makes_it(&mut both, hybrid).await;
    the_same_whoever_makes_it(&mut both, with_own_names()).await;
}

#[tokio::test]
async fn on_the_full_engine_a_collection_is_the_same_whoever_makes_it() {
    let mut both = Both::on(MilvusServer::full());
    let config = collection_with_every_type("dense").with_field("price", FieldType::Float);
    the_same_whoever_makes_it(&mut both, config).await;
    let mut dense = with_own_names();
    // Nothing names the sparse field of a collection that has none.
    (dense.is_hybrid, dense.sparse_field) = (false, CollectionConfig::new("named", DIM).sparse_field);
    the_same_whoever_makes_it(&mut both, dense).await;
}

fn with_own_names() -> CollectionConfig {
    let mut config = CollectionConfig::new("named", DIM).hybrid();
    config.pk_field = "key".into();
    config.text_field = "passage".into();
    config.metadata_field = "attributes".into();
    config.dense_field = "embedding".into();
    config.sparse_field = "terms".into();
    config
}

async fn the_same_whoever_makes_it(both: &mut Both, config: CollectionConfig) {
    let name = config.collection_name.clone();
    both.rust.get_or_create_collection(&config).await.expect("Rust makes it");
    let by_rust = both.pymilvus("describe", &name, json!({}));
    assert_eq!(both.arshai("get_or_create_collection", &config, json!({})), by_rust, "Python takes it");
    both.rust.drop_collection(&name).await.expect("Rust drops it");

    let by_python = both.arshai("get_or_create_collection", &config, json!({}));
    assert_eq!(by_python, by_rust);
    let taken = both.rust.get_or_create_collection(&config).await.expect("Rust takes it");
    assert_eq!(taken.config(), &config);
    let described = both.rust.get_collection(&name).await.expect("Rust opens it");
    assert_eq!(described.config(), &config);
    both.pymilvus("drop", &name, json!({}));
    let gone = both.rust.get_collection(&name).await.expect_err("Python has dropped it");
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
}

/// The types that a schema model of Python can have, and what Milvus is given for them.
const PYTHON_TYPES: [(&str, FieldType); 11] = [
    ("str", FieldType::VarChar),
    ("int", FieldType::Int64),
    ("float", FieldType::Float),
    ("bool", FieldType::Bool),
    ("dict", FieldType::Json),
    ("list", FieldType::Json),
    ("uuid", FieldType::VarChar),
    ("datetime", FieldType::Json),
    ("optional", FieldType::Json),
    ("list_of_str", FieldType::Json),
    ("dict_of_int", FieldType::Json),
];

#[tokio::test]
async fn rust_opens_a_collection_with_every_type_that_python_knows() {
    for server in [MilvusServer::small(), MilvusServer::full()] {
        let mut both = Both::on(server);
        let mut config = CollectionConfig::new("typed", DIM);
        let mut of_python = python_config(&config);
        of_python["schema_model"] = PYTHON_TYPES.iter().map(|(name, _)| json!([name, name])).collect();
        both.call("get_or_create_collection", "config", of_python, json!({}));

        let field = |(name, field_type): &(&str, FieldType)| ExtraField {
            name: (*name).into(),
            field_type: *field_type,
        };
        config.extra_fields = PYTHON_TYPES.iter().map(field).collect();
        let described = both.rust.get_collection("typed").await.expect("Rust opens it");
        assert_eq!(described.config(), &config);
        both.rust.get_or_create_collection(&config).await.expect("the same schema");
    }
}

#[tokio::test]
async fn a_collection_of_python_with_another_schema_is_an_error_that_says_what_differs() {
    let mut both = Both::on(MilvusServer::small());
    let config = collection_with_every_type("made");
    both.arshai("get_or_create_collection", &config, json!({}));
    let refusal = async |change: fn(&mut CollectionConfig), expected: &str| {
        let mut other = config.clone();
        change(&mut other);
        let refused = both.rust.get_or_create_collection(&other).await.expect_err(expected);
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert!(refused.to_string().contains(expected), "{refused}");
    };
    refusal(|other| other.dense_dim = 8, "dense_dim is [4], not [8]").await;
    refusal(|other| other.text_field = "text".into(), "text_field").await;
    refusal(|other| other.is_hybrid = true, "is_hybrid is [false], not [true]").await;
    refusal(|other| other.extra_fields.truncate(1), "page: Int64").await;
}

/// Python makes the sparse index first; the server refuses it, and what is left has no index at all.
#[tokio::test]
async fn what_python_leaves_half_made_is_seen_refused_and_dropped() {
    let mut both = Both::on(MilvusServer::full());
    let hybrid = CollectionConfig::new("half", DIM).hybrid();
    let failed =
        both.python.call(&json!({"op": "get_or_create_collection", "config": python_config(&hybrid)}));
    assert!(failed.get("error").is_some(), "2.3.5 has no sparse vectors: {failed}");
    assert_eq!(both.rust.list_collections().await.expect("listed"), ["half"]);

    let kind = |result: Result<_, Error>| result.map(drop).expect_err("it is of no use").kind();
    assert_eq!(kind(both.rust.get_collection("half").await), ErrorKind::Unsupported);
    assert_eq!(kind(both.rust.get_or_create_collection(&hybrid).await), ErrorKind::Unsupported);
    both.rust.drop_collection("half").await.expect("dropped");
    both.rust.get_or_create_collection(&CollectionConfig::new("half", DIM)).await.expect("the name is free");
}
