//! The limit of bytes.

use super::{count, create, entities, everything, failed, insert, pages, search, vector};
use crate::vectors::{
    BulkInsertOptions, CollectionConfig, SearchRequest, VectorStats, VectorStore, entity_stream,
};
use crate::{ErrorKind, Outcome};

#[track_caller]
fn within_limits(store: &dyn VectorStore) -> VectorStats {
    let limits = store.limits();
    let exceeded = limits.iter().any(|usage| usage.limit.is_some_and(|limit| usage.peak > limit));
    assert!(!exceeded, "no limit is exceeded: {limits:?}");
    store.stats()
}

pub(super) async fn a_full_store_rejects_whole_inserts_and_loses_nothing(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let mut written = 0;
    let error = loop {
        match collection.insert_entities(entities(0..50)).await {
            Ok(ids) => written += ids.len() as u64,
            Err(error) => break error,
        }
        within_limits(store);
    };
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::Rejected), "{error}");
    assert!(written > 0, "something fits into a MiB");
    assert_eq!(count(&*collection).await, written, "a rejected insert changes nothing");
    let stream = entity_stream(entities(0..5_000));
    let report = collection.bulk_insert_optimized(stream, BulkInsertOptions::default()).await;
    assert_eq!(report.failed[0].error.kind(), ErrorKind::Capacity);
    assert!(report.unknown.is_empty(), "{report:?}");
    assert_eq!(count(&*collection).await, written + report.written_count());
    assert_eq!(search(&*collection, SearchRequest::new(vector(1))).await.len(), 3, "it still answers");
    let full = within_limits(store).bytes;
    collection.delete_entity(&everything()).await.expect("deleted");
    assert!(within_limits(store).bytes < full / 10, "deletes free the limit");
    insert(&*collection, entities(0..50)).await;
    store.drop_collection("pages").await.expect("it exists");
    assert_eq!(within_limits(store).bytes, 0, "dropping frees everything");
}

pub(super) async fn collections_spend_the_limit_too(store: &dyn VectorStore) {
    for number in 0_u64.. {
        assert!(number < 100_000, "collections spend the limit");
        let config = CollectionConfig::new(format!("collection_{number}"), 8);
        let result = store.get_or_create_collection(&config).await;
        if result.is_err() {
            failed(result, ErrorKind::Capacity, "a full store creates no collections");
            assert_eq!(within_limits(store).collections, number);
            break;
        }
    }
}
