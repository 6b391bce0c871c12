//! Section 6 of the document that started the project, "Milvus Async Operations", ported under its names: existing
//! usage works as it did, and the new methods are additions.

use std::sync::Arc;

use arshai::vectors::{
    BlockingVectorStore, BulkInsertOptions, Collection, CollectionConfig, Consistency, Entity, Filter,
    QueryRequest, SearchRequest, entity_stream,
};
use arshai::{Arshai, Config, Deadline};
use arshai_test_support::MilvusServer;
use serde_json::json;

use crate::query_vector;

const DIM: usize = crate::DIM;

/// `client = MilvusClient()`, by the variables that Python reads.
fn client(server: &MilvusServer, more: &[(&str, &str)]) -> Arshai {
    let port = server.port().to_string();
    let variables = [
        ("ARSHAI_VECTOR_BACKEND", "milvus"),
        ("MILVUS_HOST", "127.0.0.1"),
        ("MILVUS_PORT", &port),
        ("MILVUS_DB_NAME", "default"),
    ];
    let variables = variables.iter().chain(more).map(|(name, value)| (name.into(), value.into()));
    let config = Config::from_vars(variables).expect("all are good");
    Arshai::builder(config).build().expect("it builds")
}

fn entity(number: usize) -> Entity {
    Entity::new(format!("text {number}"), query_vector()).with_metadata(json!({"number": number}))
}

async fn count(collection: &dyn Collection) -> u64 {
    collection.get_collection_stats().await.expect("counted").num_entities
}

#[tokio::test]
async fn original_usage_of_the_milvus_client_works_as_it_did() {
    let server = MilvusServer::small();
    let runtime = client(&server, &[]);
    let client = runtime.vectors().expect("it is configured");
    client.connect().await.expect("connected");
    let config = CollectionConfig::new("documents", DIM);
    let collection = client.get_or_create_collection(&config).await.expect("made");

    collection.insert_entity(entity(0)).await.expect("inserted");
    collection.insert_entities((1..120).map(entity).collect()).await.expect("inserted");
    assert_eq!(count(&*collection).await, 120);
    let found = collection.search_by_vector(SearchRequest::new(query_vector())).await.expect("searched");
    assert_eq!((found.len(), found[0].len()), (1, 3), "Python's default limit");
    client.disconnect(Deadline::after(crate::LONG)).await;
}

/// Python's methods without `_async`, and the program that calls them, block.
#[test]
fn existing_methods_are_still_synchronous() {
    let server = MilvusServer::small();
    let runtime = client(&server, &[]);
    let client =
        BlockingVectorStore::new(Arc::clone(runtime.vectors().expect("configured"))).expect("a thread");
    client.connect().expect("connected");
    let config = CollectionConfig::new("documents", DIM);
    let collection = client.get_or_create_collection(&config).expect("made");
    collection.insert_entity(entity(0)).expect("inserted");
    collection.insert_entities((1..10).map(entity).collect()).expect("inserted");
    let report = collection.bulk_insert_optimized((10..120).map(entity), BulkInsertOptions::default());
    assert_eq!(report.and_then(|report| report.into_result()).expect("inserted").written_count(), 110);

    let found = collection.search_by_vector(SearchRequest::new(query_vector())).expect("searched");
    assert_eq!((found.len(), found[0].len()), (1, 3), "Python's default limit");
    let filter = Filter::parse("metadata['number'] in [3, 110]").expect("a filter");
    assert_eq!(collection.query_by_expr(QueryRequest::new(filter.clone())).expect("queried").len(), 2);
    assert_eq!(collection.delete_entity(&filter).expect("deleted"), 2);
    assert_eq!(collection.get_collection_stats().expect("counted").num_entities, 118);
    client.disconnect(Deadline::after(crate::LONG)).expect("outside a runtime");
}

#[tokio::test]
async fn the_new_methods_are_additions() {
    let server = MilvusServer::small();
    let runtime = client(&server, &[("MILVUS_BATCH_SIZE", "50")]);
    let config = CollectionConfig::new("documents", DIM);
    let collection =
        runtime.vectors().expect("configured").get_or_create_collection(&config).await.expect("made");

    // Many at once: the caller does not wait for each.
    let inserts = (0..20).map(|number| collection.insert_entity(entity(number)));
    let ids = futures_util::future::try_join_all(inserts).await.expect("inserted");
    assert_eq!(ids.len(), 20);
    let report = collection
        .bulk_insert_optimized(entity_stream((20..520).map(entity)), BulkInsertOptions::default())
        .await;
    assert!(report.is_complete() && report.flushed, "{report:?}");
    assert_eq!(report.ids().count(), 500);
    assert_eq!(count(&*collection).await, 520);
}

/// What is written with the optimizations is read without them, and the other way round: the emergency flag can be
/// set at any restart.
#[tokio::test]
async fn the_rollback_flag_keeps_the_data() {
    let server = MilvusServer::small();
    let config = CollectionConfig::new("documents", DIM);
    for (round, flag) in ["false", "true", "false"].into_iter().enumerate() {
        let runtime = client(&server, &[("ARSHAI_DISABLE_OPTIMIZATIONS", flag)]);
        let store = runtime.vectors().expect("configured");
        let collection = store.get_or_create_collection(&config).await.expect("made or found");
        let before = (round * 60) as u64;
        assert_eq!(count(&*collection).await, before);
        let entities = entity_stream((0..60).map(entity));
        let report = collection.bulk_insert_optimized(entities, BulkInsertOptions::default()).await;
        assert!(report.is_complete(), "{report:?}");
        let request =
            SearchRequest::new(query_vector()).with_limit(500).with_consistency(Consistency::Strong);
        let found = collection.search_by_vector(request).await.expect("searched");
        assert_eq!(found[0].len() as u64, before + 60);
        store.close(Deadline::after(crate::LONG)).await;
    }
}
