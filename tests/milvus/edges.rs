//! The edges of what the guide allows: the same answers as from the embedded store.

use std::fmt::Debug;
use std::sync::Arc;

use arshai::backends::vectors::{EmbeddedStore, MilvusStore};
use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Entity, FieldType, Filter, Hit, HybridSearchRequest,
    Metric, QueryRequest, SearchRequest, SparseVector, VectorStore, entity_stream,
};
use arshai::{ErrorKind, Result};
use arshai_test_support::MilvusServer;
use serde_json::{Value, json};

use super::{config, everything, store};

/// The same collection here and on the server.
type Both = [Arc<dyn Collection>; 2];

async fn create(stores: [&dyn VectorStore; 2], config: &CollectionConfig) -> Both {
    let here = stores[0].get_or_create_collection(config).await.expect("created");
    [here, stores[1].get_or_create_collection(config).await.expect("created")]
}

/// What both answer, or the kind of both errors.
async fn same<T: PartialEq + Debug>(
    both: &Both,
    what: &str,
    ask: impl AsyncFn(&dyn Collection) -> Result<T>,
) -> Result<T, ErrorKind> {
    let here = ask(&*both[0]).await.map_err(|error| error.kind());
    let there = ask(&*both[1]).await;
    let shown = format!("{there:?}");
    assert_eq!(here, there.map_err(|error| error.kind()), "{what}: {shown:.500}");
    here
}

async fn insert(both: &Both, what: &str, entities: Vec<Entity>) -> Result<usize, ErrorKind> {
    same(both, what, async |collection| Ok(collection.insert_entities(entities.clone()).await?.len())).await
}

/// Hits without their ids, which every store assigns by itself; scores as they are told apart.
fn shown(hits: Vec<Hit>) -> Vec<(i64, Value)> {
    let mut shown: Vec<_> = hits
        .into_iter()
        .map(|mut hit| {
            hit.fields.remove("doc_id");
            ((f64::from(hit.score) * 1e3).round() as i64, Value::Object(hit.fields))
        })
        .collect();
    shown.sort_by_key(|(score, fields)| (*score, fields.to_string()));
    shown
}

async fn rows(both: &Both, what: &str, filter: &str) -> Vec<(i64, Value)> {
    let filter = Filter::parse(filter).expect(filter);
    let query = async |collection: &dyn Collection| {
        Ok(shown(collection.query_by_expr(QueryRequest::new(filter.clone())).await?))
    };
    same(both, what, query).await.expect(what)
}

async fn found(both: &Both, what: &str, request: SearchRequest) -> Vec<Vec<(i64, Value)>> {
    let search = async |collection: &dyn Collection| {
        Ok(collection.search_by_vector(request.clone()).await?.into_iter().map(shown).collect())
    };
    same(both, what, search).await.expect(what)
}

async fn every_edge(server: &mut MilvusServer) {
    let embedded = EmbeddedStore::new(256 << 20);
    let there = store(config(server));
    let stores: [&dyn VectorStore; 2] = [&embedded, &there];
    an_empty_collection_answers_nothing(stores).await;
    texts_and_metadata_come_back_as_they_were(stores).await;
    the_smallest_and_the_largest_collection(stores).await;
    one_dimension_works_or_leaves_nothing_behind(&there).await;
    zeros_and_tiny_vectors_have_scores(stores).await;
    chosen_fields_may_be_none_or_given_twice(stores).await;
    large_entities_pass_in_bulk(stores).await;
    there.connect().await.expect("connected");
    if there.capabilities().sparse {
        sparse_vectors_may_be_empty_or_zero(stores).await;
    }
    assert!(server.runs(), "it has survived everything");
}

async fn an_empty_collection_answers_nothing(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("empty", 4)).await;
    let vector = vec![1.0, 0.0, 0.0, 0.0];
    assert!(found(&both, "search", SearchRequest::new(vector.clone())).await[0].is_empty());
    let offset = SearchRequest::new(vector).with_limit(16_000).with_offset(384);
    assert!(found(&both, "offset", offset).await[0].is_empty());
    assert!(found(&both, "no vectors", SearchRequest::new(Vec::<Vec<f32>>::new())).await.is_empty());
    assert!(rows(&both, "query", "doc_id != ''").await.is_empty());
    let all = Filter::parse("doc_id != ''").expect("valid");
    assert_eq!(same(&both, "delete", async |collection| collection.delete_entity(&all).await).await, Ok(0));
    let count = async |collection: &dyn Collection| Ok(collection.get_collection_stats().await?.num_entities);
    assert_eq!(same(&both, "count", count).await, Ok(0));
}

async fn texts_and_metadata_come_back_as_they_were(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("texts", 2)).await;
    let texts = [
        "",
        " ",
        "\0",
        "a\0b",
        "🦀 ä \u{202e}",
        "\u{ffff}",
        "\"'\\\n\t",
        "{{x}}",
        "$meta",
        &"é".repeat(32_767),
    ];
    let values = [
        json!({}),
        json!({"null": null, "in": {"null": [null]}}),
        json!({"": 1, "0": 2, "ä\"'\\": 3, "$meta": 4, "a.b": 5}),
        json!({"n": [0, -1, i64::MAX, i64::MIN, u64::MAX, 1.5, -0.0, 1e300, 5e-324, 9_007_199_254_740_993_i64]}),
        json!({"deep": (0..90).fold(json!(1), |inner, _| json!([inner]))}),
        json!({"text": "x".repeat(65_000)}),
        json!({"escaped": "\u{1}".repeat(10_000)}),
    ];
    for (at, text) in texts.iter().enumerate() {
        let entity = Entity::new(*text, vec![at as f32, 1.0]).with_metadata(json!({"at": at}));
        assert_eq!(insert(&both, text, vec![entity]).await, Ok(1));
    }
    for (at, value) in values.iter().enumerate() {
        let entity = Entity::new(format!("value {at}"), vec![1.0, 1.0]).with_metadata(value.clone());
        let what = &value.to_string()[..value.to_string().len().min(60)];
        assert_eq!(insert(&both, what, vec![entity]).await, Ok(1));
    }
    assert_eq!(rows(&both, "everything", "doc_id != ''").await.len(), texts.len() + values.len());
}

async fn the_smallest_and_the_largest_collection(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("c".repeat(255), 2)).await;
    assert_eq!(insert(&both, "two dimensions", vec![Entity::new("two", vec![2.0, 0.0])]).await, Ok(1));
    assert_eq!(found(&both, "two dimensions", SearchRequest::new(vec![3.0, 0.0])).await[0].len(), 1);
    let mut config = CollectionConfig::new("wide", 32_768);
    for number in 0..60 {
        config = config.with_field(format!("{}{number}", "f".repeat(253)), FieldType::Int64);
    }
    let both = create(stores, &config).await;
    let mut entity = Entity::new("wide", vec![0.5; 32_768]);
    for field in &config.extra_fields {
        entity = entity.with_field(field.name.clone(), i64::MAX);
    }
    assert_eq!(insert(&both, "64 fields", vec![entity]).await, Ok(1));
    assert_eq!(found(&both, "32 768 dimensions", SearchRequest::new(vec![0.5; 32_768])).await[0].len(), 1);
}

/// The small engine wants two.
async fn one_dimension_works_or_leaves_nothing_behind(there: &MilvusStore) {
    let config = CollectionConfig::new("one", 1);
    match there.get_or_create_collection(&config).await {
        Ok(one) => {
            one.insert_entity(Entity::new("one", vec![2.0])).await.expect("inserted");
            assert_eq!(
                one.search_by_vector(SearchRequest::new(vec![3.0])).await.expect("found")[0][0].score,
                6.0
            );
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::BadRequest, "{error}");
            assert!(error.to_string().contains("dimension"), "{error}");
            let collections = there.list_collections().await.expect("listed");
            assert!(!collections.contains(&config.collection_name), "{collections:?}");
        }
    }
}

/// But for a cosine: zeros have no direction, and the servers answer differently (docs/vectors.md).
async fn zeros_and_tiny_vectors_have_scores(stores: [&dyn VectorStore; 2]) {
    for metric in [Metric::InnerProduct, Metric::Cosine, Metric::L2] {
        let config = CollectionConfig::new(format!("zeros_{metric:?}"), 2).with_metric(metric);
        let both = create(stores, &config).await;
        let (least, tiny) = if metric == Metric::Cosine { (1.0, 1e-15) } else { (0.0, 1e-30) };
        let entities = vec![Entity::new("least", vec![least; 2]), Entity::new("one", vec![1.0, 0.0])];
        assert_eq!(insert(&both, "zeros", entities).await, Ok(2));
        for query in [vec![least; 2], vec![0.0, 1.0], vec![tiny; 2]] {
            let what = format!("{metric:?} {query:?}");
            assert_eq!(found(&both, &what, SearchRequest::new(query)).await[0].len(), 2, "{what}");
        }
    }
}

async fn chosen_fields_may_be_none_or_given_twice(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("chosen", 2)).await;
    assert_eq!(insert(&both, "one", vec![Entity::new("one", vec![1.0, 0.0])]).await, Ok(1));
    for fields in [vec![], vec!["content", "content"], vec!["metadata"]] {
        let request = SearchRequest::new(vec![1.0, 0.0]).with_output_fields(fields.clone());
        found(&both, &format!("{fields:?}"), request).await;
        let query = async |collection: &dyn Collection| {
            let request = everything().with_output_fields(fields.clone());
            Ok(shown(collection.query_by_expr(request).await?))
        };
        same(&both, &format!("{fields:?}"), query).await.expect("valid");
    }
}

/// Texts that grow sixfold when they are written as JSON, and the largest entity of a few fields.
async fn large_entities_pass_in_bulk(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("large", 2).with_field("more", FieldType::Json)).await;
    let entity = |number: u64| {
        let control = json!({"number": number, "text": "\u{1}".repeat(10_500)});
        Entity::new("\0".repeat(65_535), vec![1.0, 0.0])
            .with_metadata(control.clone())
            .with_field("more", control)
    };
    let bulk = async |collection: &dyn Collection| {
        let stream = entity_stream((0..200).map(entity));
        let report =
            collection.bulk_insert_optimized(stream, BulkInsertOptions::default()).await.into_result()?;
        Ok(report.written_count())
    };
    assert_eq!(same(&both, "bulk", bulk).await, Ok(200));
}

async fn sparse_vectors_may_be_empty_or_zero(stores: [&dyn VectorStore; 2]) {
    let both = create(stores, &CollectionConfig::new("sparse", 2).hybrid()).await;
    let vectors: [SparseVector; 4] =
        [[].into(), [(1, 0.0)].into(), [(0, 1.0), (u32::MAX - 1, 2.0)].into(), [(1, 1e-30)].into()];
    for vector in &vectors {
        let entity = Entity::new(format!("{vector:?}"), vec![1.0, 0.0]).with_sparse(vector.clone());
        assert_eq!(insert(&both, &format!("{vector:?}"), vec![entity]).await, Ok(1));
    }
    for vector in &vectors {
        let what = format!("{vector:?}");
        found(&both, &what, SearchRequest::new(vector.clone()).with_limit(10)).await;
        let hybrid = async |collection: &dyn Collection| {
            let request = HybridSearchRequest::new(vec![1.0, 0.0], vector.clone()).with_limit(10);
            Ok(shown(collection.hybrid_search(request).await?))
        };
        same(&both, &what, hybrid).await.expect("valid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_engine_answers_at_the_edges_as_the_embedded_store_does() {
    every_edge(&mut MilvusServer::small()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_full_server_answers_at_the_edges_as_the_embedded_store_does() {
    every_edge(&mut MilvusServer::full()).await;
}
