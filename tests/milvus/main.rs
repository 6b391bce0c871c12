//! Vectors in Milvus, against real servers: the small engine and the full server.

mod contract;
mod deadlines;
mod edges;
mod faults;
mod filters;
mod full;
mod shared;
mod unreachable;

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::vectors::{LegacyMilvusStore, MilvusStore};
use arshai::vectors::{Collection, CollectionConfig, Entity, Filter, QueryRequest, VectorStore};
use arshai::{BuildContext, Config};
use arshai_test_support::MilvusServer;
use serde_json::json;

/// A configuration for the server, with a deadline that a loaded machine keeps.
fn config(server: &MilvusServer) -> Config {
    let mut config = Config::default();
    config.vectors.backend = MilvusStore::NAME.into();
    (config.milvus.host, config.milvus.port) = ("127.0.0.1".into(), server.port());
    config.milvus.request_timeout = Duration::from_secs(60);
    config
}

fn store(config: Config) -> MilvusStore {
    MilvusStore::from_context(&BuildContext::new(config)).expect("the configuration is valid")
}

fn legacy(config: Config) -> LegacyMilvusStore {
    LegacyMilvusStore::from_context(&BuildContext::new(config)).expect("the configuration is valid")
}

async fn pages(store: &dyn VectorStore) -> Arc<dyn Collection> {
    store.get_or_create_collection(&CollectionConfig::new("pages", 4)).await.expect("created")
}

fn entity(number: u64) -> Entity {
    let vector = vec![number as f32, 1.0, 0.0, -1.0];
    Entity::new(format!("page {number}"), vector).with_metadata(json!({"number": number}))
}

fn entities(numbers: std::ops::Range<u64>) -> Vec<Entity> {
    numbers.map(entity).collect()
}

fn everything() -> QueryRequest {
    QueryRequest::new(Filter::parse("doc_id != ''").expect("valid"))
}

/// The numbers of all entities, sorted.
async fn numbers(collection: &dyn Collection) -> Vec<u64> {
    let found = collection.query_by_expr(everything()).await.expect("a valid query");
    let number = |hit: &arshai::vectors::Hit| hit.fields["metadata"]["number"].as_u64().expect("a number");
    let mut numbers: Vec<_> = found.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}
