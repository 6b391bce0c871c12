//! Vector stores keep the contract.

use std::sync::Arc;

use arshai::backends::vectors::EmbeddedStore;
use arshai::contract::doubles::CountingVectors;
use arshai::contract::vectors::{Setup, filters_agree, suite};
use arshai::vectors::{
    Collection, CollectionConfig, Entity, Filter, SearchRequest, VectorStore, entity_stream,
};
use arshai::{BuildContext, Component, Config, ErrorKind, Registry};
use proptest::prelude::*;
use serde_json::json;

fn embedded(setup: Setup) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::new(setup.max_bytes))
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract() {
    suite(async |setup| embedded(setup) as _).await;
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let next = std::sync::atomic::AtomicU64::new(0);
    suite(async |setup| {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = EmbeddedStore::new(setup.max_bytes);
        Arc::new(store.with_path(folder.path().join(number.to_string()), false)) as _
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_embedded_store_keeps_the_contract_on_many_threads_and_behind_a_decorator() {
    suite(async |setup| Arc::new(CountingVectors::new(embedded(setup))) as _).await;
}

#[tokio::test]
async fn random_filters_select_the_same_rows_in_two_stores() {
    let setup = || EmbeddedStore::new(64 << 20);
    let agreement = filters_agree(&setup(), &setup(), 1, 500).await;
    assert_eq!((agreement.same, agreement.unsupported), (500, 0));
}

#[tokio::test]
async fn calls_are_counted() {
    let store = CountingVectors::new(Arc::new(EmbeddedStore::new(1 << 20)));
    let collection = store.get_or_create_collection(&CollectionConfig::new("c", 1)).await.expect("created");
    let entities = entity_stream([Entity::new("text", vec![1.0])]);
    let report = collection.bulk_insert_optimized(entities, Default::default()).await;
    assert!(report.is_complete());
    collection.search_by_vector(SearchRequest::new(vec![1.0])).await.expect("found");
    let calls = store.calls();
    assert_eq!((calls.insert, calls.search, calls.query, calls.delete), (1, 1, 0, 0));
}

#[test]
fn the_embedded_store_is_registered_by_name() {
    let context = BuildContext::new(Config::default());
    let store = Registry::builtin().vectors.build(EmbeddedStore::NAME, &context).expect("registered");
    assert!(store.capabilities().bounded);
    let limit = store.limits()[0].limit;
    assert_eq!(limit, Some(context.config.vectors.max_memory_mb << 20), "the limit is the configuration's");
}

#[derive(Debug, Clone)]
enum Operation {
    Insert { collection: usize, entities: Vec<(i32, [i8; 3], usize)> },
    Delete { collection: usize, below: i32 },
    Search { collection: usize, query: [i8; 3], at_least: i32, limit: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let vector = prop::array::uniform3(-3_i8..=3);
    let entities = prop::collection::vec((0..100, vector.clone(), 0_usize..400), 0..40);
    prop_oneof![
        3 => (0_usize..2, entities).prop_map(|(collection, entities)| Operation::Insert { collection, entities }),
        1 => (0_usize..2, 0..120).prop_map(|(collection, below)| Operation::Delete { collection, below }),
        2 => (0_usize..2, vector, 0..100, 1_usize..20).prop_map(|(collection, query, at_least, limit)| {
            Operation::Search { collection, query, at_least, limit }
        }),
    ]
}

/// Id, rank and vector of every entity.
type Model = Vec<(String, i32, Vec<f32>)>;

fn floats(vector: [i8; 3]) -> Vec<f32> {
    vector.map(f32::from).to_vec()
}

async fn insert(collection: &dyn Collection, model: &mut Model, entities: &[(i32, [i8; 3], usize)]) {
    let entity = |(rank, vector, length): &(i32, [i8; 3], usize)| {
        Entity::new("x".repeat(*length), floats(*vector))
            .with_metadata(json!({"rank": rank, "tags": ["a", {"b": 1}]}))
    };
    match collection.insert_entities(entities.iter().map(entity).collect()).await {
        Ok(ids) => {
            model.extend(ids.into_iter().zip(entities).map(|(id, (rank, v, _))| (id, *rank, floats(*v))));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Capacity, "{error}"),
    }
}

fn expected(model: &Model, query: &[f32], at_least: i32, limit: usize) -> Vec<(String, f32)> {
    let score = |vector: &[f32]| vector.iter().zip(query).map(|(x, y)| x * y).sum::<f32>();
    let matching = model.iter().filter(|(_, rank, _)| *rank >= at_least);
    let mut hits: Vec<_> = matching.map(|(id, _, vector)| (id.clone(), score(vector))).collect();
    hits.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("finite").then(a.0.cmp(&b.0)));
    hits.truncate(limit);
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_limit_holds_and_results_are_exact_under_random_operations(
        operations in prop::collection::vec(operation(), 1..60),
        max_bytes in 1_u64..200_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = EmbeddedStore::new(max_bytes);
            let (mut collections, mut models) = (Vec::new(), [Model::new(), Model::new()]);
            for name in ["first", "second"] {
                match store.get_or_create_collection(&CollectionConfig::new(name, 3)).await {
                    Ok(collection) => collections.push(collection),
                    // The limit does not even allow for empty collections.
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::Capacity, "{error}"),
                }
            }
            for operation in operations {
                run(&collections, &mut models, operation).await;
                check(&store, &collections, &models, max_bytes).await;
            }
        });
    }
}

async fn run(collections: &[Arc<dyn Collection>], models: &mut [Model; 2], operation: Operation) {
    match operation {
        Operation::Insert { collection, entities } => {
            insert(&*collections[collection], &mut models[collection], &entities).await;
        }
        Operation::Delete { collection, below } => {
            let filter = Filter::with_params("metadata['rank'] < {rank}", [("rank", json!(below))]);
            let deleted =
                collections[collection].delete_entity(&filter.expect("valid")).await.expect("deleted");
            let before = models[collection].len();
            models[collection].retain(|(_, rank, _)| *rank >= below);
            assert_eq!(deleted as usize, before - models[collection].len());
        }
        Operation::Search { collection, query, at_least, limit } => {
            let filter = Filter::parse(&format!("metadata['rank'] >= {at_least}")).expect("valid");
            let request = SearchRequest::new(floats(query)).with_filter(filter).with_limit(limit);
            let hits = collections[collection].search_by_vector(request).await.expect("a valid search");
            let found: Vec<_> = hits[0].iter().map(|hit| (hit.id.clone(), hit.score)).collect();
            assert_eq!(found, expected(&models[collection], &floats(query), at_least, limit));
        }
    }
}

/// The limit holds and the statistics are exact.
async fn check(
    store: &EmbeddedStore,
    collections: &[Arc<dyn Collection>],
    models: &[Model; 2],
    max_bytes: u64,
) {
    let stats = store.stats();
    assert_eq!(stats.entities, models.iter().map(|model| model.len() as u64).sum::<u64>());
    let budget = &store.limits()[0];
    assert!(budget.peak <= max_bytes && budget.used == stats.bytes, "{budget:?}");
    let mut bytes = 0;
    for (collection, model) in collections.iter().zip(models) {
        let stats = collection.get_collection_stats().await.expect("statistics");
        assert_eq!(stats.num_entities, model.len() as u64);
        bytes += stats.bytes.expect("the embedded store knows it");
    }
    assert_eq!(bytes, stats.bytes, "the whole is the sum of its parts");
}
