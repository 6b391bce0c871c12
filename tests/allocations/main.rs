//! What allocates nothing. One test, since the counters belong to the process.

use std::alloc::System;

use arshai::backends::vectors::EmbeddedStore;
use arshai::vectors::{CollectionConfig, Entity, Filter, QueryRequest, VectorStore};
use serde_json::{Map, Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn text(number: usize) -> String {
    format!("page {number}: {}", "ä".repeat(100))
}

fn metadata(number: usize) -> Value {
    json!({"number": number, "source": format!("{number}.md")})
}

fn row(number: usize) -> Map<String, Value> {
    Map::from_iter([("content".into(), text(number).into()), ("metadata".into(), metadata(number))])
}

/// Allocations of a query that matches nothing in so many rows.
async fn allocations_of_a_query(rows: usize, filter: &Filter) -> usize {
    let store = EmbeddedStore::new(256 << 20);
    let collection = store.get_or_create_collection(&CollectionConfig::new("c", 2)).await.expect("created");
    let entity = |number| Entity::new(text(number), vec![1.0, 0.0]).with_metadata(metadata(number));
    collection.insert_entities((0..rows).map(entity).collect()).await.expect("inserted");
    let query = || QueryRequest::new(filter.clone());
    // The first one starts a thread.
    assert_eq!(collection.query_by_expr(query()).await.expect("valid"), []);
    let query = query();
    let region = Region::new(ALLOCATOR);
    collection.query_by_expr(query).await.expect("valid");
    region.change().allocations
}

#[tokio::test]
async fn like_allocates_nothing_per_row() {
    let filters = [
        "content like '%needle%'",
        "content like 'page %_ä' and metadata['source'] like 'x_%'",
        "not (metadata['source'] like '%.md') or metadata['number'] in [-1, -2] or content like '%ä'  and false",
    ];
    let filters = filters.map(|text| (text, Filter::parse(text).expect(text)));
    let rows: Vec<_> = (0..1_000).map(row).collect();
    // Before there are other threads.
    for (text, filter) in &filters {
        let region = Region::new(ALLOCATOR);
        let found = rows.iter().filter(|row| filter.matches(*row)).count();
        assert_eq!((found, region.change().allocations), (0, 0), "{text}");
    }
    for (text, filter) in &filters {
        let few = allocations_of_a_query(100, filter).await;
        let many = allocations_of_a_query(10_000, filter).await;
        // A thread of the store may have to be started.
        assert!(many <= few + 50, "{text}: {few} allocations for 100 rows, {many} for 10 000");
    }
}
