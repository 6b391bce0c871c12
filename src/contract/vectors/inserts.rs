//! Inserts are checked, complete and visible.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use serde_json::{Value, json};

use super::{
    DIM, count, create, entities, entity, everything, filter, ids, insert, pages, query, rejected, search,
    vector,
};
use crate::vectors::{Entity, FieldType, Filter, QueryRequest, SearchRequest, VectorStore};

pub(super) async fn ids_are_unique_and_in_the_order_of_the_entities(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let mut all = insert(&*collection, entities(0..50)).await;
    all.push(collection.insert_entity(entity(50)).await.expect("a valid insert"));
    assert!(all.iter().all(|id| id.len() <= 100 && !id.is_empty()), "ids: {all:?}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 51, "ids are unique");
    assert!(all.is_sorted() || !store.capabilities().ordered, "ids ascend");
    let by_key = Filter::with_params("doc_id == {id}", [("id", json!(all[17]))]).expect("a valid filter");
    let found = query(&*collection, QueryRequest::new(by_key)).await;
    assert_eq!(found[0].fields["content"], "page 17", "ids are in the order of the entities");
    assert_eq!(insert(&*collection, Vec::new()).await, [""; 0], "no entities are no error");
    collection.delete_entity(&everything()).await.expect("deleted");
    let again = insert(&*collection, entities(0..1)).await;
    assert!(!all.contains(&again[0]), "ids are not reused");
}

pub(super) async fn an_acknowledged_insert_is_found_immediately(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    for number in 0..20 {
        let id = collection.insert_entity(entity(number)).await.expect("a valid insert");
        let same = filter(&format!("metadata['number'] == {number}"));
        let hits = search(&*collection, SearchRequest::new(vector(number)).with_filter(same)).await;
        assert_eq!(ids(store.capabilities(), &hits), [id.as_str()]);
    }
    assert_eq!(count(&*collection).await, 20);
    assert_eq!(store.stats().searches, 20);
    collection.flush().await.expect("flushed");
}

pub(super) async fn fields_have_the_types_of_the_collection(store: &dyn VectorStore) {
    let config = pages()
        .with_field("page", FieldType::Int64)
        .with_field("price", FieldType::Float)
        .with_field("draft", FieldType::Bool)
        .with_field("language", FieldType::VarChar)
        .with_field("more", FieldType::Json);
    let collection = create(store, &config).await;
    let valid = || {
        let entity = entity(1).with_field("page", 7).with_field("price", 2.5).with_field("draft", false);
        entity.with_field("language", "en").with_field("more", json!({"list": ["any", 1]}))
    };
    collection.insert_entity(valid()).await.expect("every field has its type");
    let all = filter(
        "page == 7 and price > 2.4 and draft == false and language like 'e%' and more['list'][0] == 'any'",
    );
    assert_eq!(query(&*collection, QueryRequest::new(all)).await.len(), 1);
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let wrong = [
        ("page", json!("7")),
        ("page", json!(7.5)),
        ("page", json!(u64::MAX)),
        ("price", json!("cheap")),
        ("price", json!(1e300)),
        ("draft", json!(0)),
        ("language", json!(1)),
        ("language", json!("x".repeat(65_536))),
        ("more", json!("x".repeat(65_536))),
        ("more", nested.clone()),
        ("content", json!(1)),
        ("content", json!("x".repeat(65_536))),
        ("metadata", json!([1])),
        ("metadata", json!("string")),
        ("metadata", Value::Null),
        ("metadata", json!({"nested": nested})),
        ("metadata", json!({"blob": "x".repeat(1 << 20)})),
        ("unknown", json!(1)),
    ];
    for (name, value) in wrong {
        let result = collection.insert_entity(valid().with_field(name, value)).await;
        let message = rejected(result, "a value of the wrong type is rejected");
        assert!(message.contains(name), "the error names the field {name:?}: {message}");
        assert!(message.len() < 1_000, "the error does not repeat the value");
    }
    let mut missing = valid();
    missing.fields.remove("page");
    rejected(collection.insert_entity(missing).await, "a missing field is rejected");
    assert_eq!(count(&*collection).await, 1);
}

pub(super) async fn one_invalid_entity_and_nothing_is_inserted(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..1)).await;
    let with_element = |at: usize, value: f32| {
        let mut vector = vector(3);
        vector[at] = value;
        Entity::new("not finite", vector)
    };
    let invalid = [
        Entity::new("short", vec![1.0; DIM - 1]),
        Entity::new("long", vec![1.0; DIM + 1]),
        Entity::new("empty", Vec::new()),
        with_element(0, f32::NAN),
        with_element(DIM - 1, f32::INFINITY),
        with_element(3, f32::NEG_INFINITY),
        entity(3).with_sparse([(1, 1.0)].into()),
    ];
    for invalid in invalid {
        let mut batch = entities(1..30);
        batch.insert(20, invalid);
        let message = rejected(collection.insert_entities(batch).await, "an invalid entity is rejected");
        assert!(message.contains("20"), "the error has the index of the entity: {message}");
        assert_eq!(count(&*collection).await, 1, "nothing of the batch was inserted");
    }
}

pub(super) async fn a_missing_text_is_named_as_in_python(store: &dyn VectorStore) {
    let mut config = pages();
    config.text_field = "body".into();
    let collection = create(store, &config).await;
    let mut without = entity(1);
    without.fields.remove("content");
    let message = rejected(collection.insert_entity(without).await, "a missing text is rejected");
    assert!(message.contains("Text field 'content' or 'body' not found in data."), "{message}");
}

pub(super) async fn text_and_metadata_may_have_the_names_of_the_collection(store: &dyn VectorStore) {
    let mut config = pages();
    (config.text_field, config.metadata_field) = ("body".into(), "about".into());
    let collection = create(store, &config).await;
    let mut renamed = entity(1).with_field("body", "own name").with_field("about", json!({"n": 2}));
    renamed.fields.remove("content");
    renamed.fields.remove("metadata");
    insert(&*collection, vec![entity(0), renamed]).await;
    let found = query(&*collection, QueryRequest::new(filter("about['n'] == 2"))).await;
    assert_eq!(found[0].fields["body"], "own name");
    let found = query(&*collection, QueryRequest::new(filter("about['number'] == 0"))).await;
    assert_eq!(found[0].fields["body"], "page 0");
}

pub(super) async fn a_dropped_insert_is_complete_or_absent(store: &dyn VectorStore) {
    if !store.capabilities().atomic_writes {
        return;
    }
    let collection = create(store, &pages()).await;
    for polls in 0..4 {
        let before = count(&*collection).await;
        {
            let mut insert = pin!(collection.insert_entities(entities(0..100)));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if insert.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
        }
        // A write after it shows that it has ended.
        insert(&*collection, entities(0..1)).await;
        let inserted = count(&*collection).await - before - 1;
        assert!(inserted == 0 || inserted == 100, "{inserted} of 100 entities were inserted");
    }
}

pub(super) async fn inserts_and_searches_run_concurrently(store: Arc<dyn VectorStore>) {
    let collection = create(&*store, &pages()).await;
    let mut work = tokio::task::JoinSet::new();
    for writer in 0..8_u64 {
        let collection = Arc::clone(&collection);
        work.spawn(async move {
            for batch in 0..10 {
                let start = writer * 1_000 + batch * 20;
                assert_eq!(insert(&*collection, entities(start..start + 20)).await.len(), 20);
                let hits = search(&*collection, SearchRequest::new(vector(start)).with_limit(20)).await;
                assert_eq!(hits.len(), 20);
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.expect("no promise is broken");
    }
    assert_eq!(count(&*collection).await, 1_600);
    let all = query(&*collection, QueryRequest::new(everything())).await;
    assert!(ids(store.capabilities(), &all).is_sorted(), "queries return ascending ids");
}
