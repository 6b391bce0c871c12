//! Servers that stop, stall and die; requests and responses that are too large.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arshai::vectors::{
    BulkInsertOptions, CollectionConfig, Entity, FieldType, Filter, SearchRequest, VectorStore, entity_stream,
};
use arshai::{Component, Deadline, ErrorKind, Outcome};
use arshai_test_support::MilvusServer;
use serde_json::json;

use super::{config, entities, entity, everything, numbers, pages, store};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The 100 ms of the promise, and what a loaded machine takes to run a task.
const SLACK: Duration = Duration::from_secs(4);

fn search() -> SearchRequest {
    SearchRequest::new(vec![1.0, 1.0, 1.0, 1.0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_is_a_timeout_and_the_client_works_once_it_goes_on() {
    let server = MilvusServer::small();
    let mut config = config(&server);
    config.milvus.request_timeout = TIMEOUT;
    let store = store(config);
    let collection = pages(&store).await;
    collection.insert_entities(entities(0..10)).await.expect("inserted");
    server.pause();
    let began = Instant::now();
    let nothing = Filter::parse("metadata['number'] == 99").expect("valid");
    let (found, inserted, deleted, queried) = tokio::join!(
        collection.search_by_vector(search()),
        collection.insert_entity(entity(10)),
        collection.delete_entity(&nothing),
        collection.query_by_expr(everything()),
    );
    assert!(began.elapsed() < TIMEOUT + SLACK, "on time: {:?}", began.elapsed());
    let errors = [
        found.expect_err("paused"),
        inserted.expect_err("paused"),
        deleted.expect_err("paused"),
        queried.expect_err("paused"),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    }
    server.resume();
    // The answers to what timed out arrive now, and are nobody's.
    let found = collection.search_by_vector(search().with_limit(20)).await.expect("usable again");
    assert!((10..=11).contains(&found[0].len()), "acknowledged entities are there: {}", found[0].len());
    assert_eq!(store.limits()[0].used, 0, "nothing is pending");
}

#[tokio::test]
async fn a_stopped_server_is_unavailable_and_the_client_works_once_it_is_back() {
    let mut server = MilvusServer::small();
    let store = store(config(&server));
    let collection = pages(&store).await;
    collection.insert_entities(entities(0..50)).await.expect("inserted");
    server.kill9();
    let began = Instant::now();
    let error = collection.search_by_vector(search()).await.expect_err("stopped");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transport), "{error}");
    assert!(error.is_retryable());
    let error = collection.insert_entity(entity(50)).await.expect_err("stopped");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
    assert!(!store.health(Deadline::after(TIMEOUT)).await.is_usable());
    assert!(began.elapsed() < Duration::from_secs(20), "refused connections are not waited for");
    server.restart();
    assert_eq!(numbers(&*collection).await, Vec::from_iter(0..50), "nothing acknowledged is lost");
    collection.insert_entity(entity(50)).await.expect("usable again");
    assert!(store.health(Deadline::after(Duration::from_secs(30))).await.is_usable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_a_bulk_insert_loses_nothing_acknowledged_and_the_insert_is_resumed() {
    let server = std::sync::Mutex::new(MilvusServer::small());
    let config = config(&server.lock().expect("not poisoned"));
    let store = store(config);
    let collection = pages(&store).await;
    let killed = AtomicU64::new(0);
    let kill = |number: u64| {
        if number == 1_500 {
            server.lock().expect("not poisoned").kill9();
            killed.store(1, Ordering::Relaxed);
        }
        entity(number)
    };
    let options = BulkInsertOptions::default().with_batch_size(100);
    let report = collection.bulk_insert_optimized(entity_stream((0..4_000).map(kill)), options).await;
    assert_eq!(killed.load(Ordering::Relaxed), 1);
    assert!(!report.is_complete() && !report.flushed, "{report:?}");
    server.lock().expect("not poisoned").restart();
    let there = BTreeSet::from_iter(numbers(&*collection).await);
    for range in &report.written {
        assert!(range.positions.clone().all(|number| there.contains(&number)), "acknowledged: {range:?}");
    }
    let unknown: BTreeSet<u64> = report.unknown.iter().flat_map(|range| range.positions.clone()).collect();
    let written: BTreeSet<u64> = report.written.iter().flat_map(|range| range.positions.clone()).collect();
    assert!(
        there.iter().all(|number| written.contains(number) || unknown.contains(number)),
        "the report is true"
    );
    // The caller has looked: what is there of the unknown ranges stays, the rest is inserted again.
    let mut report = report;
    report.unknown.retain(|range| there.contains(&range.positions.start));
    let stream = entity_stream((0..4_000).map(entity));
    let report =
        collection.bulk_insert_optimized(stream, BulkInsertOptions::default().resuming(report)).await;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(numbers(&*collection).await, Vec::from_iter(0..4_000), "nothing is missing or there twice");
}

#[tokio::test]
async fn a_response_above_the_limit_is_an_error_and_one_of_more_than_4_mib_below_it_is_not() {
    let server = MilvusServer::small();
    let large = |number: u64| Entity::new("x".repeat(60_000), vec![number as f32; 4]);
    let roomy = store(config(&server));
    let collection = pages(&roomy).await;
    for start in [0, 50] {
        collection.insert_entities((start..start + 50).map(large).collect()).await.expect("inserted");
    }
    let found = collection.query_by_expr(everything()).await.expect("6 MB");
    assert_eq!(found.len(), 100);
    let mut config = config(&server);
    config.milvus.max_response_bytes = 1 << 20;
    let narrow = store(config);
    let collection = pages(&narrow).await;
    let error = collection.query_by_expr(everything()).await.expect_err("6 MB are above 1 MiB");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(!error.is_retryable() && error.message().contains("milvus.max_response_bytes"), "{error}");
    let few = collection.query_by_expr(everything().with_limit(3)).await.expect("a smaller one");
    assert_eq!(few.len(), 3);
}

#[tokio::test]
async fn an_insert_of_64_mb_is_rejected_before_it_is_sent_and_a_bulk_insert_takes_it() {
    let mut server = MilvusServer::small();
    let store = store(config(&server));
    let collection = pages(&store).await;
    let large = |number: u64| Entity::new("x".repeat(64_000), vec![number as f32; 4]);
    let error = collection.insert_entities((0..1_000).map(large).collect()).await.expect_err("too large");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TooLarge, Outcome::NotSent), "{error}");
    assert!(error.message().contains("bulk_insert_optimized"), "{error}");
    let stream = entity_stream((0..300).map(large));
    let report = collection.bulk_insert_optimized(stream, BulkInsertOptions::default()).await;
    assert!(report.is_complete() && report.flushed, "{report:?}");
    assert_eq!(collection.get_collection_stats().await.expect("counted").num_entities, 300);
    assert!(server.runs());
}

#[tokio::test]
async fn a_bulk_insert_takes_every_entity_that_is_valid_alone() {
    let server = MilvusServer::small();
    let store = store(config(&server));
    let names: Vec<_> = (0..60).map(|n| format!("text_{n}")).collect();
    let add_field = |config: CollectionConfig, name| config.with_field(name, FieldType::VarChar);
    let config = names.iter().fold(CollectionConfig::new("pages", 4), add_field);
    let collection = store.get_or_create_collection(&config).await.expect("created");
    // Two large ones, of 3.6 MB each, are more than the server takes at once.
    let sized = |(n, len): (usize, usize)| {
        names.iter().fold(entity(n as u64), |entity, name| entity.with_field(name, "x".repeat(len)))
    };
    let stream = entity_stream([10, 60_000, 60_000, 10, 60_000].into_iter().enumerate().map(sized));
    let report = collection.bulk_insert_optimized(stream, BulkInsertOptions::default()).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(numbers(&*collection).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn what_kills_servers_is_never_sent() {
    let mut server = MilvusServer::small();
    let store = store(config(&server));
    let collection = pages(&store).await;
    for text in ["metadata['number'] / 0 == 1", "metadata['number'] % 0 == 1", "1 / 0 == 1"] {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    }
    let mut null = entity(1);
    null.fields.insert("metadata".into(), json!(null));
    let mut nan = entity(1);
    nan.dense[0] = f32::NAN;
    let long = Entity::new("x".repeat(65_536), vec![0.0; 4]);
    for invalid in [null, nan, long] {
        let error = collection.insert_entity(invalid).await.expect_err("refused");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidInput, Outcome::NotSent), "{error}");
    }
    for text in
        ["array_length(metadata['list']) == 1", "exists metadata['number']", "not (content like 'a%')"]
    {
        let filter = Filter::parse(text).expect(text);
        let request = arshai::vectors::QueryRequest::new(filter);
        if let Err(error) = collection.query_by_expr(request).await {
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::Unsupported, Outcome::NotSent),
                "{error}"
            );
        }
    }
    assert!(server.runs());
    collection.insert_entity(entity(1)).await.expect("the server is well");
}

#[tokio::test]
async fn pending_requests_are_limited_and_closing_ends_them_on_time() {
    let server = MilvusServer::small();
    let mut config = config(&server);
    config.milvus.max_pending_requests = 2;
    let store = store(config);
    let collection = pages(&store).await;
    store.connect().await.expect("the version is known");
    server.pause();
    let searches =
        async { tokio::join!(collection.search_by_vector(search()), collection.insert_entity(entity(1))) };
    let close = async {
        while store.limits()[0].used < 2 {
            tokio::task::yield_now().await;
        }
        let error = collection.search_by_vector(search()).await.expect_err("a third request");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::NotSent), "{error}");
        let began = Instant::now();
        let report = store.close(Deadline::after(Duration::from_secs(1))).await;
        assert!(began.elapsed() < Duration::from_secs(1) + SLACK, "on time: {:?}", began.elapsed());
        assert_eq!((report.finished, report.aborted, report.lost.len()), (0, 1, 1), "{report:?}");
    };
    let ((found, inserted), ()) = tokio::join!(searches, close);
    assert_eq!(found.expect_err("aborted").kind(), ErrorKind::Closed);
    let error = inserted.expect_err("aborted");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Closed, Outcome::Unknown),
        "it may have been done"
    );
    server.resume();
}

#[tokio::test]
async fn a_dropped_creation_leaves_a_whole_collection_or_none() {
    let server = MilvusServer::small();
    let store = store(config(&server));
    let config = CollectionConfig::new("pages", 4).hybrid();
    drop(tokio::time::timeout(Duration::from_millis(1), store.get_or_create_collection(&config)).await);
    let collection = store.get_or_create_collection(&config).await.expect("completed or made");
    let entity = entity(1).with_sparse([(1, 1.0)].into());
    collection.insert_entity(entity).await.expect("it can be used");
    assert_eq!(numbers(&*collection).await, [1]);
}
