//! Vector stores of callers outside an async runtime.

use std::sync::Arc;
use std::time::Duration;

use arshai::vectors::{
    BlockingCollection, BlockingVectorStore, BulkInsertOptions, CollectionConfig, Entity, Filter,
    QueryRequest, SearchRequest,
};
use arshai::{Arshai, Config, Deadline, ErrorKind};

fn store() -> BlockingVectorStore {
    let runtime = Arshai::builder(Config::default()).build().expect("it builds");
    BlockingVectorStore::new(Arc::clone(runtime.vectors().expect("embedded"))).expect("a thread")
}

fn entities(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Entity> {
    numbers.map(|number| Entity::new(number.to_string(), vec![1.0, number as f32]))
}

fn count(collection: &BlockingCollection) -> u64 {
    collection.get_collection_stats().expect("counted").num_entities
}

#[test]
fn threads_use_one_store_at_once() {
    let store = store();
    store.connect().expect("connected");
    let documents = store.get_or_create_collection(&CollectionConfig::new("documents", 2)).expect("made");
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let documents = documents.clone();
            scope.spawn(move || {
                let own = caller * 100..caller * 100 + 50;
                let options = BulkInsertOptions::default().with_batch_size(7);
                let report =
                    documents.bulk_insert_optimized(entities(own), options).expect("outside a runtime");
                assert!(report.is_complete(), "{report:?}");
                let found = documents.search_by_vector(SearchRequest::new(vec![0.0, 1.0])).expect("searched");
                assert_eq!(found[0].len(), 3);
            });
        }
    });
    assert_eq!(count(&documents), 400);
    let filter = Filter::parse(r#"content like "7%""#).expect("a filter");
    let found = documents.query_by_expr(QueryRequest::new(filter.clone())).expect("queried").len() as u64;
    assert_eq!(documents.delete_entity(&filter).expect("deleted"), found);
    assert_eq!(count(&documents), 400 - found);

    assert_eq!(store.list_collections().expect("listed"), ["documents"]);
    store.drop_collection("documents").expect("dropped");
    assert_eq!(store.get_collection("documents").expect_err("dropped").kind(), ErrorKind::NotFound);
    store.disconnect(Deadline::after(Duration::from_secs(5))).expect("outside a runtime");
    assert_eq!(store.list_collections().expect_err("closed").kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn within_an_async_runtime_a_blocking_call_is_an_error() {
    let error = store().list_collections().expect_err("it would block other tasks");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("await the method of the store itself"), "{error}");
}
