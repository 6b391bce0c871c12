//! The backend keeps the contract of vector stores.
use std::sync::Arc;

use arshai::backends::vectors::MilvusStore;
use arshai::contract::vectors::suite;
use arshai::vectors::VectorStore;
use arshai::{BuildContext, Config};

#[tokio::test]
async fn tmp() {
    let port: u16 = std::env::var("LITE").unwrap().parse().unwrap();
    suite(async |_| {
        let mut config = Config::default();
        config.milvus.host = "127.0.0.1".into();
        config.milvus.port = port;
        let store = MilvusStore::from_context(&BuildContext::new(config)).unwrap();
        for name in store.list_collections().await.unwrap() {
            store.drop_collection(&name).await.unwrap();
        }
        store.connect().await.unwrap();
        Arc::new(store) as _
    })
    .await;
}
