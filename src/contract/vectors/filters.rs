//! Queries, deletes and statistics.

use serde_json::{Value, json};

use super::{
    assert_near, count, create, entities, entity, everything, filter, ids, inner_product, insert, pages,
    query, query_if_supported, rejected, search, unit, vector,
};
use crate::vectors::{Entity, FieldType, Filter, QueryRequest, SearchRequest, VectorStore};

pub(super) async fn a_query_returns_what_matches(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let all = insert(&*collection, entities(0..100)).await;
    let some = || QueryRequest::new(filter("metadata['number'] >= 90 || content == 'page 3'"));
    let found = query(&*collection, some()).await;
    let mut expected: Vec<_> =
        [3].into_iter().chain(90..100).map(|number: usize| all[number].as_str()).collect();
    expected.sort_unstable();
    assert_eq!(ids(store.capabilities(), &found), expected);
    let two = query(&*collection, some().with_output_fields(["content"]).with_limit(2)).await;
    assert_eq!(two.len(), 2);
    if store.capabilities().ordered {
        assert_eq!(Value::Object(two[0].fields.clone()), json!({"content": "page 3"}));
    }
    let none = query(&*collection, some().with_offset(16_000)).await;
    assert!(none.is_empty());
}

/// One entity per kind of value, and filters that select some of them.
pub(super) async fn the_filter_language_means_the_same_everywhere(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let values = [
        ("integer", json!({"v": 7})),
        ("float", json!({"v": 7.5})),
        ("string", json!({"v": "7"})),
        ("boolean", json!({"v": true})),
        ("list", json!({"v": [1, "x", 2.5]})),
        ("object", json!({"v": {"0": 1, "it's": "a \"b\" \\ ä\n"}})),
        ("missing", json!({"w": 1})),
    ];
    let rows = values.map(|(name, metadata)| Entity::new(name, unit(0, 1.0)).with_metadata(metadata));
    insert(&*collection, rows.into()).await;
    let table: [(&str, &[&str]); 19] = [
        ("metadata['v'] == 7", &["integer"]),
        ("metadata['v'] != 7", &["boolean", "float", "list", "missing", "object", "string"]),
        ("metadata['v'] > 7", &["float"]),
        ("7 <= metadata['v'] < 8", &["float", "integer"]),
        ("metadata['v'] in [7, '7']", &["integer", "string"]),
        ("metadata['v'] not in [7, '7']", &["boolean", "float", "list", "missing", "object"]),
        (
            "not (metadata['v'] == 7) and content != 'missing'",
            &["boolean", "float", "list", "object", "string"],
        ),
        ("metadata['v'] like '7%'", &["string"]),
        ("metadata['v'] == true", &["boolean"]),
        ("metadata['v'] + 1 == 8", &["integer"]),
        ("metadata['v'] / 2 == 3.5", &["integer"]),
        ("metadata['v'] % 2 == 1", &["integer"]),
        ("metadata['v'][0] == 1", &["list"]),
        ("metadata['v']['0'] == 1", &["object"]),
        ("metadata['v']['it\\'s'] == 'a \"b\" \\\\ ä\\n'", &["object"]),
        ("json_contains(metadata['v'], 'x')", &["list"]),
        ("json_contains_all(metadata['v'], [1, 2.5])", &["list"]),
        ("json_contains_any(metadata['v'], [9, 'x'])", &["list"]),
        ("not exists metadata['v']", &["missing"]),
    ];
    // Servers take an index for a key, and the other way round.
    let is_ambiguous = |text: &str| text.contains("[0]") || text.contains("['0']");
    for (text, expected) in table {
        if is_ambiguous(text) && !store.capabilities().all_filters {
            continue;
        }
        let Some(found) = query_if_supported(store, &*collection, filter(text)).await else { continue };
        let mut found: Vec<_> = found.iter().map(|hit| hit.fields["content"].clone()).collect();
        found.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        assert_eq!(found, expected, "{text}");
    }
    // No backend may reject these.
    for text in
        ["metadata['v'] == 7", "content in ['integer', 'float']", "not (content == 'x') and doc_id != ''"]
    {
        let found = query(&*collection, QueryRequest::new(filter(text))).await;
        assert!(!found.is_empty(), "{text}");
    }
}

pub(super) async fn values_and_hostile_expressions_are_never_syntax(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..3)).await;
    for hostile in [
        "\" or 1 == 1",
        "' or true or '",
        "\" or 1 == 1 or content == \"",
        "\\",
        "\\\" or doc_id != \"",
        "{x}",
        "%",
    ] {
        let filters = ["content == {value}", "metadata['source'] in [{value}, 'x']", "content like {value}"];
        for text in filters {
            let pattern = Filter::escape_like(hostile);
            let value = if text.contains("like") { pattern } else { hostile.to_owned() };
            let bound = Filter::with_params(text, [("value", json!(value))]).expect("values are bound");
            let found = query_if_supported(store, &*collection, bound.clone()).await;
            let Some(found) = found else { continue };
            assert!(found.is_empty(), "{bound}");
            assert_eq!(collection.delete_entity(&bound).await.expect("answered"), 0, "{bound}");
        }
    }
    let parentheses = format!("{}doc_id != ''{}", "(".repeat(10_000), ")".repeat(10_000));
    let long = format!("content == '{}'", "x".repeat(1 << 20));
    for text in ["", "  ", &parentheses, &long, "metadata['number'] / 0 == 1", "metadata['number'] == null"] {
        rejected(Filter::parse(text), "an invalid expression is rejected");
    }
    assert_eq!(count(&*collection).await, 3, "everything is still there");
}

pub(super) async fn what_is_deleted_is_gone_and_the_rest_stays(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let all = insert(&*collection, entities(0..300)).await;
    let even = filter("metadata['even'] == true");
    assert_eq!(collection.delete_entity(&even).await.expect("deleted"), 150);
    assert_eq!(collection.delete_entity(&even).await.expect("nothing is left to delete"), 0);
    let mut left: Vec<_> = all.iter().skip(1).step_by(2).map(String::as_str).collect();
    left.sort_unstable();
    let found = query(&*collection, QueryRequest::new(everything())).await;
    assert_eq!(ids(store.capabilities(), &found), left, "the others stay, in their order");
    let hits = search(&*collection, SearchRequest::new(vector(9)).with_limit(300)).await;
    assert_eq!(hits.len(), 150);
    for hit in hits {
        let number = hit.fields["metadata"]["number"].as_u64().expect("a number");
        // Vectors stay with their rows.
        assert_near(hit.score, inner_product(&vector(number), &vector(9)));
    }
    insert(&*collection, entities(0..10)).await;
    assert_eq!(count(&*collection).await, 160);
    assert_eq!(collection.delete_entity(&everything()).await.expect("deleted"), 160);
    assert_eq!(count(&*collection).await, 0);
}

pub(super) async fn a_filter_that_nothing_matches_deletes_nothing(store: &dyn VectorStore) {
    let collection = create(store, &pages().with_field("page", FieldType::Int64)).await;
    let all = insert(&*collection, (0..3).map(|n| entity(n).with_field("page", n)).collect()).await;
    let delete = async |text: &str| collection.delete_entity(&filter(text)).await.expect(text);
    for text in [
        "false",
        "page in []",
        "page == 'x'",
        "page < content",
        "page['a'] == 1 and content == 'page 1'",
        "doc_id == ''",
        "doc_id == 'x'",
        "doc_id in ['x', 'y']",
        "not (doc_id != 'x')",
        "not (doc_id not in ['x', 'y'])",
        "doc_id == 'x' or page in []",
        "doc_id == 'x' and page not in []",
        "doc_id == 'x' and page == 1",
    ] {
        assert_eq!(delete(text).await, 0, "{text}");
    }
    let one = format!("doc_id == '{}' or page in []", all[1]);
    assert_eq!((delete(&one).await, delete(&one).await), (1, 0), "an entity is deleted once");
    assert_eq!(count(&*collection).await, 2);
}

pub(super) async fn statistics_count_what_is_there(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..30)).await;
    collection.insert_entity(entity(30)).await.expect("a valid insert");
    collection.flush().await.expect("flushed");
    let stats = collection.get_collection_stats().await.expect("statistics");
    assert_eq!(stats.name, "pages");
    if store.capabilities().exact_counts {
        assert_eq!(stats.num_entities, 31);
        collection.delete_entity(&filter("metadata['number'] < 10")).await.expect("deleted");
        let stats = collection.get_collection_stats().await.expect("statistics");
        assert_eq!(stats.num_entities, 21);
        assert_eq!((store.stats().collections, store.stats().entities), (1, 21));
        assert_eq!(store.counters()["entities"], 21, "counters are the statistics as JSON");
    }
}
