//! Bulk inserts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{count, create, entities, entity, filter, pages, query};
use crate::ErrorKind;
use crate::vectors::{BulkInsertOptions, Entity, QueryRequest, VectorStore, entity_stream};

pub(super) async fn a_bulk_insert_reports_its_progress(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let calls = Mutex::new(Vec::new());
    let progress = |written: u64| calls.lock().expect("not poisoned").push(written);
    let options = BulkInsertOptions::default().with_progress(&progress);
    let report = collection.bulk_insert_optimized(entity_stream(entities(0..2_500)), options).await;
    assert!(report.is_complete() && report.flushed, "{report:?}");
    assert_eq!((report.written.len(), report.written_count()), (1, 2_500));
    let calls = calls.lock().expect("not poisoned").clone();
    assert!(calls.is_sorted() && calls.last() == Some(&2_500), "progress rises to the whole: {calls:?}");
    assert_eq!(count(&*collection).await, 2_500);
    let found = query(&*collection, QueryRequest::new(filter("metadata['number'] == 2222"))).await;
    assert_eq!(Some(found[0].id.as_str()), report.ids().nth(2_222), "ids are in the order of the entities");
    let options = BulkInsertOptions::default().with_ids(false).with_flush(false);
    let report = collection.bulk_insert_optimized(entity_stream(entities(0..100)), options).await;
    assert_eq!((report.written_count(), report.ids().count(), report.flushed), (100, 0, false));
    let report = collection.bulk_insert_optimized(entity_stream([]), BulkInsertOptions::default()).await;
    assert!(report.is_complete() && report.written.is_empty(), "an empty stream is no error");
}

pub(super) async fn a_failed_bulk_insert_is_resumed_without_duplicates(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let mut input = entities(0..3_000);
    input[1_900] = Entity::new("short", vec![1.0]);
    let options = BulkInsertOptions::default().with_batch_size(500);
    let report = collection.bulk_insert_optimized(entity_stream(input), options).await;
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(report.failed[0].positions.contains(&1_900), "{report:?}");
    assert_eq!(report.failed[0].error.kind(), ErrorKind::InvalidInput);
    assert!(report.unknown.is_empty(), "a rejected batch is certainly not written");
    assert_eq!(count(&*collection).await, report.written_count(), "the report is true");
    let options = BulkInsertOptions::default().with_batch_size(700).resuming(report);
    let report = collection.bulk_insert_optimized(entity_stream(entities(0..3_000)), options).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.written.len(), report.ids().count()), (1, 3_000), "the report covers both inserts");
    assert_eq!(count(&*collection).await, 3_000, "nothing is missing and nothing is there twice");
    let found = query(&*collection, QueryRequest::new(filter("metadata['number'] == 1900"))).await;
    assert_eq!(Some(found[0].id.as_str()), report.ids().nth(1_900));
}

pub(super) async fn a_bulk_insert_reads_no_further_than_it_writes(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let (read, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let furthest = AtomicU64::new(0);
    let progress = |total: u64| written.store(total, Ordering::SeqCst);
    let stream = (0..2_000).map(|number| {
        let ahead = read.fetch_add(1, Ordering::SeqCst) + 1 - written.load(Ordering::SeqCst);
        furthest.fetch_max(ahead, Ordering::SeqCst);
        entity(number)
    });
    let options = BulkInsertOptions::default().with_batch_size(10).with_progress(&progress);
    let report = collection.bulk_insert_optimized(entity_stream(stream), options).await;
    assert!(report.is_complete(), "{report:?}");
    let furthest = furthest.into_inner();
    assert!(furthest <= 200, "it read {furthest} entities ahead in batches of 10");
}
