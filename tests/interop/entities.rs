//! Entities: written by one side; found, filtered, extended and deleted by the other.

use std::sync::Arc;

use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Consistency, Filter, Hit, HybridSearchRequest,
    QueryRequest, SearchRequest, VectorStore, entity_stream,
};
use arshai_test_support::MilvusServer;
use serde_json::{Value, json};

use crate::{
    Both, assert_same_hits, assert_same_rows, collection_with_every_type, entities, entity, query_vector,
    sparse_query,
};

/// Filters that both engines evaluate.
const FILTERS: [&str; 8] = [
    "page > 3",
    "page in [1, 5, 40] or draft == false",
    r#"name == "\"n\" \\ 2 é""#,
    "metadata['number'] == 4",
    "metadata[\"nested\"][\"float\"] == 2.5 and page < 2",
    r#"content like "text 1%""#,
    "metadata['large'] == 9223372036854775807 and more['number'] in [0, 6]",
    "metadata['missing'] != 1",
];

#[tokio::test]
async fn on_the_small_engine_rust_uses_what_python_fills() {
    rust_uses_what_python_fills(MilvusServer::small(), collection_with_every_type("c").hybrid()).await;
}

#[tokio::test]
async fn on_the_full_engine_rust_uses_what_python_fills() {
    rust_uses_what_python_fills(MilvusServer::full(), collection_with_every_type("c")).await;
}

#[tokio::test]
async fn on_the_small_engine_python_uses_what_rust_fills() {
    python_uses_what_rust_fills(MilvusServer::small(), collection_with_every_type("c").hybrid()).await;
}

#[tokio::test]
async fn on_the_full_engine_python_uses_what_rust_fills() {
    python_uses_what_rust_fills(MilvusServer::full(), collection_with_every_type("c")).await;
}

async fn rust_uses_what_python_fills(server: MilvusServer, config: CollectionConfig) {
    let mut both = Both::on(server);
    both.python_inserts(&config, &entities(&config, 0..10));
    let last = entity(&config, 10);
    let embedding = json!({"dense": last.dense, "sparse": last.sparse});
    both.arshai("insert_entity", &config, json!({"entity": last.fields, "embedding": embedding}));

    let collection = both.rust.get_collection("c").await.expect("Rust opens it");
    assert_eq!(count(&*collection).await, 11);
    both_find_the_same(&mut both, &config, &*collection, 11).await;

    let ids = collection.insert_entities(entities(&config, 11..13)).await.expect("Rust extends it");
    collection.insert_entity(entity(&config, 13)).await.expect("Rust extends it");
    let found = rows(&*collection, &format!("doc_id in [{:?}, {:?}]", ids[0], ids[1])).await;
    assert_eq!(texts(&found), ["text 11", "text 12"]);
    both_find_the_same(&mut both, &config, &*collection, 14).await;

    let filter = Filter::parse("page < 12 and draft == true").expect("a filter");
    assert_eq!(collection.delete_entity(&filter).await.expect("Rust deletes"), 6);
    both_find_the_same(&mut both, &config, &*collection, 8).await;
}

async fn python_uses_what_rust_fills(server: MilvusServer, config: CollectionConfig) {
    let mut both = Both::on(server);
    let collection = both.rust.get_or_create_collection(&config).await.expect("Rust makes it");
    collection.insert_entity(entity(&config, 0)).await.expect("inserted");
    collection.insert_entities(entities(&config, 1..4)).await.expect("inserted");
    let stream = entity_stream(entities(&config, 4..10));
    let report =
        collection.bulk_insert_optimized(stream, BulkInsertOptions::default().with_batch_size(2)).await;
    assert!(report.is_complete() && report.written_count() == 6, "{report:?}");
    assert_eq!(both.arshai("get_collection_stats", &config, json!({})), 10);
    both_find_the_same(&mut both, &config, &*collection, 10).await;

    both.python_inserts(&config, &entities(&config, 10..12));
    let row = |number| raw_row(&config, number);
    let ids = both.pymilvus("insert", "c", json!({"rows": [row(12), row(13)]}));
    assert_eq!(ids.as_array().map(Vec::len), Some(2));
    both_find_the_same(&mut both, &config, &*collection, 14).await;

    let deleted =
        both.arshai("delete_entity", &config, json!({"filter_expr": "page < 12 and draft == true"}));
    assert_eq!(deleted, 6);
    both.pymilvus("delete", "c", json!({"expr": format!("doc_id in {ids}")}));
    both_find_the_same(&mut both, &config, &*collection, 6).await;
}

/// Every kind of search finds the same on both sides, in a collection of `number` entities.
async fn both_find_the_same(
    both: &mut Both,
    config: &CollectionConfig,
    collection: &dyn Collection,
    number: usize,
) {
    let all = || SearchRequest::new(query_vector()).with_limit(100).with_consistency(Consistency::Strong);
    let rust = collection.search_by_vector(all()).await.expect("Rust searches");
    let arguments = json!({"query_vectors": [query_vector()], "limit": 100});
    let python = both.python_finds(number, "search_by_vector", config, arguments);
    assert_same_hits(&rust[0], &python[0]);

    let several = SearchRequest::new(vec![query_vector(), vec![1.0, 0.25, 0.0, 0.0]])
        .with_filter(Filter::parse("draft == false").expect("a filter"))
        .with_output_fields(["content", "page"])
        .with_consistency(Consistency::Strong);
    let rust = collection.search_by_vector(several).await.expect("Rust searches");
    let arguments = json!({
        "query_vectors": [query_vector(), [1.0, 0.25, 0.0, 0.0]],
        "expr": "draft == false",
        "output_fields": ["content", "page"],
    });
    let python = both.python_finds(3, "search_by_vector", config, arguments);
    for at in [0, 1] {
        assert_same_hits(&rust[at], &python[at]);
    }
    if config.is_hybrid {
        both_find_the_same_in_hybrid(both, config, collection, number).await;
    }
    for filter in FILTERS {
        let rust = rows(collection, filter).await;
        let python =
            both.arshai("query_by_expr", config, json!({"expr": filter, "consistency_level": "Strong"}));
        assert_same_rows(config, &rust, &python);
    }
}

async fn both_find_the_same_in_hybrid(
    both: &mut Both,
    config: &CollectionConfig,
    collection: &dyn Collection,
    number: usize,
) {
    let sparse = SearchRequest::new(sparse_query()).with_limit(100).with_consistency(Consistency::Strong);
    let rust = collection.search_by_vector(sparse).await.expect("Rust searches");
    let arguments =
        json!({"query_vectors": [sparse_query()], "search_field": config.sparse_field, "limit": 100});
    let python = both.python_finds(number, "search_by_vector", config, arguments);
    assert_same_hits(&rust[0], &python[0]);

    for limit in [5, 100] {
        let request = HybridSearchRequest::new(query_vector(), sparse_query())
            .with_limit(limit)
            .with_filter(Filter::parse("page != 3").expect("a filter"))
            .with_consistency(Consistency::Strong);
        let rust = collection.hybrid_search(request).await.expect("Rust searches");
        let arguments = json!({
            "dense_vectors": [query_vector()], "sparse_vectors": [sparse_query()], "expr": "page != 3", "limit": limit,
        });
        let python = both.python_finds(rust.len(), "hybrid_search", config, arguments);
        assert_same_hits(&rust, &python[0]);
    }
}

/// What pymilvus is given for an entity: the fields of the schema by name.
fn raw_row(config: &CollectionConfig, number: u16) -> Value {
    let entity = entity(config, number);
    let mut row = entity.fields;
    row.insert(config.dense_field.clone(), json!(entity.dense));
    if config.is_hybrid {
        row.insert(config.sparse_field.clone(), json!(entity.sparse));
    }
    Value::Object(row)
}

async fn rows(collection: &dyn Collection, filter: &str) -> Vec<Hit> {
    let request =
        QueryRequest::new(Filter::parse(filter).expect("a filter")).with_consistency(Consistency::Strong);
    collection.query_by_expr(request).await.unwrap_or_else(|error| panic!("{filter}: {error}"))
}

fn texts(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.fields["content"].as_str().expect("a text")).collect()
}

async fn count(collection: &dyn Collection) -> u64 {
    collection.get_collection_stats().await.expect("counted").num_entities
}

/// Python's keys `content` and `metadata` win over the names of the collection, and metadata may be missing.
#[tokio::test]
async fn own_names_of_fields_mean_the_same_on_both_sides() {
    let mut both = Both::on(MilvusServer::small());
    let mut config = CollectionConfig::new("c", crate::DIM);
    (config.text_field, config.metadata_field) = ("passage".into(), "attributes".into());
    (config.pk_field, config.dense_field) = ("key".into(), "embedding".into());
    let collection: Arc<dyn Collection> = both.rust.get_or_create_collection(&config).await.expect("made");
    let entity = |fields: Value| {
        let mut entity = arshai::vectors::Entity::new("", query_vector());
        entity.fields = fields.as_object().cloned().expect("an object");
        entity
    };
    let entities = [
        entity(json!({"passage": "own", "attributes": {"n": 1}})),
        entity(
            json!({"content": "common", "metadata": {"n": 2}, "passage": "ignored", "attributes": {"n": 0}}),
        ),
        entity(json!({"content": "alone"})),
    ];
    both.python_inserts(&config, &entities);
    let stored = |hits: Vec<Hit>| -> Vec<_> {
        hits.iter().map(|hit| (hit.fields["passage"].clone(), hit.fields["attributes"].clone())).collect()
    };
    let by_python = stored(rows(&*collection, r#"key != """#).await);
    assert_eq!(
        by_python,
        [(json!("own"), json!({"n": 1})), (json!("common"), json!({"n": 2})), (json!("alone"), json!({}))]
    );
    collection.delete_entity(&Filter::parse(r#"key != """#).expect("a filter")).await.expect("deleted");
    // Rust refuses what Python drops in silence.
    let refused = collection.insert_entities(entities.to_vec()).await.expect_err("two texts");
    assert!(refused.to_string().contains("unknown field \"attributes\""), "{refused}");
    let [own, mut common, alone] = entities;
    common.fields.retain(|name, _| name == "content" || name == "metadata");
    collection.insert_entities(vec![own, common, alone]).await.expect("inserted");
    assert_eq!(stored(rows(&*collection, r#"key != """#).await), by_python);
}

#[tokio::test]
async fn uuids_of_python_are_strings_of_at_most_40_bytes() {
    let mut both = Both::on(MilvusServer::small());
    let mut of_python = crate::python_config(&CollectionConfig::new("c", crate::DIM));
    of_python["schema_model"] = json!([["user", "uuid"]]);
    let uuid = "12345678-1234-5678-1234-567812345678";
    let entity = json!({"content": "x", "metadata": {"id": {"$uuid": uuid}}, "user": {"$uuid": uuid}});
    let arguments = json!({"entity": entity, "embedding": {"dense": query_vector()}});
    both.call("insert_entity", "config", of_python, arguments);

    let collection = both.rust.get_collection("c").await.expect("Rust opens it");
    let found = rows(&*collection, &format!("user == '{uuid}' and metadata['id'] == '{uuid}'")).await;
    assert_eq!(texts(&found), ["x"]);
    let entity = |user: &str| arshai::vectors::Entity::new("y", query_vector()).with_field("user", user);
    collection.insert_entity(entity(uuid)).await.expect("inserted");
    let refused = collection.insert_entity(entity(&"x".repeat(41))).await.expect_err("too long");
    assert!(refused.to_string().contains("at most 40 bytes"), "{refused}");
}
