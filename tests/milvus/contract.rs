//! The backend and its legacy implementation keep the contract of vector stores.

use std::sync::Arc;

use arshai::contract::vectors::suite;
use arshai::vectors::VectorStore;
use arshai_test_support::MilvusServer;

use super::{config, legacy, store};

/// Drops what an earlier part of the suite left.
async fn emptied<S: VectorStore>(store: S) -> Arc<dyn VectorStore> {
    store.connect().await.expect("the server runs");
    for name in store.list_collections().await.expect("the server runs") {
        store.drop_collection(&name).await.expect("it exists");
    }
    Arc::new(store)
}

#[tokio::test]
async fn the_small_engine_keeps_the_contract() {
    let server = MilvusServer::small();
    suite(async |_| emptied(store(config(&server))).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_legacy_implementation_keeps_the_contract_on_the_small_engine() {
    let server = MilvusServer::small();
    let config = || {
        let mut config = config(&server);
        config.rollback.disable_optimizations = true;
        config
    };
    suite(async |_| emptied(legacy(config())).await).await;
}

#[tokio::test]
async fn the_full_server_keeps_the_contract() {
    let server = MilvusServer::full();
    suite(async |_| emptied(store(config(&server))).await).await;
}
