//! Hostile filters, hostile numbers, futures and runtimes that go away.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use arshai::backends::vectors::EmbeddedStore;
use arshai::contract::doubles::FailingVectors;
use arshai::vectors::{CollectionConfig, Entity, Filter, SearchRequest, VectorStore};
use arshai::{Arshai, Config, Deadline, ErrorKind};
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
fn a_bound_value_the_language_cannot_write_is_refused() {
    for (text, value) in [
        ("n == {p}", json!([1])),
        ("n == {p}", json!({"a": 1})),
        ("n == {p}", json!(u64::MAX)),
        ("n in {p}", json!(1)),
        ("n in {p}", json!([[1]])),
        ("text like {p}", json!(1)),
        ("text like {p}", json!("%a".repeat(1_000))),
    ] {
        let error = Filter::with_params(text, [("p", value)]).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let list = Filter::with_params("n in {p}", [("p", json!([3, "x", 1]))]).expect("a list");
    assert!(
        list.matches(&fields()) && list == Filter::parse(&list.to_string()).expect("it can be read back")
    );
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

#[tokio::test]
async fn vectors_whose_products_overflow_are_still_ranked() {
    let (store, config) = (EmbeddedStore::new(1 << 20), CollectionConfig::new("huge", 2));
    let huge = f32::MAX;
    for (text, vector) in [
        ("cancels", vec![huge, -huge]),
        ("half", vec![0.25, 0.25]),
        ("best", vec![huge, huge]),
        ("worst", vec![-huge, -huge]),
    ] {
        store.insert_entity(&config, Entity::new(text, vector)).await.expect("finite");
    }
    let request = SearchRequest::new(vec![huge, huge]).with_limit(4);
    let hits = store.search_by_vector(&config, request).await.expect("finite").remove(0);
    let ranked: Vec<_> = hits.iter().map(|hit| hit.fields["content"].as_str().expect("a text")).collect();
    assert_eq!(ranked, ["best", "half", "cancels", "worst"]);
    assert!(hits.iter().all(|hit| hit.score.is_finite()), "{hits:?}");
}

#[tokio::test]
async fn creating_collections_spends_the_budget_too() {
    let store = EmbeddedStore::new(100_000);
    let mut refused = None;
    for number in 0..10_000 {
        let config = CollectionConfig::new(format!("collection_{number}"), 8);
        if let Err(error) = store.get_or_create_collection(&config).await {
            refused = Some((number, error.kind()));
            break;
        }
    }
    let (created, kind) = refused.expect("ten thousand collections do not fit");
    assert_eq!(kind, ErrorKind::Capacity);
    let stats = store.stats();
    assert_eq!(stats.collections, created);
    assert!(stats.limits[0].peak <= 100_000, "{stats:?}");
}

fn large() -> (Arc<EmbeddedStore>, CollectionConfig, Vec<Entity>) {
    let config = CollectionConfig::new("large", 512);
    let entity = |number: usize| Entity::new("x", vec![number as f32; 512]);
    (Arc::new(EmbeddedStore::new(256 << 20)), config, (0..10_000).map(entity).collect())
}

#[tokio::test]
async fn a_large_search_leaves_the_runtime_free_and_may_be_dropped() {
    let (store, config, entities) = large();
    store.insert_entities(&config, entities).await.expect("it fits");
    for _ in 0..20 {
        let search = store.search_by_vector(&config, SearchRequest::new(vec![1.0; 512]));
        let mut search = pin!(search);
        let first = search.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending(), "a large search runs on another thread");
    }
    let hits = store.search_by_vector(&config, SearchRequest::new(vec![1.0; 512])).await.expect("it answers");
    assert_eq!(hits[0][0].score, 9_999.0 * 512.0);
    let threads = store.stats().limits.into_iter().find(|bound| bound.unit == "threads").expect("reported");
    assert!(threads.limit.is_some_and(|limit| threads.peak <= limit), "{threads:?}");
}

#[test]
fn a_runtime_that_ends_during_a_search_loses_nothing() {
    let (store, config, entities) = large();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let first = runtime();
    first.block_on(store.insert_entities(&config, entities)).expect("it fits");
    let (searching, wanted) = (Arc::clone(&store), config.clone());
    first.spawn(async move { searching.search_by_vector(&wanted, SearchRequest::new(vec![1.0; 512])).await });
    first.block_on(tokio::task::yield_now());
    drop(first);
    let stats = runtime().block_on(store.get_collection_stats(&config)).expect("still there");
    assert_eq!(stats.num_entities, 10_000);
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_reported_and_closed() {
    let store = Arc::new(FailingVectors::new(ErrorKind::Unavailable));
    let arshai = Arshai::builder(Config::default()).vectors(store).build().expect("built");
    let health = arshai.health(Deadline::after(Duration::from_secs(5))).await;
    assert!(health.vectors.is_some_and(|vectors| !vectors.is_usable()));
    let report = arshai.shutdown(Deadline::after(Duration::from_secs(5))).await;
    assert!(report.vectors_error.is_some_and(|error| error.contains("vectors.failing")));
}
