//! Sparse and hybrid search.

use serde_json::{Map, json};

use super::{
    DIM, assert_near, count, create, entity, failed, filter, insert, pages, rejected, search, sparse, texts,
    unit, vector,
};
use crate::ErrorKind;
use crate::vectors::{
    Collection, Consistency, Entity, HybridSearchRequest, Ranker, SearchRequest, SparseVector, VectorStore,
};

async fn insert_four(collection: &dyn Collection) {
    let entities = vec![
        Entity::new("both", unit(0, 2.0)).with_sparse(sparse(&[(7, 3.0), (1_000_000, 1.0)])),
        Entity::new("dense", unit(0, 3.0)).with_sparse(sparse(&[(8, 3.0)])),
        Entity::new("sparse", unit(1, 3.0)).with_sparse(sparse(&[(7, 5.0)])),
        Entity::new("neither", unit(0, -3.0)).with_sparse(sparse(&[(4_000_000_000, 1.0)])),
    ];
    insert(collection, entities).await;
}

pub(super) async fn a_sparse_search_finds_common_dimensions(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    insert_four(&*collection).await;
    let request = SearchRequest::new(sparse(&[(7, 2.0), (9, 1.0)])).with_limit(10);
    let hits = search(&*collection, request.clone()).await;
    assert_eq!(texts(&hits), ["sparse", "both"], "only entities with a common dimension are found");
    assert_near(hits[0].score, 10.0);
    assert_near(hits[1].score, 6.0);
    let hits = search(&*collection, request.with_filter(filter("content == 'both'"))).await;
    assert_eq!(texts(&hits), ["both"]);
    let queries = vec![sparse(&[(4_000_000_000, 1.0)]), sparse(&[(6, 1.0)]), sparse(&[])];
    let hits = collection.search_by_vector(SearchRequest::new(queries)).await.expect("a valid search");
    assert_eq!(hits.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0]);
}

pub(super) async fn weighted_hybrid_scores_are_normalised(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    insert_four(&*collection).await;
    let request = HybridSearchRequest::new(unit(0, 1.0), sparse(&[(7, 1.0), (9, 1.0)])).with_limit(2);
    let hits = collection.hybrid_search(request.clone()).await.expect("a valid search");
    assert_eq!(texts(&hits), ["both", "sparse"], "the best of both searches together");
    let normal = |score: f32| 0.5 + score.atan() / std::f32::consts::PI;
    assert_near(hits[0].score, 0.5 * normal(2.0) + 0.5 * normal(3.0));
    assert_near(hits[1].score, 0.5 * normal(5.0));
    let dense_only = request.with_ranker(Ranker::Weighted { dense: 1.0, sparse: 0.0 }).with_limit(1);
    let hits = collection.hybrid_search(dense_only).await.expect("a valid search");
    assert_eq!(texts(&hits), ["dense"], "weights count");
    let filtered = HybridSearchRequest::new(unit(0, 1.0), sparse(&[(7, 1.0)]))
        .with_filter(filter("content == 'neither'"))
        .with_output_fields(["content"]);
    let hits = collection.hybrid_search(filtered).await.expect("a valid search");
    assert_eq!(texts(&hits), ["neither"], "the filter applies before the search");
}

pub(super) async fn reciprocal_ranks_are_fused(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    insert_four(&*collection).await;
    let request = HybridSearchRequest::new(unit(0, 1.0), sparse(&[(7, 1.0)]))
        .with_ranker(Ranker::ReciprocalRank { k: 60.0 })
        .with_limit(2);
    let hits = collection.hybrid_search(request).await.expect("a valid search");
    // Second in both lists against first in one.
    assert_eq!(texts(&hits)[0], "both");
    assert!(texts(&hits)[1] == "dense" || !store.capabilities().ordered, "equal scores are ordered by id");
    assert_near(hits[0].score, 2.0 / 62.0);
    assert_near(hits[1].score, 1.0 / 61.0);
}

pub(super) async fn an_offset_skips_the_best_hits_of_a_hybrid_search(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    let entities = (0..20).map(|number: u32| {
        let weights = sparse(&[(number % 3, 1.0 + number as f32)]);
        Entity::new(format!("page {number}"), unit(0, 20.0 - number as f32)).with_sparse(weights)
    });
    insert(&*collection, entities.collect()).await;
    for sparse_vector in [sparse(&[(1, 1.0), (2, 0.5)]), SparseVector::new()] {
        let request = || HybridSearchRequest::new(unit(0, 1.0), sparse_vector.clone());
        let all = collection.hybrid_search(request().with_limit(8)).await.expect("a valid search");
        let rest = request().with_limit(5).with_offset(3);
        let rest = collection.hybrid_search(rest).await.expect("a valid search");
        assert_eq!(all.len(), 8);
        assert_eq!(texts(&rest), texts(&all[3..]), "the first ones are skipped, whatever follows");
        let none = collection.hybrid_search(request().with_offset(100)).await.expect("a valid search");
        assert!(none.is_empty(), "nothing follows the last hit");
    }
    let beyond =
        HybridSearchRequest::new(unit(0, 1.0), sparse(&[(1, 1.0)])).with_limit(16_384).with_offset(1);
    rejected(collection.hybrid_search(beyond).await, "limit and offset together are limited");
}

pub(super) async fn the_order_in_which_dimensions_are_given_means_nothing(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    let pairs = [(900_000, 1.0), (3, 2.0), (70_000, 4.0), (0, 8.0)];
    let from_json: Entity = serde_json::from_value(serde_json::json!({
        "fields": {"content": "read"}, "dense": unit(0, 1.0), "sparse": {"900000": 1.0, "3": 2.0, "70000": 4.0, "0": 8.0},
    }))
    .expect("an entity");
    insert(&*collection, vec![Entity::new("made", unit(0, 1.0)).with_sparse(sparse(&pairs)), from_json])
        .await;
    for (dimension, weight) in pairs {
        let hits = search(&*collection, SearchRequest::new(sparse(&[(dimension, 1.0)]))).await;
        assert_eq!(hits.len(), 2, "both are found by dimension {dimension}");
        hits.iter().for_each(|hit| assert_near(hit.score, weight));
    }
    let hits = search(&*collection, SearchRequest::new(sparse(&[(70_000, 1.0), (0, 1.0)]))).await;
    hits.iter().for_each(|hit| assert_near(hit.score, 12.0));
}

pub(super) async fn sparse_and_hybrid_hits_have_the_chosen_fields(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    insert_four(&*collection).await;
    let whole = search(&*collection, SearchRequest::new(sparse(&[(7, 1.0)]))).await.remove(0);
    assert_eq!(whole.fields.len(), 3, "all fields but vectors: {whole:?}");
    let chosen = SearchRequest::new(sparse(&[(7, 1.0)])).with_output_fields(["content"]);
    let hit = search(&*collection, chosen).await.remove(0);
    assert_eq!((hit.id, hit.fields), (whole.id, Map::from_iter([("content".to_owned(), json!("sparse"))])));
    let hybrid = || HybridSearchRequest::new(unit(0, 1.0), sparse(&[(7, 1.0)])).with_limit(1);
    let whole = collection.hybrid_search(hybrid()).await.expect("a valid search").remove(0);
    assert_eq!(whole.fields.len(), 3, "{whole:?}");
    let chosen = hybrid().with_output_fields(["content"]);
    let hit = collection.hybrid_search(chosen).await.expect("a valid search").remove(0);
    let content = whole.fields["content"].clone();
    assert_eq!((hit.id, hit.fields), (whole.id, Map::from_iter([("content".to_owned(), content)])));
    let unknown = hybrid().with_output_fields(["colour"]);
    rejected(collection.hybrid_search(unknown).await, "unknown output fields are rejected");
}

pub(super) async fn pages_of_sparse_hits_join_to_the_whole(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    let ramp =
        (1..40).map(|i| Entity::new(format!("{i}"), unit(0, 1.0)).with_sparse(sparse(&[(i % 3, i as f32)])));
    insert(&*collection, ramp.collect()).await;
    let request = || SearchRequest::new(sparse(&[(0, 1.0), (1, 1.0)]));
    let mut joined = Vec::new();
    for offset in [0, 10, 20, 30] {
        joined.extend(search(&*collection, request().with_limit(10).with_offset(offset)).await);
    }
    let expected: Vec<_> = (1..40).rev().filter(|i| i % 3 != 2).map(|i| i.to_string()).collect();
    assert_eq!(texts(&joined), expected);
}

pub(super) async fn each_of_several_sparse_query_vectors_has_its_own_page(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    let weights = |i: u32| if i < 9 { (1, 1.0 + i as f32) } else { (2, i as f32) };
    let entities =
        (0..12).map(|i| Entity::new(i.to_string(), unit(0, 1.0)).with_sparse(sparse(&[weights(i)])));
    insert(&*collection, entities.collect()).await;
    let (one, two, none) = (sparse(&[(1, 1.0)]), sparse(&[(2, 1.0)]), SparseVector::new());
    let table = [
        (vec![&one, &two], 7, 2, vec![vec![2.0, 1.0], vec![]]),
        (vec![&two, &one], 2, 3, vec![vec![9.0], vec![7.0, 6.0, 5.0]]),
        (vec![&two, &none, &one], 1, 2, vec![vec![10.0, 9.0], vec![], vec![8.0, 7.0]]),
        (vec![&one, &none], 8, 3, vec![vec![1.0], vec![]]),
        (vec![&one, &two], 20, 3, vec![vec![], vec![]]),
    ];
    for (queries, offset, limit, expected) in table {
        let queries: Vec<_> = queries.into_iter().cloned().collect();
        let request = SearchRequest::new(queries).with_offset(offset).with_limit(limit);
        let found = collection.search_by_vector(request).await.expect("a valid search");
        let scores: Vec<Vec<_>> =
            found.iter().map(|hits| hits.iter().map(|hit| hit.score).collect()).collect();
        assert_eq!(scores, expected, "offset {offset}, limit {limit}");
    }
}

pub(super) async fn every_consistency_level_is_accepted(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    insert_four(&*collection).await;
    for level in [Consistency::Strong, Consistency::Session, Consistency::Bounded, Consistency::Eventually] {
        let request = SearchRequest::new(sparse(&[(7, 1.0)])).with_consistency(level);
        let hits = search(&*collection, request).await;
        let request = HybridSearchRequest::new(unit(0, 1.0), sparse(&[(7, 1.0)])).with_consistency(level);
        let fused = collection.hybrid_search(request).await.expect("a valid search");
        if matches!(level, Consistency::Strong | Consistency::Session) {
            assert_eq!((hits.len(), fused.len()), (2, 3), "{level:?} sees this store's writes");
        }
    }
}

pub(super) async fn invalid_sparse_vectors_are_rejected(store: &dyn VectorStore) {
    let collection = create(store, &pages().hybrid()).await;
    rejected(collection.insert_entity(entity(1)).await, "a hybrid collection needs sparse vectors");
    let invalid: [&[(u32, f32)]; 4] =
        [&[(1, f32::NAN)], &[(1, f32::INFINITY)], &[(1, -1.0)], &[(u32::MAX, 1.0)]];
    for pairs in invalid {
        let promise = "an invalid sparse vector is rejected";
        rejected(collection.insert_entity(entity(1).with_sparse(sparse(pairs))).await, promise);
        rejected(collection.search_by_vector(SearchRequest::new(sparse(pairs))).await, promise);
        rejected(collection.hybrid_search(HybridSearchRequest::new(vector(1), sparse(pairs))).await, promise);
    }
    let request = || HybridSearchRequest::new(vector(1), sparse(&[(1, 1.0)]));
    for ranker in [
        Ranker::Weighted { dense: f32::NAN, sparse: 0.5 },
        Ranker::Weighted { dense: 0.5, sparse: 1.5 },
        Ranker::ReciprocalRank { k: 0.0 },
    ] {
        let result = collection.hybrid_search(request().with_ranker(ranker)).await;
        rejected(result, "parameters of a ranker out of range are rejected");
    }
    let wrong = HybridSearchRequest::new(vec![1.0; DIM + 1], SparseVector::new());
    rejected(collection.hybrid_search(wrong).await, "a wrong dimension is rejected");
    assert_eq!(count(&*collection).await, 0);
}

pub(super) async fn without_sparse_vectors_hybrid_collections_are_unsupported(store: &dyn VectorStore) {
    let result = store.get_or_create_collection(&pages().hybrid()).await;
    failed(result, ErrorKind::Unsupported, "a store without sparse vectors says so");
}
