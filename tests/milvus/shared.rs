//! Collections that several clients use, and how values are written.

use arshai::backends::vectors::LegacyMilvusStore;
use arshai::vectors::{
    BlockingVectorStore, BulkInsertOptions, CollectionConfig, Consistency, Entity, FieldType, Filter,
    SearchRequest, VectorStore,
};
use arshai::{BuildContext, Config, ErrorKind};
use arshai_test_support::MilvusServer;
use serde_json::json;
use std::sync::Arc;

use super::{config, entities, entity, everything, legacy, numbers, pages, store};

#[test]
fn the_flag_selects_the_legacy_implementation_with_small_batches() {
    let mut config = Config::default();
    config.vectors.backend = "milvus".into();
    config.rollback.disable_optimizations = true;
    let context = BuildContext::new(config);
    assert_eq!(context.config.vectors.backend, LegacyMilvusStore::NAME);
    assert_eq!(context.config.milvus.batch_size, 50);
}

#[tokio::test]
async fn switching_the_flag_on_the_small_engine_loses_nothing_both_ways() {
    switching_loses_nothing(MilvusServer::small()).await;
}

/// Not the whole contract: each insert of the legacy implementation flushes, which takes seconds there.
#[tokio::test]
async fn switching_the_flag_on_the_full_server_loses_nothing_both_ways() {
    switching_loses_nothing(MilvusServer::full()).await;
}

async fn switching_loses_nothing(server: MilvusServer) {
    let (current, earlier) = (store(config(&server)), legacy(config(&server)));
    let (ours, theirs) = (pages(&current).await, pages(&earlier).await);
    ours.insert_entities(entities(0..5)).await.expect("inserted");
    theirs.insert_entities(entities(5..10)).await.expect("inserted");
    for filter in ["false", "doc_id == 'x'", "doc_id in ['x'] or false"] {
        let nothing = Filter::parse(filter).expect(filter);
        for collection in [&ours, &theirs] {
            assert_eq!(collection.delete_entity(&nothing).await.expect("answered"), 0, "{filter}");
        }
    }
    for collection in [&ours, &theirs] {
        // Each store sees its own writes at once; those of another by asking for them.
        let all = everything().with_consistency(Consistency::Strong);
        assert_eq!(collection.query_by_expr(all).await.expect("found").len(), 10);
        assert_eq!(numbers(&**collection).await, Vec::from_iter(0..10));
    }
    let request = || SearchRequest::new(vec![1.0, 0.0, 0.0, 0.0]).with_limit(10);
    let found = ours.search_by_vector(request()).await.expect("found");
    assert_eq!(theirs.search_by_vector(request()).await.expect("found"), found);
}

#[tokio::test]
async fn floats_are_numbers_unless_they_are_to_be_written_as_in_python() {
    let server = MilvusServer::small();
    let schema = CollectionConfig::new("floats", 2)
        .with_field("price", FieldType::Float)
        .with_field("more", FieldType::Json);
    let row = |text: &str| {
        let metadata = json!({"score": 0.5, "n": 1, "in": {"score": 1.5}});
        Entity::new(text, vec![1.0, 0.0])
            .with_metadata(metadata)
            .with_field("price", 2.1)
            .with_field("more", 2.5)
    };
    let mut python = config(&server);
    python.milvus.python_floats = true;
    let python = store(python).get_or_create_collection(&schema).await.expect("created");
    let collection = store(config(&server)).get_or_create_collection(&schema).await.expect("found");
    collection.insert_entity(row("number")).await.expect("inserted");
    python.insert_entity(row("text")).await.expect("inserted");
    for handle in [&collection, &python] {
        let mut found = handle.query_by_expr(everything()).await.expect("both are read");
        found.sort_by(|a, b| a.fields["content"].as_str().cmp(&b.fields["content"].as_str()));
        assert_eq!(found[0].fields["metadata"], json!({"score": 0.5, "n": 1, "in": {"score": 1.5}}));
        assert_eq!(found[1].fields["metadata"], json!({"score": "0.5", "n": 1, "in": {"score": 1.5}}));
        assert_eq!((&found[0].fields["more"], &found[1].fields["more"]), (&json!(2.5), &json!(2.5)));
        assert_eq!(found[1].fields["price"], json!(2.1), "a column of floats holds no texts");
    }
}

#[tokio::test]
async fn a_collection_dropped_by_another_client_is_not_found() {
    let server = MilvusServer::small();
    let (ours, theirs) = (store(config(&server)), store(config(&server)));
    let collection = pages(&ours).await;
    theirs.drop_collection("pages").await.expect("it exists");
    let error = collection.insert_entity(entity(1)).await.expect_err("dropped");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = collection.query_by_expr(everything()).await.expect_err("dropped");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn callers_outside_a_runtime_block() {
    let server = MilvusServer::small();
    let store = BlockingVectorStore::new(Arc::new(store(config(&server)))).expect("a thread");
    let collection = store.get_or_create_collection(&CollectionConfig::new("pages", 4)).expect("created");
    collection.insert_entity(entity(0)).expect("inserted");
    collection.insert_entities(entities(1..10)).expect("inserted");
    let options = BulkInsertOptions::default().with_batch_size(7);
    let report = collection.bulk_insert_optimized((10..30).map(entity), options).expect("sent");
    assert_eq!(report.written_count(), 20);
    assert_eq!(collection.get_collection_stats().expect("counted").num_entities, 30);
    let found = collection.search_by_vector(SearchRequest::new(vec![1.0, 0.0, 0.0, 0.0])).expect("found");
    assert_eq!(found[0][0].fields["content"], "page 29");
    assert_eq!(collection.query_by_expr(everything()).expect("found").len(), 30);
    assert_eq!(store.list_collections().expect("listed"), ["pages"]);
    store.drop_collection("pages").expect("dropped");
}
