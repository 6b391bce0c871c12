//! Searches by dense vectors.

use serde_json::{Value, json};

use super::{
    DIM, assert_near, count, create, entities, entity, everything, filter, ids, inner_product, insert, pages,
    query, rejected, search, sparse, texts, unit, vector,
};
use crate::vectors::{
    CollectionConfig, Consistency, Entity, FieldType, HybridSearchRequest, Metric, QueryRequest,
    SearchRequest, SparseVector, VectorStore,
};

pub(super) async fn hits_are_ordered_by_score_and_then_by_id(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let vectors: Vec<_> = (0..600).map(vector).collect();
    let all = insert(&*collection, entities(0..600)).await;
    for seed in 1_000..1_020 {
        let query = vector(seed);
        let hits = search(&*collection, SearchRequest::new(query.clone()).with_limit(40)).await;
        assert_eq!(hits.len(), 40, "there are as many hits as requested");
        for pair in hits.windows(2) {
            assert!(pair[0].score >= pair[1].score, "hits are ordered by score: {pair:?}");
            let ids_ascend = pair[0].score > pair[1].score || pair[0].id < pair[1].id;
            assert!(ids_ascend || !store.capabilities().ordered, "equal scores are ordered by id: {pair:?}");
        }
        for hit in &hits {
            let row = all.iter().position(|id| *id == hit.id).expect("a known id");
            assert_near(hit.score, inner_product(&vectors[row], &query));
        }
        if store.capabilities().exact {
            let scores = vectors.iter().map(|vector| inner_product(vector, &query));
            let mut expected: Vec<_> = scores.zip(all.iter().map(String::as_str)).collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
            for (hit, (score, id)) in hits.iter().zip(expected) {
                assert_near(hit.score, score);
                assert!(hit.id == id || !store.capabilities().ordered, "an exact store finds the nearest");
            }
        }
    }
    let few = search(&*collection, SearchRequest::new(vector(1))).await;
    assert_eq!(few.len(), 3, "the default limit is three");
    let most = SearchRequest::new(vector(1)).with_limit(16_384);
    assert_eq!(search(&*collection, most).await.len(), 600, "there are no more hits than entities");
}

pub(super) async fn each_query_vector_has_its_own_hits(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..100)).await;
    let queries = vec![vector(500), vector(501), vector(502)];
    let together =
        collection.search_by_vector(SearchRequest::new(queries.clone())).await.expect("a valid search");
    assert_eq!(together.len(), 3);
    for (query, hits) in queries.into_iter().zip(together) {
        for (alone, hit) in search(&*collection, SearchRequest::new(query)).await.iter().zip(&hits) {
            assert_near(alone.score, hit.score);
            assert!(alone.id == hit.id || !store.capabilities().ordered, "{alone:?} is not {hit:?}");
        }
        assert_eq!(hits.len(), 3);
    }
    let none = collection.search_by_vector(SearchRequest::new(Vec::<Vec<f32>>::new())).await;
    assert!(none.expect("a valid search").is_empty(), "no query vectors, no lists of hits");
}

pub(super) async fn a_filter_costs_no_hits(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..1_000)).await;
    let rare = filter("metadata['number'] in [3, 501, 777, 998] and not (metadata['even'] == true)");
    let request = SearchRequest::new(vector(5)).with_filter(rare).with_limit(10);
    let hits = search(&*collection, request).await;
    let mut numbers: Vec<_> =
        hits.iter().filter_map(|hit| hit.fields["metadata"]["number"].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [3, 501, 777], "everything that matches is found, however rare");
    let none = SearchRequest::new(vector(5)).with_filter(filter("metadata['absent'] > 1"));
    assert!(search(&*collection, none).await.is_empty());
}

pub(super) async fn pages_of_hits_join_to_the_whole(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    // One dimension and growing lengths: every score is different.
    let ramp = (0..50).map(|i| Entity::new(format!("{i}"), unit(0, i as f32)));
    insert(&*collection, ramp.collect()).await;
    let request = SearchRequest::new(unit(0, 1.0)).with_limit(20);
    let whole = search(&*collection, request.clone()).await;
    let mut joined = search(&*collection, request.clone().with_limit(7)).await;
    joined.extend(search(&*collection, request.clone().with_limit(13).with_offset(7)).await);
    assert_eq!(joined, whole);
    assert!(search(&*collection, request.with_offset(50)).await.is_empty(), "nothing follows the last hit");
    let everything = || QueryRequest::new(everything());
    let mut pages = query(&*collection, everything().with_limit(30)).await;
    pages.extend(query(&*collection, everything().with_limit(30).with_offset(30)).await);
    let whole = query(&*collection, everything()).await;
    let capabilities = store.capabilities();
    assert_eq!(ids(capabilities, &pages), ids(capabilities, &whole), "pages of a query join too");
}

pub(super) async fn hits_have_all_fields_but_vectors_unless_chosen(store: &dyn VectorStore) {
    let config = pages().with_field("language", FieldType::VarChar);
    let collection = create(store, &config).await;
    let id = collection.insert_entity(entity(1).with_field("language", "en")).await.expect("valid");
    let hit = search(&*collection, SearchRequest::new(vector(1))).await.remove(0);
    assert_eq!(hit.id, id);
    let expected = json!({
        "doc_id": id, "content": "page 1", "language": "en",
        "metadata": {"number": 1, "even": false, "source": "1.md"},
    });
    assert_eq!(Value::Object(hit.fields), expected);
    let chosen = SearchRequest::new(vector(1)).with_output_fields(["language"]);
    let hit = search(&*collection, chosen).await.remove(0);
    assert_eq!(Value::Object(hit.fields), json!({"language": "en"}));
    let unknown = SearchRequest::new(vector(1)).with_output_fields(["colour"]);
    let message = rejected(collection.search_by_vector(unknown).await, "unknown output fields are rejected");
    assert!(message.contains("colour"), "the error names the field: {message}");
}

pub(super) async fn rows_of_a_query_have_the_chosen_fields(store: &dyn VectorStore) {
    let collection = create(store, &pages().with_field("page", FieldType::Int64)).await;
    insert(&*collection, (0..5).map(|n| entity(n).with_field("page", n)).collect()).await;
    let one = || QueryRequest::new(filter("page == 3"));
    let all = query(&*collection, one()).await.remove(0);
    let names = ["content", "doc_id", "metadata", "page"];
    assert!(all.fields.len() == 4 && names.iter().all(|name| all.fields.contains_key(*name)), "{all:?}");
    assert_eq!(all.fields["doc_id"], json!(all.id));
    let chosen = query(&*collection, one().with_output_fields(["metadata", "page"])).await.remove(0);
    assert_eq!(chosen.id, all.id, "a row has its id, whichever fields were chosen");
    let expected = json!({"page": 3, "metadata": {"number": 3, "even": false, "source": "3.md"}});
    assert_eq!(Value::Object(chosen.fields), expected);
    let unknown = one().with_output_fields(["colour"]);
    rejected(collection.query_by_expr(unknown).await, "unknown output fields are rejected");
    let vectors = one().with_output_fields(["dense_vector"]);
    rejected(collection.query_by_expr(vectors).await, "vectors are no output fields");
}

pub(super) async fn pages_with_a_filter_join_to_what_matches(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    let ramp = (0..60)
        .map(|i| Entity::new(format!("{i}"), unit(0, i as f32)).with_metadata(json!({"third": i % 3 == 0})));
    insert(&*collection, ramp.collect()).await;
    let third = || filter("metadata['third'] == true");
    let mut found = Vec::new();
    for offset in [0, 6, 12, 18] {
        let request = SearchRequest::new(unit(0, 1.0)).with_filter(third()).with_limit(6).with_offset(offset);
        found.extend(search(&*collection, request).await);
    }
    let expected: Vec<_> = (0..20).rev().map(|i| (i * 3).to_string()).collect();
    assert_eq!(texts(&found), expected, "each matching entity is on one page");
    let mut rows = Vec::new();
    for offset in [0, 7, 14, 21] {
        rows.extend(query(&*collection, QueryRequest::new(third()).with_limit(7).with_offset(offset)).await);
    }
    let whole = query(&*collection, QueryRequest::new(third())).await;
    assert_eq!(ids(store.capabilities(), &rows), ids(store.capabilities(), &whole));
    assert_eq!(whole.len(), 20);
}

pub(super) async fn each_of_several_query_vectors_has_its_own_page(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    // Lengths of their own in both dimensions: every score is different.
    let two = (0..20).map(|i| {
        let mut vector = unit(0, i as f32);
        vector[1] = ((i * 7) % 20) as f32;
        Entity::new(format!("{i}"), vector)
    });
    insert(&*collection, two.collect()).await;
    let queries = vec![unit(0, 1.0), unit(1, 1.0)];
    let request = SearchRequest::new(queries.clone()).with_limit(4).with_offset(3);
    let found = collection.search_by_vector(request).await.expect("a valid search");
    for (query, page) in queries.into_iter().zip(found) {
        let whole = search(&*collection, SearchRequest::new(query).with_limit(7)).await;
        assert_eq!(texts(&page), texts(&whole)[3..], "the offset skips hits of each query vector");
    }
}

pub(super) async fn every_metric_scores_and_orders_as_milvus_does(store: &dyn VectorStore) {
    let diagonal = |length: f32| {
        let mut vector = unit(0, length);
        vector[1] = length;
        vector
    };
    let near = || {
        let mut vector = unit(0, 1.0);
        vector[1] = 0.75;
        vector
    };
    let expected = [
        (Metric::InnerProduct, [("far", 10.0), ("diagonal", 2.0), ("near", 1.0)]),
        (Metric::Cosine, [("far", 1.0), ("near", 0.8), ("diagonal", 0.5_f32.sqrt())]),
        (Metric::L2, [("near", 0.5625), ("diagonal", 5.0), ("far", 81.0)]),
    ];
    for (metric, expected) in expected {
        let config = CollectionConfig::new(format!("metric_{metric:?}"), DIM).with_metric(metric);
        let collection = create(store, &config).await;
        let entities = vec![
            Entity::new("far", unit(0, 10.0)),
            Entity::new("near", near()),
            Entity::new("diagonal", diagonal(2.0)),
            Entity::new("opposite", unit(0, -100.0)),
        ];
        insert(&*collection, entities).await;
        let hits = search(&*collection, SearchRequest::new(unit(0, 1.0))).await;
        assert_eq!(texts(&hits), expected.map(|(text, _)| text), "{metric:?}");
        for (hit, (_, score)) in hits.iter().zip(expected) {
            assert_near(hit.score, score);
        }
    }
}

pub(super) async fn every_consistency_level_is_accepted(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..10)).await;
    let levels = [Consistency::Strong, Consistency::Session, Consistency::Bounded, Consistency::Eventually];
    for level in levels {
        let hits = search(&*collection, SearchRequest::new(vector(1)).with_consistency(level)).await;
        let rows = query(&*collection, QueryRequest::new(everything()).with_consistency(level)).await;
        if matches!(level, Consistency::Strong | Consistency::Session) {
            assert_eq!((hits.len(), rows.len()), (3, 10), "{level:?} sees this store's writes");
        }
    }
}

pub(super) async fn invalid_requests_are_rejected(store: &dyn VectorStore) {
    let collection = create(store, &pages()).await;
    insert(&*collection, entities(0..1)).await;
    let search = |request| collection.search_by_vector(request);
    for invalid in [vec![1.0; DIM - 1], Vec::new(), vec![f32::NAN; DIM], vec![f32::INFINITY; DIM]] {
        rejected(search(SearchRequest::new(invalid)).await, "an invalid query vector is rejected");
    }
    for (limit, offset) in
        [(0, 0), (16_385, 0), (16_384, 1), (1_000_000, 0), (usize::MAX, 0), (1, usize::MAX)]
    {
        let request = SearchRequest::new(vector(1)).with_limit(limit).with_offset(offset);
        rejected(search(request).await, "limits out of range are rejected");
        let request = QueryRequest::new(everything()).with_limit(limit).with_offset(offset);
        rejected(collection.query_by_expr(request).await, "limits out of range are rejected");
    }
    let many = SearchRequest::new(vec![vector(1); 1_001]);
    rejected(search(many).await, "too many query vectors are rejected");
    let many = SearchRequest::new(vec![vector(1); 1_000]).with_limit(16_384);
    rejected(search(many).await, "too many hits over all query vectors are rejected");
    let unknown = filter("colour == 'red'");
    let promise = "unknown fields in filters are rejected";
    rejected(search(SearchRequest::new(vector(1)).with_filter(unknown.clone())).await, promise);
    rejected(collection.delete_entity(&unknown).await, promise);
    rejected(collection.query_by_expr(QueryRequest::new(unknown)).await, promise);
    let vectors = filter("dense_vector == 1");
    rejected(collection.delete_entity(&vectors).await, "vectors cannot be filtered");
    let hybrid = HybridSearchRequest::new(vector(1), SparseVector::new());
    rejected(collection.hybrid_search(hybrid).await, "hybrid search needs a hybrid collection");
    let sparse = SearchRequest::new(sparse(&[(1, 1.0)]));
    rejected(search(sparse).await, "sparse search needs a hybrid collection");
    assert_eq!(count(&*collection).await, 1);
}
