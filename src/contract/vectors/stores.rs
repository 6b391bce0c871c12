//! Collections are created, found, listed and dropped.

use std::time::Duration;

use super::{
    DIM, count, create, entities, entity, everything, failed, filter, insert, pages, rejected, unit, vector,
};
use crate::vectors::{
    BulkInsertOptions, CollectionConfig, FieldType, IndexSettings, Metric, QueryRequest, SearchRequest,
    VectorStore, entity_stream,
};
use crate::{Deadline, ErrorKind};

pub(super) async fn only_get_or_create_creates(store: &dyn VectorStore) {
    store.connect().await.expect("it connects");
    store.connect().await.expect("it is connected");
    failed(store.get_collection("pages").await, ErrorKind::NotFound, "an unknown collection is not found");
    failed(store.drop_collection("pages").await, ErrorKind::NotFound, "an unknown collection is not dropped");
    assert_eq!(store.list_collections().await.expect("a list"), [""; 0], "nothing was created");
    let created = create(store, &pages()).await;
    assert_eq!(*created.config(), pages());
    create(store, &CollectionConfig::new("letters", DIM)).await;
    assert_eq!(store.list_collections().await.expect("a list"), ["letters", "pages"], "names are sorted");
    insert(&*created, entities(0..3)).await;
    let found = store.get_collection("pages").await.expect("it exists");
    assert_eq!(found.config().collection_name, "pages");
    assert_eq!(count(&*found).await, 3, "handles see the same data");
}

pub(super) async fn invalid_collections_are_rejected(store: &dyn VectorStore) {
    let twice = pages().with_field("content", FieldType::VarChar);
    let keyword = pages().with_field("like", FieldType::Bool);
    let names = ["", "9lives", "a b", "a-b", "a;drop"].map(|name| CollectionConfig::new(name, DIM));
    let dims = [0, 32_769].map(|dim| CollectionConfig::new("dims", dim));
    for invalid in [twice, keyword].into_iter().chain(names).chain(dims) {
        rejected(store.get_or_create_collection(&invalid).await, "an invalid collection is rejected");
    }
    assert_eq!(store.list_collections().await.expect("a list"), [""; 0]);
}

pub(super) async fn an_invalid_name_is_no_collection(store: &dyn VectorStore) {
    create(store, &pages()).await;
    for name in ["", " ", "9lives", "a b/../c", "pages ", "p\u{e4}ges", "a\0b", &"a".repeat(256)] {
        failed(store.get_collection(name).await, ErrorKind::NotFound, "an invalid name is not found");
        failed(store.drop_collection(name).await, ErrorKind::NotFound, "an invalid name is not dropped");
    }
    assert_eq!(store.list_collections().await.expect("a list"), ["pages"]);
}

pub(super) async fn a_collection_keeps_its_schema(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..2)).await;
    let mut index = pages();
    index.dense_index = IndexSettings::new("HNSW").with_param("M", 16);
    assert_eq!(count(&*create(store, &index).await).await, 2, "index settings are no part of the schema");
    let others = [
        ("dense_dim", CollectionConfig::new("pages", DIM + 1)),
        ("metric", pages().with_metric(Metric::L2)),
        ("is_hybrid", pages().hybrid()),
        ("extra_fields", pages().with_field("n", FieldType::Int64)),
    ];
    for (difference, other) in others {
        let message = rejected(store.get_or_create_collection(&other).await, "another schema is rejected");
        assert!(message.contains(difference), "the error says what differs: {message}");
    }
    assert_eq!(count(&*collection).await, 2);
}

pub(super) async fn collections_share_nothing(store: &dyn VectorStore) {
    let ours = create(store, &pages()).await;
    let theirs = create(store, &CollectionConfig::new("letters", DIM)).await;
    insert(&*ours, entities(0..5)).await;
    insert(&*theirs, entities(0..3)).await;
    assert_eq!(theirs.delete_entity(&everything()).await.expect("deleted"), 3);
    assert_eq!((count(&*ours).await, count(&*theirs).await), (5, 0));
    store.drop_collection("letters").await.expect("it exists");
    assert_eq!(count(&*ours).await, 5);
}

pub(super) async fn a_handle_to_a_dropped_collection_finds_nothing(store: &dyn VectorStore) {
    let old = create(store, &pages()).await;
    insert(&*old, entities(0..5)).await;
    store.drop_collection("pages").await.expect("it exists");
    assert_eq!(store.list_collections().await.expect("a list"), [""; 0]);
    let new = create(store, &CollectionConfig::new("pages", 2)).await;
    assert_eq!(count(&*new).await, 0, "the new collection is empty");
    let promise = "a dropped collection is not found";
    failed(old.insert_entity(entity(1)).await, ErrorKind::NotFound, promise);
    failed(old.search_by_vector(SearchRequest::new(vector(1))).await, ErrorKind::NotFound, promise);
    failed(old.delete_entity(&everything()).await, ErrorKind::NotFound, promise);
    failed(old.get_collection_stats().await, ErrorKind::NotFound, promise);
}

pub(super) async fn a_closed_store_rejects_everything_and_closes_twice(store: &dyn VectorStore) {
    let soon = || Deadline::after(Duration::from_secs(5));
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..5)).await;
    assert!(store.health(soon()).await.is_usable());
    assert!(store.close(soon()).await.is_clean());
    assert!(store.disconnect(soon()).await.is_clean(), "closing twice is fine");
    let promise = "a closed store rejects every operation";
    failed(store.connect().await, ErrorKind::Closed, promise);
    failed(store.get_or_create_collection(&pages()).await, ErrorKind::Closed, promise);
    failed(store.get_collection("pages").await, ErrorKind::Closed, promise);
    failed(store.list_collections().await, ErrorKind::Closed, promise);
    failed(store.drop_collection("pages").await, ErrorKind::Closed, promise);
    failed(store.get_collection("").await, ErrorKind::Closed, promise);
    failed(store.drop_collection("").await, ErrorKind::Closed, promise);
    failed(collection.insert_entity(entity(1)).await, ErrorKind::Closed, promise);
    failed(collection.search_by_vector(SearchRequest::new(unit(0, 1.0))).await, ErrorKind::Closed, promise);
    failed(collection.query_by_expr(QueryRequest::new(everything())).await, ErrorKind::Closed, promise);
    failed(collection.delete_entity(&filter("content == 'x'")).await, ErrorKind::Closed, promise);
    failed(collection.get_collection_stats().await, ErrorKind::Closed, promise);
    failed(collection.flush().await, ErrorKind::Closed, promise);
    let bulk = collection.bulk_insert_optimized(entity_stream(entities(0..3)), BulkInsertOptions::default());
    let report = bulk.await;
    assert_eq!((report.written_count(), report.failed.len()), (0, 1), "{report:?}");
    failed(report.into_result(), ErrorKind::Closed, promise);
}
