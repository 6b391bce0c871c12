//! The embedded store beside async tasks: no call keeps the thread that polls it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arshai::backends::vectors::EmbeddedStore;
use arshai::vectors::{
    Collection, CollectionConfig, Entity, Filter, HybridSearchRequest, QueryRequest, SearchRequest,
    SparseVector, VectorStore,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const DIM: usize = 128;
const ROWS: u64 = 20_000;
/// What one poll may take.
const LONGEST: Duration = Duration::from_millis(5);

/// The processor time of this thread, to which other threads and processes add nothing.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A future whose polls are timed.
struct Timed<F> {
    name: &'static str,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = thread_time();
        let result = self.future.as_mut().poll(cx);
        let took = thread_time() - before;
        assert!(took <= LONGEST, "{}: a poll took {took:?}", self.name);
        result
    }
}

fn timed<F: Future>(name: &'static str, future: F) -> Timed<F> {
    Timed { name, future: Box::pin(future) }
}

fn vector(seed: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..DIM).map(|_| random.f32() - 0.5).collect()
}

fn entity(number: u64) -> Entity {
    Entity::new(format!("page {number}"), vector(number))
        .with_metadata(json!({"number": number, "tags": ["a", "b"]}))
        .with_sparse((0..20).map(|i| ((number as u32 * 31 + i * 7) % 5_000, 1.0)).collect())
}

async fn large(store: &EmbeddedStore) -> Arc<dyn Collection> {
    let config = CollectionConfig::new("large", DIM).hybrid();
    let collection = store.get_or_create_collection(&config).await.expect("created");
    let entities: Vec<_> = (0..ROWS).map(entity).collect();
    timed("insert many", collection.insert_entities(entities)).await.expect("inserted");
    collection
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("valid")
}

/// Every operation, while a search of sixty query vectors runs.
async fn every_operation(store: &EmbeddedStore) {
    let collection = large(store).await;
    let sixty: Vec<_> = (0..60).map(vector).collect();
    let mut running = Box::pin(collection.search_by_vector(SearchRequest::new(sixty).with_limit(100)));
    let first = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "it runs on other threads");

    timed("insert_entity", collection.insert_entity(entity(1))).await.expect("inserted");
    let search = SearchRequest::new(vector(1)).with_limit(100);
    timed("search", collection.search_by_vector(search)).await.expect("found");
    let sparse = SparseVector::from([(1, 1.0), (8, 1.0)]);
    let search = SearchRequest::new(vec![sparse.clone(); 50]);
    timed("sparse search", collection.search_by_vector(search)).await.expect("found");
    let hybrid = HybridSearchRequest::new(vector(1), sparse);
    timed("hybrid search", collection.hybrid_search(hybrid)).await.expect("found");
    let query = QueryRequest::new(filter("metadata['number'] > 10"));
    let hits = timed("query", collection.query_by_expr(query)).await.expect("found");
    assert_eq!(hits.len(), 16_384);
    let few = filter("metadata['number'] in [3, 5]");
    assert_eq!(timed("delete few", collection.delete_entity(&few)).await.expect("deleted"), 2);
    timed("statistics", collection.get_collection_stats()).await.expect("known");
    timed("flush", collection.flush()).await.expect("flushed");
    let config = CollectionConfig::new("other", DIM);
    timed("create", store.get_or_create_collection(&config)).await.expect("created");
    timed("list", store.list_collections()).await.expect("listed");
    drop(running);
    let most = filter("metadata['number'] < 15000");
    assert!(timed("delete many", collection.delete_entity(&most)).await.expect("deleted") > 14_990);
    timed("drop", store.drop_collection("large")).await.expect("dropped");
}

#[tokio::test]
async fn no_operation_blocks_the_thread_that_polls_it() {
    every_operation(&EmbeddedStore::new(256 << 20)).await;
}

#[tokio::test]
async fn no_operation_of_a_durable_store_blocks_the_thread_that_polls_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::new(256 << 20).with_path(folder.path(), true);
    every_operation(&store).await;
    large(&store).await;
    drop(store);
    let store = EmbeddedStore::new(256 << 20).with_path(folder.path(), true);
    timed("open", store.connect()).await.expect("opened");
    assert_eq!(store.stats().entities, ROWS);
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_rows_on_another_thread() {
    let store = EmbeddedStore::new(256 << 20);
    let collection = large(&store).await;
    let before = thread_time();
    drop(collection);
    drop(store);
    let took = thread_time() - before;
    assert!(took <= LONGEST, "{took:?}");
}

#[tokio::test]
async fn work_that_is_small_by_one_measure_and_large_by_another_blocks_no_thread() {
    let store = EmbeddedStore::new(64 << 20);
    let config = CollectionConfig::new("narrow", 1).hybrid();
    let collection = store.get_or_create_collection(&config).await.expect("created");
    let weights = |n: u32| -> SparseVector { (0..500).map(|i| (i * 3 + n % 3, 1.0)).collect() };
    let entity = |n: u32| {
        Entity::new(format!("text {n}"), vec![n as f32])
            .with_sparse(weights(n))
            .with_metadata(json!({"list": (0..100).collect::<Vec<_>>()}))
    };
    collection.insert_entities((0..60).map(entity).collect()).await.expect("inserted");
    // Few rows and one dimension, but a thousand queries and all rows as hits of each.
    let search = SearchRequest::new(vec![vec![1.0]; 1_000]).with_limit(100);
    timed("many hits", collection.search_by_vector(search)).await.expect("found");
    let search = SearchRequest::new((0..1_000).map(weights).collect::<Vec<_>>()).with_limit(1);
    timed("long sparse vectors", collection.search_by_vector(search)).await.expect("found");
    let conditions = |n: usize| vec!["metadata['list'][99] == 7"; n].join(" or ");
    let nested = (0..40).map(|_| format!("({})", conditions(40))).collect::<Vec<_>>().join(" or ");
    let query = QueryRequest::new(filter(&nested));
    timed("nested conditions", collection.query_by_expr(query)).await.expect("found");
    let lists =
        vec!["json_contains_all(metadata['list'], [99, 98, 97, 96, 95, 94, 93, 92])"; 60].join(" and ");
    let query = QueryRequest::new(filter(&lists));
    timed("lists", collection.query_by_expr(query)).await.expect("found");
}
