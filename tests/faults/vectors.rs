//! Hostile filters and numbers, dropped futures and runtimes, closed stores.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arshai::backends::vectors::EmbeddedStore;
use arshai::contract::doubles::FailingVectors;
use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Entity, Filter, Metric, QueryRequest, SearchRequest,
    VectorStore, entity_stream,
};
use arshai::{Arshai, Component, Config, Deadline, ErrorKind};
use serde_json::{Map, Value, json};

fn fields() -> Map<String, Value> {
    json!({"n": 1, "text": "a".repeat(60_000)}).as_object().expect("an object").clone()
}

#[test]
fn a_hostile_expression_is_an_error_and_overflows_no_stack() {
    let nested = |open: &str, close: &str| format!("{}n == 1{}", open.repeat(20_000), close.repeat(20_000));
    let hostile = [
        nested("(", ")"),
        "(".repeat(100_000),
        "not ".repeat(10_000) + "n == 1",
        "!".repeat(60_000) + "n == 1",
        "-".repeat(60_000) + "1 == n",
        "+".repeat(60_000) + "1 == n",
        format!("n == 1{}", " + 1".repeat(10_000)),
        format!("n == 1{}", " * 1".repeat(10_000)),
        "n == 1 and ".repeat(100_000) + "n == 1",
        "x".repeat(1 << 20),
        "\0".repeat(100),
        "n".to_owned() + &"[0]".repeat(30_000),
        "'".repeat(60_001),
        "{".repeat(1_000),
        "9".repeat(400) + " == n",
        "1e999 == n".to_owned(),
    ];
    for text in hostile {
        let start: String = text.chars().take(20).collect();
        match Filter::parse(&text) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{start}"),
            // What is accepted is evaluated, written and dropped without harm.
            Ok(filter) => {
                let again = Filter::parse(&filter.to_string()).expect(&start);
                assert_eq!(again.matches(&fields()), filter.matches(&fields()), "{start}");
            }
        }
    }
}

#[test]
fn a_long_flat_expression_within_the_bounds_is_fine() {
    let text = "n == 0 or ".repeat(6_000) + "n == 1";
    assert!(Filter::parse(&text).expect("long but flat").matches(&fields()));
}

#[test]
fn the_smallest_whole_number_is_a_value_like_any_other() {
    let fields = json!({"n": i64::MIN}).as_object().expect("an object").clone();
    let bound = |text| Filter::with_params(text, [("p", json!(i64::MIN))]).expect(text);
    assert!(bound("n == {p}").matches(&fields));
    assert!(!bound("n == -{p}").matches(&fields));
    assert!(bound("n == -9223372036854775808 and n < {p} + 1").matches(&fields));
    let written = Filter::parse(&bound("n == {p}").to_string()).expect("it can be written and read back");
    assert!(written.matches(&fields));
}

#[test]
fn a_bound_value_the_language_cannot_write_is_rejected() {
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    for (text, value) in [
        ("n == {p}", json!(null)),
        ("n == {p}", json!([null])),
        ("n == {p}", json!({"a": 1})),
        ("n == {p}", json!(u64::MAX)),
        ("n == {p}", nested),
        ("n in {p}", json!(1)),
        ("n in {p}", json!([[1]])),
        ("n + {p} == 1", json!(null)),
        ("n / {p} == 1", json!(0)),
        ("text like {p}", json!(1)),
        ("text like {p}", json!("%a".repeat(1_000))),
    ] {
        let error = Filter::with_params(text, [("p", value)]).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let list = Filter::with_params("n in {p}", [("p", json!([3, "x", 1]))]).expect("a list");
    assert!(list.matches(&fields()) && list == Filter::parse(&list.to_string()).expect("it can be parsed"));
}

#[test]
fn a_filter_that_calculates_never_panics() {
    let fields = json!({"n": i64::MAX, "z": 0, "m": i64::MIN}).as_object().expect("an object").clone();
    for text in ["n + 1 > 0", "n * n > 0", "n / z > 0", "n % z == 0", "m % -1 == 0", "-m > 0"] {
        assert!(!Filter::parse(text).expect(text).matches(&fields), "{text} has no result");
    }
    assert!(Filter::parse("m / -1 > 0").expect("good").matches(&fields), "a division gives a fraction");
}

#[test]
fn errors_of_filters_never_repeat_the_texts_in_them() {
    for text in
        ["content == 'secret' 'secret'", "'secret' ==", "content like 1 'secret'", "content == 'secret"]
    {
        let error = Filter::parse(text).expect_err(text);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

/// A store with 10 000 entities of 512 dimensions.
async fn large() -> (Arc<EmbeddedStore>, Arc<dyn Collection>) {
    let store = Arc::new(EmbeddedStore::new(256 << 20));
    let collection =
        store.get_or_create_collection(&CollectionConfig::new("large", 512)).await.expect("created");
    let entity = |number: usize| Entity::new("x".repeat(50), vec![number as f32; 512]);
    collection.insert_entities((0..10_000).map(entity).collect()).await.expect("it fits");
    (store, collection)
}

/// A search that takes about a minute if nothing stops it.
fn endless_search() -> SearchRequest {
    SearchRequest::new(vec![vec![1.0; 512]; 1_000])
}

/// Polls a future once, so that its work begins.
fn begin(future: Pin<&mut impl Future>) {
    let first = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "large work runs on another thread");
}

fn searching(store: &EmbeddedStore) -> u64 {
    store.limits().into_iter().find(|usage| usage.key == "vectors.search_threads").expect("reported").used
}

#[tokio::test]
async fn vectors_whose_products_overflow_are_still_ranked() {
    let store = EmbeddedStore::new(1 << 20);
    let huge = f32::MAX;
    for (metric, expected) in [
        (Metric::InnerProduct, ["best", "half", "cancels", "worst"]),
        (Metric::L2, ["best", "half", "cancels", "worst"]),
    ] {
        let config = CollectionConfig::new(format!("huge_{metric:?}"), 2).with_metric(metric);
        let collection = store.get_or_create_collection(&config).await.expect("created");
        for (text, vector) in [
            ("half", vec![0.25, 0.25]),
            ("cancels", vec![huge, -huge]),
            ("best", vec![huge, huge]),
            ("worst", vec![-huge, -huge]),
        ] {
            collection.insert_entity(Entity::new(text, vector)).await.expect("finite");
        }
        let request = SearchRequest::new(vec![huge, huge]).with_limit(4);
        let hits = collection.search_by_vector(request).await.expect("finite").remove(0);
        let ranked: Vec<_> =
            hits.iter().map(|hit| hit.fields["content"].as_str().expect("a string")).collect();
        assert_eq!(ranked[0], expected[0], "{metric:?}");
        if metric == Metric::InnerProduct {
            assert_eq!(ranked, expected);
        }
        assert!(hits.iter().all(|hit| hit.score.is_finite()), "{hits:?}");
    }
}

#[tokio::test]
async fn a_search_stops_when_its_future_is_dropped() {
    let (store, collection) = large().await;
    for _ in 0..20 {
        let mut search = Box::pin(collection.search_by_vector(endless_search()));
        begin(search.as_mut());
    }
    while searching(&store) > 0 {
        tokio::task::yield_now().await;
    }
    let hits = collection.search_by_vector(SearchRequest::new(vec![1.0; 512])).await.expect("it answers");
    assert_eq!(hits[0][0].score, 9_999.0 * 512.0);
}

#[tokio::test]
async fn writes_do_not_wait_for_searches() {
    let (store, collection) = large().await;
    let mut searches = Vec::new();
    for _ in 0..8 {
        let mut search = Box::pin(collection.search_by_vector(endless_search()));
        begin(search.as_mut());
        searches.push(search);
    }
    collection.insert_entity(Entity::new("small", vec![1.0; 512])).await.expect("inserted");
    let many = (0..2_000).map(|_| Entity::new("large", vec![1.0; 512])).collect();
    collection.insert_entities(many).await.expect("inserted");
    let filter = Filter::parse("content like 'lar%'").expect("valid");
    assert_eq!(collection.delete_entity(&filter).await.expect("deleted"), 2_000);
    assert_eq!(collection.get_collection_stats().await.expect("statistics").num_entities, 10_001);
    assert!(searching(&store) > 0, "the searches are still running");
}

#[tokio::test]
async fn closing_aborts_searches_and_frees_everything() {
    let (store, collection) = large().await;
    let search = tokio::spawn({
        let collection = Arc::clone(&collection);
        async move { collection.search_by_vector(endless_search()).await }
    });
    while searching(&store) == 0 {
        tokio::task::yield_now().await;
    }
    let report = store.close(Deadline::after(Duration::from_secs(10))).await;
    assert_eq!((report.aborted, report.lost), (1, Vec::new()));
    let error = search.await.expect("no panic").expect_err("the search was aborted");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let stats = store.stats();
    assert_eq!((stats.collections, stats.entities, stats.bytes), (0, 0, 0));
}

#[tokio::test]
async fn dropping_a_collection_aborts_its_searches() {
    let (store, collection) = large().await;
    let search = tokio::spawn(async move { collection.search_by_vector(endless_search()).await });
    while searching(&store) == 0 {
        tokio::task::yield_now().await;
    }
    store.drop_collection("large").await.expect("it exists");
    let error = search.await.expect("no panic").expect_err("the search was aborted");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("\"large\" was dropped"), "{error}");
    assert_eq!(store.stats().bytes, 0);
}

#[tokio::test]
async fn a_dropped_large_insert_is_complete_or_absent() {
    let (_store, collection) = large().await;
    let many = || (0..2_000).map(|_| Entity::new("more", vec![1.0; 512])).collect::<Vec<_>>();
    begin(Box::pin(collection.insert_entities(many())).as_mut());
    // The next write waits for the one that is still running.
    collection.insert_entity(Entity::new("small", vec![1.0; 512])).await.expect("inserted");
    let entities = collection.get_collection_stats().await.expect("statistics").num_entities;
    assert_eq!(entities, 12_001, "an insert that has begun completes");
}

#[tokio::test]
async fn large_queries_and_deletes_leave_the_runtime_free() {
    let (_store, collection) = large().await;
    // A thousand comparisons for each entity: the work must not be done before its first poll returns.
    let strings: Vec<_> = (0..1_000).map(|number| format!("'{number}'")).collect();
    let filter = || Filter::parse(&format!("content not in [{}]", strings.join(", "))).expect("valid");
    begin(Box::pin(collection.query_by_expr(QueryRequest::new(filter()))).as_mut());
    begin(Box::pin(collection.delete_entity(&filter())).as_mut());
    // The next write waits for the delete, which completes although its future was dropped.
    collection.insert_entity(Entity::new("small", vec![1.0; 512])).await.expect("inserted");
    assert_eq!(collection.get_collection_stats().await.expect("statistics").num_entities, 1);
}

#[tokio::test]
async fn a_bulk_insert_of_small_batches_leaves_the_runtime_free() {
    let store = EmbeddedStore::new(64 << 20);
    let collection = store.get_or_create_collection(&CollectionConfig::new("c", 2)).await.expect("created");
    let entities = entity_stream((0..5_000).map(|_| Entity::new("text", vec![1.0, 0.0])));
    let options = BulkInsertOptions::default().with_batch_size(10);
    let mut insert = collection.bulk_insert_optimized(entities, options);
    let (mut polls, mut context) = (0, Context::from_waker(Waker::noop()));
    let report = loop {
        polls += 1;
        if let Poll::Ready(report) = insert.as_mut().poll(&mut context) {
            break report;
        }
        tokio::task::yield_now().await;
    };
    assert!(report.is_complete());
    assert!(polls > 20, "it yields between batches");
}

#[tokio::test]
async fn the_limit_can_be_lowered_and_raised_while_running() {
    let store = EmbeddedStore::new(1 << 20);
    let collection = store.get_or_create_collection(&CollectionConfig::new("c", 2)).await.expect("created");
    store.set_limit("vectors.max_memory_mb", 1).expect("known");
    let entity = || Entity::new("text", vec![1.0, 0.0]);
    let error = collection.insert_entity(entity()).await.expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Capacity);
    store.set_limit("vectors.max_memory_mb", 1 << 20).expect("known");
    collection.insert_entity(entity()).await.expect("inserted");
    let error = store.set_limit("vectors.unknown", 1).expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_runtime_that_ends_during_a_search_loses_nothing() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let first = runtime();
    let (store, collection) = first.block_on(large());
    let searching = Arc::clone(&collection);
    first.spawn(async move { searching.search_by_vector(endless_search()).await });
    first.block_on(tokio::task::yield_now());
    drop(first);
    let stats = runtime().block_on(collection.get_collection_stats()).expect("still there");
    assert_eq!(stats.num_entities, 10_000);
    assert_eq!(store.stats().entities, 10_000);
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_reported_and_closed() {
    let store = Arc::new(FailingVectors::new(ErrorKind::Unavailable));
    let arshai = Arshai::builder(Config::default()).vectors(store).build().expect("built");
    let health = arshai.health(Deadline::after(Duration::from_secs(5))).await;
    assert!(!health.is_usable());
    let report = arshai.shutdown(Deadline::after(Duration::from_secs(5))).await;
    assert!(report.is_clean());
}
