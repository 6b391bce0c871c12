//! The contract of [`VectorStore`].
//!
//! A backend author calls [`suite`] from a test, with a way to make an empty backend from a [`Setup`]:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use arshai::backends::vectors::EmbeddedStore;
//! use arshai::contract::vectors::{self, Setup};
//!
//! vectors::suite(|setup: Setup| Arc::new(EmbeddedStore::new(setup.max_bytes))).await;
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! All vectors of the suite have small whole numbers, so that every inner product is exact and ties are real.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Waker};

use serde_json::{Value, json};

use crate::ErrorKind;
use crate::vectors::{
    CollectionConfig, Entity, FieldType, Filter, Hit, HybridRequest, SearchRequest, SparseVector, VectorStore,
};

/// What a backend under test is made from. One without a budget ignores it, as its capabilities say.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Setup {
    /// The most bytes.
    pub max_bytes: u64,
}

/// Room enough for all of the suite but the test of the budget.
const ROOM: u64 = 64 << 20;
const DIM: usize = 8;

/// Runs the whole suite, in a tokio runtime of either kind. `make` must give an empty store each time.
///
/// # Panics
/// Where a store that `make` makes breaks a promise.
pub async fn suite<S: VectorStore + 'static>(make: impl Fn(Setup) -> Arc<S>) {
    let store = || -> Arc<dyn VectorStore> { make(Setup { max_bytes: ROOM }) };
    ids_are_unique_and_ascend_in_the_order_of_the_entities(&*store()).await;
    an_acknowledged_insert_is_found_at_once(&*store()).await;
    hits_are_ordered_by_score_and_then_by_id(&*store()).await;
    each_query_vector_has_its_own_hits(&*store()).await;
    a_filter_never_costs_hits(&*store()).await;
    fields_are_all_but_vectors_unless_chosen(&*store()).await;
    fields_have_the_types_of_the_collection(&*store()).await;
    one_bad_entity_and_nothing_is_inserted(&*store()).await;
    a_missing_text_is_named_as_python_names_it(&*store()).await;
    the_text_may_come_under_the_collections_own_name(&*store()).await;
    bad_requests_are_refused(&*store()).await;
    bad_collections_are_refused(&*store()).await;
    a_collection_keeps_its_schema(&*store()).await;
    collections_share_nothing(&*store()).await;
    what_is_deleted_is_gone_and_the_rest_stays(&*store()).await;
    a_query_gives_what_matches_in_the_order_of_ids(&*store()).await;
    hybrid_scores_are_weighted_and_normalised(&*store()).await;
    a_bulk_insert_tells_how_far_it_is(&*store()).await;
    a_bulk_insert_that_fails_says_what_was_written(&*store()).await;
    a_dropped_insert_is_whole_or_not_there(&*store()).await;
    inserts_and_searches_run_side_by_side(store()).await;
    a_closed_store_refuses_further_work_and_closes_twice(&*store()).await;
    if store().capabilities().bounded {
        let small: Arc<dyn VectorStore> = make(Setup { max_bytes: 1 << 20 });
        a_full_store_refuses_whole_inserts_and_loses_nothing(&*small).await;
    }
}

fn pages() -> CollectionConfig {
    CollectionConfig::new("pages", DIM)
}

/// Whole numbers from -4 to 4, the same for the same seed.
fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 9) as f32 - 4.0
    };
    (0..DIM).map(|_| next()).collect()
}

fn entity(number: u64) -> Entity {
    Entity::new(format!("page {number}"), vector(number)).with_metadata(
        json!({"number": number, "even": number.is_multiple_of(2), "source": format!("{}.md", number % 7)}),
    )
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("the suite's filters are good")
}

fn inner_product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

async fn insert(store: &dyn VectorStore, config: &CollectionConfig, entities: Vec<Entity>) -> Vec<String> {
    store.insert_entities(config, entities).await.expect("a good insert")
}

async fn search(store: &dyn VectorStore, config: &CollectionConfig, request: SearchRequest) -> Vec<Hit> {
    let mut hits = store.search_by_vector(config, request).await.expect("a good search");
    assert_eq!(hits.len(), 1, "one query vector has one list of hits");
    hits.remove(0)
}

async fn count(store: &dyn VectorStore, config: &CollectionConfig) -> u64 {
    store.get_collection_stats(config).await.expect("a good collection").num_entities
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: crate::Result<T>, promise: &str) -> String {
    let error = result.expect_err(promise);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{promise}: {error}");
    error.to_string()
}

async fn ids_are_unique_and_ascend_in_the_order_of_the_entities(store: &dyn VectorStore) {
    let config = pages();
    let mut all = insert(store, &config, (0..50).map(entity).collect()).await;
    all.push(store.insert_entity(&config, entity(50)).await.expect("a good insert"));
    assert!(all.iter().all(|id| id.len() <= 100 && id.is_ascii() && !id.is_empty()), "ids: {all:?}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 51, "ids are unique");
    assert!(all[..50].is_sorted(), "ids of one call ascend");
    let by_key = Filter::with_params("doc_id == {id}", [("id", json!(all[17]))]).expect("a good filter");
    let found = store.query_by_expr(&config, &by_key, None, None).await.expect("a good query");
    assert_eq!(found[0].fields["content"], "page 17", "ids come in the order of the entities");
    assert_eq!(insert(store, &config, Vec::new()).await, [""; 0], "no entities are no error");
}

async fn an_acknowledged_insert_is_found_at_once(store: &dyn VectorStore) {
    let config = pages();
    for number in 0..20 {
        let id = store.insert_entity(&config, entity(number)).await.expect("a good insert");
        let same = filter(&format!("metadata['number'] == {number}"));
        let hits = search(store, &config, SearchRequest::new(vector(number)).with_filter(same)).await;
        assert_eq!(ids(&hits), [id.as_str()]);
    }
    assert_eq!(count(store, &config).await, 20);
    assert_eq!(store.stats().entities, 20);
    assert_eq!(store.stats().searches, 20);
}

async fn hits_are_ordered_by_score_and_then_by_id(store: &dyn VectorStore) {
    let config = pages();
    let vectors: Vec<_> = (0..600).map(vector).collect();
    let all = insert(store, &config, (0..600).map(entity).collect()).await;
    for seed in 1_000..1_020 {
        let query = vector(seed);
        let mut expected: Vec<(f32, &str)> =
            vectors.iter().zip(&all).map(|(v, id)| (inner_product(v, &query), id.as_str())).collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let hits = search(store, &config, SearchRequest::new(query.clone()).with_limit(40)).await;
        assert_eq!(hits.len(), 40, "there are as many hits as asked for");
        for pair in hits.windows(2) {
            let in_order =
                pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].id < pair[1].id);
            assert!(in_order, "hits are ordered by score, then by id: {pair:?}");
        }
        for hit in &hits {
            let place = all.iter().position(|id| *id == hit.id).expect("a known id");
            assert_eq!(hit.score, inner_product(&vectors[place], &query), "scores are inner products");
        }
        if store.capabilities().exact {
            let found: Vec<_> = hits.iter().map(|hit| (hit.score, hit.id.as_str())).collect();
            assert_eq!(found, expected[..40], "an exact store finds the nearest");
        }
    }
    let few = search(store, &config, SearchRequest::new(vector(1))).await;
    assert_eq!(few.len(), 3, "the limit is three unless the request says otherwise");
    let most = SearchRequest::new(vector(1)).with_limit(16_384);
    assert_eq!(search(store, &config, most).await.len(), 600, "no more hits than entities");
}

async fn each_query_vector_has_its_own_hits(store: &dyn VectorStore) {
    let config = pages();
    insert(store, &config, (0..100).map(entity).collect()).await;
    let mut request = SearchRequest::new(vector(500));
    request.query_vectors = vec![vector(500), vector(501), vector(502)];
    let together = store.search_by_vector(&config, request.clone()).await.expect("a good search");
    assert_eq!(together.len(), 3);
    for (query, hits) in request.query_vectors.iter().zip(&together) {
        assert_eq!(search(store, &config, SearchRequest::new(query.clone())).await, *hits);
    }
    request.query_vectors.clear();
    assert!(store.search_by_vector(&config, request).await.expect("no vectors, no hits").is_empty());
}

async fn a_filter_never_costs_hits(store: &dyn VectorStore) {
    let config = pages();
    insert(store, &config, (0..1_000).map(entity).collect()).await;
    let rare = filter("metadata['number'] in [3, 501, 777, 998] and not (metadata['even'] == true)");
    let hits = search(store, &config, SearchRequest::new(vector(5)).with_filter(rare).with_limit(10)).await;
    let mut numbers: Vec<_> =
        hits.iter().filter_map(|hit| hit.fields["metadata"]["number"].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 501, 777], "everything that matches is found, however rare");
    let none = SearchRequest::new(vector(5)).with_filter(filter("metadata['absent'] > 1"));
    assert!(search(store, &config, none).await.is_empty(), "a missing path does not match");
}

async fn fields_are_all_but_vectors_unless_chosen(store: &dyn VectorStore) {
    let config = pages().with_field("language", FieldType::VarChar);
    let id = store.insert_entity(&config, entity(1).with_field("language", "en")).await.expect("good");
    let hit = search(store, &config, SearchRequest::new(vector(1))).await.remove(0);
    assert_eq!(hit.id, id);
    let vectors = [&config.dense_field, &config.sparse_field];
    assert!(vectors.iter().all(|field| !hit.fields.contains_key(*field)), "{:?}", hit.fields.keys());
    assert_eq!(hit.fields["content"], "page 1");
    assert_eq!(hit.fields["language"], "en");
    assert_eq!(hit.fields["metadata"], json!({"number": 1, "even": false, "source": "1.md"}));
    let chosen = SearchRequest::new(vector(1)).with_output_fields(["language"]);
    let hit = search(store, &config, chosen).await.remove(0);
    assert_eq!(Value::Object(hit.fields), json!({"language": "en"}));
    let unknown = SearchRequest::new(vector(1)).with_output_fields(["colour"]);
    let message =
        refused(store.search_by_vector(&config, unknown).await, "unknown output fields are refused");
    assert!(message.contains("colour"), "the error names the field: {message}");
}

async fn fields_have_the_types_of_the_collection(store: &dyn VectorStore) {
    let config = pages()
        .with_field("page", FieldType::Int64)
        .with_field("price", FieldType::Float)
        .with_field("draft", FieldType::Bool)
        .with_field("language", FieldType::VarChar)
        .with_field("more", FieldType::Json);
    let good = || {
        let entity = entity(1).with_field("page", 7).with_field("price", 2.5).with_field("draft", false);
        entity.with_field("language", "en").with_field("more", json!(["any", {"json": null}]))
    };
    store.insert_entity(&config, good()).await.expect("every field has its type");
    let all =
        filter("page == 7 and price > 2.4 and draft == false and language like 'e%' and more[0] == 'any'");
    assert_eq!(store.query_by_expr(&config, &all, None, None).await.expect("good").len(), 1);
    let wrong = [
        ("page", json!("7")),
        ("page", json!(7.5)),
        ("page", json!(u64::MAX)),
        ("price", json!("cheap")),
        ("draft", json!(0)),
        ("language", json!(1)),
        ("language", json!("x".repeat(65_536))),
        ("content", json!(1)),
        ("content", json!("x".repeat(65_536))),
        ("metadata", json!([1])),
        ("metadata", json!("text")),
        ("unknown", json!(1)),
    ];
    for (name, value) in wrong {
        let result = store.insert_entity(&config, good().with_field(name, value)).await;
        let message = refused(result, "a value of the wrong type is refused");
        assert!(message.contains(name), "the error names the field {name:?}: {message}");
    }
    let mut missing = good();
    missing.fields.remove("page");
    refused(store.insert_entity(&config, missing).await, "a missing field is refused");
    assert_eq!(count(store, &config).await, 1);
}

async fn one_bad_entity_and_nothing_is_inserted(store: &dyn VectorStore) {
    let config = pages();
    insert(store, &config, vec![entity(0)]).await;
    let spoilt = |at: usize, value: f32| {
        let mut vector = vector(3);
        vector[at] = value;
        Entity::new("spoilt", vector)
    };
    let bad = [
        Entity::new("short", vec![1.0; DIM - 1]),
        Entity::new("long", vec![1.0; DIM + 1]),
        Entity::new("none", Vec::new()),
        spoilt(0, f32::NAN),
        spoilt(DIM - 1, f32::INFINITY),
        spoilt(3, f32::NEG_INFINITY),
    ];
    for bad in bad {
        let mut entities: Vec<_> = (1..30).map(entity).collect();
        entities.insert(20, bad);
        let message = refused(store.insert_entities(&config, entities).await, "a bad entity is refused");
        assert!(message.contains("20"), "the error says which entity: {message}");
        assert_eq!(count(store, &config).await, 1, "nothing of the batch was inserted");
    }
}

async fn a_missing_text_is_named_as_python_names_it(store: &dyn VectorStore) {
    let mut config = pages();
    config.text_field = "body".into();
    let mut silent = entity(1);
    silent.fields.remove("content");
    let message = refused(store.insert_entity(&config, silent).await, "a missing text is refused");
    assert!(message.contains("Text field 'content' or 'body' not found in data."), "{message}");
}

async fn the_text_may_come_under_the_collections_own_name(store: &dyn VectorStore) {
    let mut config = pages();
    (config.text_field, config.metadata_field) = ("body".into(), "about".into());
    let mut own = entity(1).with_field("body", "own name").with_field("about", json!({"n": 2}));
    own.fields.remove("content");
    own.fields.remove("metadata");
    insert(store, &config, vec![entity(0), own]).await;
    let own = store.query_by_expr(&config, &filter("about['n'] == 2"), None, None).await.expect("good");
    assert_eq!(own[0].fields["body"], "own name");
    let common = store.query_by_expr(&config, &filter("about['number'] == 0"), None, None).await;
    assert_eq!(common.expect("good")[0].fields["body"], "page 0");
}

async fn bad_requests_are_refused(store: &dyn VectorStore) {
    let config = pages();
    insert(store, &config, vec![entity(0)]).await;
    for bad in [vec![1.0; DIM - 1], vec![f32::NAN; DIM], vec![f32::INFINITY; DIM]] {
        let result = store.search_by_vector(&config, SearchRequest::new(bad)).await;
        refused(result, "a bad query vector is refused");
    }
    for limit in [0, 16_385, usize::MAX] {
        let request = SearchRequest::new(vector(1)).with_limit(limit);
        refused(store.search_by_vector(&config, request).await, "a limit out of range is refused");
    }
    let unknown = filter("colour == 'red'");
    let request = SearchRequest::new(vector(1)).with_filter(unknown.clone());
    refused(store.search_by_vector(&config, request).await, "unknown fields in filters are refused");
    refused(store.delete_entity(&config, &unknown).await, "unknown fields in filters are refused");
    let result = store.query_by_expr(&config, &unknown, None, None).await;
    refused(result, "unknown fields in filters are refused");
    let request = HybridRequest::new(vector(1), SparseVector::new());
    refused(store.hybrid_search(&config, request).await, "hybrid search needs a hybrid collection");
    assert_eq!(count(store, &config).await, 1);
}

async fn bad_collections_are_refused(store: &dyn VectorStore) {
    let twice = pages().with_field("content", FieldType::VarChar);
    for bad in [CollectionConfig::new("", DIM), CollectionConfig::new("zero", 0), twice] {
        refused(store.get_or_create_collection(&bad).await, "a bad collection is refused");
        refused(store.insert_entities(&bad, Vec::new()).await, "a bad collection is refused");
    }
    assert_eq!(store.stats().collections, 0);
}

async fn a_collection_keeps_its_schema(store: &dyn VectorStore) {
    let config = pages();
    store.get_or_create_collection(&config).await.expect("created");
    store.get_or_create_collection(&config).await.expect("there already");
    let others = [
        CollectionConfig::new("pages", DIM + 1),
        pages().hybrid(),
        pages().with_field("n", FieldType::Int64),
    ];
    for other in others {
        refused(store.get_or_create_collection(&other).await, "another schema is refused");
        refused(store.get_collection_stats(&other).await, "another schema is refused");
        refused(store.delete_entity(&other, &filter("doc_id != ''")).await, "another schema is refused");
    }
}

async fn collections_share_nothing(store: &dyn VectorStore) {
    let (ours, theirs) = (pages(), CollectionConfig::new("letters", DIM));
    insert(store, &ours, (0..5).map(entity).collect()).await;
    insert(store, &theirs, (0..3).map(entity).collect()).await;
    let everything = filter("doc_id != ''");
    assert_eq!(store.delete_entity(&theirs, &everything).await.expect("deleted"), 3);
    assert_eq!((count(store, &ours).await, count(store, &theirs).await), (5, 0));
    assert_eq!(store.stats().collections, 2);
}

async fn what_is_deleted_is_gone_and_the_rest_stays(store: &dyn VectorStore) {
    let config = pages();
    let all = insert(store, &config, (0..300).map(entity).collect()).await;
    let even = filter("metadata['even'] == true");
    assert_eq!(store.delete_entity(&config, &even).await.expect("deleted"), 150);
    assert_eq!(store.delete_entity(&config, &even).await.expect("nothing left to delete"), 0);
    let left: Vec<_> = all.iter().skip(1).step_by(2).map(String::as_str).collect();
    let found = store.query_by_expr(&config, &filter("doc_id != ''"), None, None).await.expect("good");
    assert_eq!(ids(&found), left, "the others stay, in their order");
    let hits = search(store, &config, SearchRequest::new(vector(9)).with_limit(300)).await;
    assert_eq!(hits.len(), 150);
    for hit in hits {
        let number = hit.fields["metadata"]["number"].as_u64().expect("a number");
        assert_eq!(hit.score, inner_product(&vector(number), &vector(9)), "vectors stay with their rows");
    }
    let again = insert(store, &config, vec![entity(0)]).await;
    assert!(!all.contains(&again[0]), "an id is never given twice");
}

async fn a_query_gives_what_matches_in_the_order_of_ids(store: &dyn VectorStore) {
    let config = pages();
    let all = insert(store, &config, (0..100).map(entity).collect()).await;
    let some = filter("metadata['number'] >= 90 || content == 'page 3'");
    let found = store.query_by_expr(&config, &some, None, None).await.expect("good");
    let expected: Vec<_> = [3].into_iter().chain(90..100).map(|place: usize| all[place].as_str()).collect();
    assert_eq!(ids(&found), expected);
    let content = ["content".to_owned()];
    let two = store.query_by_expr(&config, &some, Some(&content), Some(2)).await.expect("good");
    assert_eq!(ids(&two), expected[..2]);
    assert_eq!(Value::Object(two[0].fields.clone()), json!({"content": "page 3"}));
}

async fn hybrid_scores_are_weighted_and_normalised(store: &dyn VectorStore) {
    let config = pages().hybrid();
    let unit = |at: usize, length: f32| {
        let mut vector = vec![0.0; DIM];
        vector[at] = length;
        vector
    };
    let sparse = |pairs: &[(u32, f32)]| pairs.iter().copied().collect::<SparseVector>();
    let entities = vec![
        Entity::new("both", unit(0, 2.0)).with_sparse(sparse(&[(7, 3.0), (1_000_000, 1.0)])),
        Entity::new("dense", unit(0, 3.0)).with_sparse(sparse(&[(8, 3.0)])),
        Entity::new("sparse", unit(1, 3.0)).with_sparse(sparse(&[(7, 5.0)])),
        Entity::new("neither", unit(0, -3.0)).with_sparse(sparse(&[])),
    ];
    insert(store, &config, entities).await;
    let request = HybridRequest::new(unit(0, 1.0), sparse(&[(7, 1.0), (9, 1.0)])).with_limit(2);
    let hits = store.hybrid_search(&config, request.clone()).await.expect("good");
    let normal = |score: f32| 0.5 + score.atan() / std::f32::consts::PI;
    let texts: Vec<_> = hits.iter().map(|hit| hit.fields["content"].clone()).collect();
    assert_eq!(texts, ["both", "sparse"], "the best of both searches together");
    let expected = [0.5 * normal(2.0) + 0.5 * normal(3.0), 0.5 * normal(5.0)];
    for (hit, expected) in hits.iter().zip(expected) {
        assert!((hit.score - expected).abs() < 1e-5, "{} is not {expected}", hit.score);
    }
    let dense_only = HybridRequest { weights: (1.0, 0.0), ..request.with_limit(1) };
    let hits = store.hybrid_search(&config, dense_only).await.expect("good");
    assert_eq!(hits[0].fields["content"], "dense", "weights count");
    let filtered =
        HybridRequest::new(unit(0, 1.0), sparse(&[(7, 1.0)])).with_filter(filter("content == 'neither'"));
    let hits = store.hybrid_search(&config, filtered).await.expect("good");
    assert_eq!(hits.len(), 1, "the filter is applied before the search");
    refused(store.insert_entity(&config, entity(1)).await, "a hybrid collection needs sparse vectors");
    let nan = entity(1).with_sparse(sparse(&[(1, f32::NAN)]));
    refused(store.insert_entity(&config, nan).await, "a weight that is not finite is refused");
}

async fn a_bulk_insert_tells_how_far_it_is(store: &dyn VectorStore) {
    let config = pages();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let progress = move |inserted: usize| ears.lock().expect("nothing panics under it").push(inserted);
    let entities = (0..2_500).map(entity).collect();
    let report = store.bulk_insert_optimized(&config, entities, Some(&progress)).await.expect("good");
    assert!(report.error.is_none() && report.not_written == 0, "{report:?}");
    assert_eq!(report.ids.len(), 2_500);
    let heard = heard.lock().expect("nothing panics under it").clone();
    assert!(heard.is_sorted() && heard.last() == Some(&2_500), "progress rises to all: {heard:?}");
    assert_eq!(count(store, &config).await, 2_500);
    let found = store.query_by_expr(&config, &filter("metadata['number'] == 2222"), None, None).await;
    assert_eq!(found.expect("good")[0].id, report.ids[2_222], "ids come in the order of the entities");
}

async fn a_bulk_insert_that_fails_says_what_was_written(store: &dyn VectorStore) {
    let config = pages();
    let mut entities: Vec<_> = (0..3_000).map(entity).collect();
    entities[2_900] = Entity::new("short", vec![1.0]);
    let report = store.bulk_insert_optimized(&config, entities, None).await.expect("a report");
    assert_eq!(report.error.as_ref().map(crate::Error::kind), Some(ErrorKind::InvalidInput));
    assert_eq!(report.ids.len() + report.not_written, 3_000);
    assert_eq!(count(store, &config).await, report.ids.len() as u64, "the report tells the truth");
    let rest = (report.ids.len() as u64..3_000).map(entity).collect();
    let rest = store.bulk_insert_optimized(&config, rest, None).await.expect("a report");
    assert!(rest.error.is_none(), "{rest:?}");
    assert_eq!(count(store, &config).await, 3_000, "the rest can be inserted later");
}

async fn a_dropped_insert_is_whole_or_not_there(store: &dyn VectorStore) {
    let config = pages();
    store.get_or_create_collection(&config).await.expect("created");
    for polls in 0..4 {
        let before = count(store, &config).await;
        {
            let mut insert = pin!(store.insert_entities(&config, (0..100).map(entity).collect()));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if insert.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        let inserted = count(store, &config).await - before;
        assert!(inserted == 0 || inserted == 100, "{inserted} of 100 entities were inserted");
    }
}

async fn inserts_and_searches_run_side_by_side(store: Arc<dyn VectorStore>) {
    let config = Arc::new(pages());
    let mut work = tokio::task::JoinSet::new();
    for writer in 0..8_u64 {
        let (store, config) = (Arc::clone(&store), Arc::clone(&config));
        work.spawn(async move {
            for batch in 0..10 {
                let start = writer * 1_000 + batch * 20;
                let given = insert(&*store, &config, (start..start + 20).map(entity).collect()).await;
                assert!(given.is_sorted() && given.len() == 20);
                let hits = search(&*store, &config, SearchRequest::new(vector(start)).with_limit(20)).await;
                assert_eq!(hits.len(), 20);
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.expect("nobody breaks a promise");
    }
    assert_eq!(count(&*store, &config).await, 1_600);
    let all = store.query_by_expr(&config, &filter("doc_id != ''"), None, None).await.expect("good");
    assert!(ids(&all).is_sorted(), "records are in the order of their ids, whoever inserted them");
}

async fn a_closed_store_refuses_further_work_and_closes_twice(store: &dyn VectorStore) {
    let soon = || crate::Deadline::after(std::time::Duration::from_secs(5));
    store.connect().await.expect("it connects");
    store.connect().await.expect("it is connected");
    assert!(store.health(soon()).await.is_usable());
    assert!(store.close(soon()).await.is_clean());
    assert!(store.close(soon()).await.is_clean());
}

async fn a_full_store_refuses_whole_inserts_and_loses_nothing(store: &dyn VectorStore) {
    let config = pages();
    let within = || {
        let stats = store.stats();
        let over = store.limits().iter().any(|bound| bound.limit.is_some_and(|limit| bound.peak > limit));
        assert!(!over, "no bound is ever exceeded: {stats:?}");
        stats
    };
    let mut written = 0;
    let error = loop {
        match store.insert_entities(&config, (0..50).map(entity).collect()).await {
            Ok(ids) => written += ids.len() as u64,
            Err(error) => break error,
        }
        within();
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error}");
    assert!(written > 0, "something fits into a MiB");
    assert_eq!(count(store, &config).await, written, "a refused insert leaves everything as it was");
    let report = store.bulk_insert_optimized(&config, (0..5_000).map(entity).collect(), None).await;
    let report = report.expect("a report");
    assert_eq!(report.error.as_ref().map(crate::Error::kind), Some(ErrorKind::Capacity));
    assert_eq!(report.ids.len() + report.not_written, 5_000);
    assert!(search(store, &config, SearchRequest::new(vector(1))).await.len() == 3, "it still answers");
    let full = within().bytes;
    store.delete_entity(&config, &filter("doc_id != ''")).await.expect("deleted");
    assert!(within().bytes < full / 10, "deletions make room");
    insert(store, &config, (0..50).map(entity).collect()).await;
    within();
}
