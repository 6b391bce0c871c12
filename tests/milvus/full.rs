//! The full server: flush, load, restart, credentials and TLS.

use std::time::Duration;

use arshai::vectors::{
    BulkInsertOptions, CollectionConfig, Entity, Filter, SearchRequest, VectorStore, entity_stream,
};
use arshai::{Component, Deadline, ErrorKind, Outcome};
use arshai_test_support::MilvusServer;

use serde_json::json;

use super::{config, entities, entity, numbers, pages, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_entities_survive_a_kill_flushed_or_not() {
    let mut server = MilvusServer::full();
    let store = store(config(&server));
    store.connect().await.expect("connected");
    assert!(!store.capabilities().sparse, "2.3.5 has no sparse vectors");
    let error = store.get_or_create_collection(&CollectionConfig::new("sparse", 4).hybrid()).await;
    let error = error.expect_err("its index would fail");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unsupported, Outcome::NotSent), "{error}");
    assert_eq!(store.list_collections().await.expect("listed"), [""; 0], "nothing was created");
    let collection = pages(&store).await;
    let stream = entity_stream((0..500).map(entity));
    let report =
        collection.bulk_insert_optimized(stream, BulkInsertOptions::default().with_batch_size(100)).await;
    assert!(report.is_complete() && report.flushed, "{report:?}");
    collection.insert_entities(entities(500..510)).await.expect("inserted, not flushed");
    assert_eq!(collection.get_collection_stats().await.expect("counted").num_entities, 510);
    let known =
        collection.query_by_expr(super::everything().with_limit(1)).await.expect("found").remove(0).id;
    let by_id = Filter::with_params("doc_id in {ids}", [("ids", json!([known, "absent"]))]).expect("valid");
    assert_eq!(collection.delete_entity(&by_id).await.expect("deleted"), 1, "what was there is counted");
    assert_eq!(numbers(&*collection).await.len(), 509, "a delete is seen at once");
    collection.insert_entities(entities(510..511)).await.expect("inserted, not flushed");
    let acknowledged = numbers(&*collection).await;
    server.kill9();
    collection.insert_entity(entity(511)).await.expect_err("no server");
    server.restart();
    let found = loop {
        // The first load after a kill takes a while.
        match collection.query_by_expr(super::everything()).await {
            Ok(found) => break found,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_eq!(found.len(), 510, "nothing acknowledged is lost");
    assert_eq!(numbers(&*collection).await, acknowledged);
    let found =
        collection.search_by_vector(SearchRequest::new(vec![1.0, 0.0, 0.0, 0.0])).await.expect("found");
    assert_eq!(found[0][0].fields["content"], "page 510");
    assert!(store.health(Deadline::after(Duration::from_secs(30))).await.is_usable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_database_and_certificates_are_the_configurations() {
    let server = MilvusServer::builder().authorization().tls().start();
    let mut config = config(&server);
    config.milvus.host = "localhost".into();
    config.milvus.tls = true;
    config.milvus.ca_file = Some(server.ca_file().display().to_string());
    let wrong = store({
        let mut config = config.clone();
        config.milvus.token = Some("root:hunter2".into());
        config
    });
    let error = wrong.list_collections().await.expect_err("a wrong password");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::Rejected), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    config.milvus.token = Some("root:Milvus".into());
    let elsewhere = store({
        let mut config = config.clone();
        config.milvus.db_name = "elsewhere".into();
        config
    });
    let error = elsewhere.list_collections().await.expect_err("no such database");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    let untrusting = store({
        let mut config = config.clone();
        config.milvus.ca_file = None;
        config
    });
    let error = untrusting.list_collections().await.expect_err("an authority that is not trusted");
    assert_eq!(error.outcome(), Outcome::NotSent, "{error:?}");
    let store = store(config);
    let collection = pages(&store).await;
    collection.insert_entities(entities(0..3)).await.expect("inserted");
    assert_eq!(numbers(&*collection).await, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wants_a_client_certificate_gets_it() {
    let server = MilvusServer::builder().mutual_tls().start();
    let (certificate, key) = server.client_certificate();
    let mut config = config(&server);
    config.milvus.host = "localhost".into();
    config.milvus.tls = true;
    config.milvus.ca_file = Some(server.ca_file().display().to_string());
    let anonymous = store(config.clone());
    anonymous.list_collections().await.expect_err("no certificate");
    (config.milvus.client_cert, config.milvus.client_key) =
        (Some(certificate.display().to_string()), Some(key.display().to_string()));
    let with_other_key = store({
        let mut config = config.clone();
        config.milvus.client_key = Some(server.ca_file().with_file_name("server.key").display().to_string());
        config
    });
    let error = with_other_key.list_collections().await.expect_err("the key of another certificate");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Config, Outcome::NotSent), "{error:?}");
    assert!(error.message().contains("milvus.client_key"), "{error:?}");
    let store = store(config);
    pages(&store).await.insert_entities(entities(0..3)).await.expect("inserted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_below_the_limit_is_answered_and_one_above_it_is_not_sent() {
    let server = MilvusServer::full();
    let store = store(config(&server));
    let collection = pages(&store).await;
    let large = |number: u64| Entity::new("x".repeat(64_000), vec![number as f32; 4]);
    let error = collection.insert_entities((0..1_000).map(large).collect()).await.expect_err("64 MB");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TooLarge, Outcome::NotSent), "{error}");
    assert_eq!(collection.insert_entities((0..500).map(large).collect()).await.expect("32 MB").len(), 500);
    assert_eq!(collection.get_collection_stats().await.expect("counted").num_entities, 500);
}
