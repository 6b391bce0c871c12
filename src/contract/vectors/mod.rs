//! The contract of [`VectorStore`] and [`Collection`].
//!
//! A backend author calls [`suite`] from a test, with a factory that makes an empty store from a [`Setup`]:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use arshai::backends::vectors::EmbeddedStore;
//! use arshai::contract::vectors::{self, Setup};
//!
//! vectors::suite(async |setup: Setup| Arc::new(EmbeddedStore::new(setup.max_bytes)) as _).await;
//! # }
//! # #[cfg(not(feature = "embedded"))]
//! # fn main() {}
//! ```
//!
//! Most vectors of the suite have small integers as elements, so that every inner product is exact and ties are real.

mod bulk;
mod differential;
mod filters;
mod inserts;
mod limits;
mod searches;
mod sparse;
mod stores;

use std::fmt::Debug;
use std::sync::Arc;

use serde_json::json;

pub use self::differential::{Agreement, filters_agree};
use crate::vectors::{
    Collection, CollectionConfig, Entity, Filter, Hit, QueryRequest, SearchRequest, SparseVector,
    VectorCapabilities, VectorStore,
};
use crate::{Error, ErrorKind, Outcome, Result};

/// Configuration of a store under test. One without a limit ignores it, as its capabilities say.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Setup {
    /// Maximum number of bytes.
    pub max_bytes: u64,
}

/// Enough for all tests but those of the limit.
const LARGE: u64 = 64 << 20;
const SMALL: u64 = 1 << 20;
const DIM: usize = 8;

/// Runs the whole suite, in a tokio runtime of either kind. `make` must return an empty store each time.
///
/// # Panics
/// Where a store breaks a promise.
pub async fn suite(make: impl AsyncFn(Setup) -> Arc<dyn VectorStore>) {
    let store = async || make(Setup { max_bytes: LARGE }).await;
    stores::only_get_or_create_creates(&*store().await).await;
    stores::invalid_collections_are_rejected(&*store().await).await;
    stores::an_invalid_name_is_no_collection(&*store().await).await;
    stores::a_collection_keeps_its_schema(&*store().await).await;
    stores::collections_share_nothing(&*store().await).await;
    stores::a_handle_to_a_dropped_collection_finds_nothing(&*store().await).await;
    stores::a_closed_store_rejects_everything_and_closes_twice(&*store().await).await;
    inserts::ids_are_unique_and_in_the_order_of_the_entities(&*store().await).await;
    inserts::an_acknowledged_insert_is_found_immediately(&*store().await).await;
    inserts::fields_have_the_types_of_the_collection(&*store().await).await;
    inserts::one_invalid_entity_and_nothing_is_inserted(&*store().await).await;
    inserts::a_missing_text_is_named_as_in_python(&*store().await).await;
    inserts::text_and_metadata_may_have_the_names_of_the_collection(&*store().await).await;
    inserts::a_dropped_insert_is_complete_or_absent(&*store().await).await;
    inserts::inserts_and_searches_run_concurrently(store().await).await;
    searches::hits_are_ordered_by_score_and_then_by_id(&*store().await).await;
    searches::each_query_vector_has_its_own_hits(&*store().await).await;
    searches::a_filter_costs_no_hits(&*store().await).await;
    searches::pages_of_hits_join_to_the_whole(&*store().await).await;
    searches::hits_have_all_fields_but_vectors_unless_chosen(&*store().await).await;
    searches::pages_with_a_filter_join_to_what_matches(&*store().await).await;
    searches::each_of_several_query_vectors_has_its_own_page(&*store().await).await;
    searches::rows_of_a_query_have_the_chosen_fields(&*store().await).await;
    searches::every_metric_scores_and_orders_as_milvus_does(&*store().await).await;
    searches::every_consistency_level_is_accepted(&*store().await).await;
    searches::invalid_requests_are_rejected(&*store().await).await;
    filters::a_query_returns_what_matches(&*store().await).await;
    filters::the_filter_language_means_the_same_everywhere(&*store().await).await;
    filters::values_and_hostile_expressions_are_never_syntax(&*store().await).await;
    filters::what_is_deleted_is_gone_and_the_rest_stays(&*store().await).await;
    filters::a_filter_that_nothing_matches_deletes_nothing(&*store().await).await;
    filters::statistics_count_what_is_there(&*store().await).await;
    bulk::a_bulk_insert_reports_its_progress(&*store().await).await;
    bulk::a_failed_bulk_insert_is_resumed_without_duplicates(&*store().await).await;
    bulk::a_bulk_insert_reads_no_further_than_it_writes(&*store().await).await;
    let capabilities = store().await.capabilities();
    if capabilities.sparse {
        sparse::a_sparse_search_finds_common_dimensions(&*store().await).await;
        sparse::weighted_hybrid_scores_are_normalised(&*store().await).await;
        sparse::reciprocal_ranks_are_fused(&*store().await).await;
        sparse::an_offset_skips_the_best_hits_of_a_hybrid_search(&*store().await).await;
        sparse::the_order_in_which_dimensions_are_given_means_nothing(&*store().await).await;
        sparse::sparse_and_hybrid_hits_have_the_chosen_fields(&*store().await).await;
        sparse::pages_of_sparse_hits_join_to_the_whole(&*store().await).await;
        sparse::each_of_several_sparse_query_vectors_has_its_own_page(&*store().await).await;
        sparse::every_consistency_level_is_accepted(&*store().await).await;
        sparse::invalid_sparse_vectors_are_rejected(&*store().await).await;
    } else {
        sparse::without_sparse_vectors_hybrid_collections_are_unsupported(&*store().await).await;
    }
    if capabilities.bounded {
        let small = async || make(Setup { max_bytes: SMALL }).await;
        limits::a_full_store_rejects_whole_inserts_and_loses_nothing(&*small().await).await;
        limits::collections_spend_the_limit_too(&*small().await).await;
    }
}

fn pages() -> CollectionConfig {
    CollectionConfig::new("pages", DIM)
}

async fn create(store: &dyn VectorStore, config: &CollectionConfig) -> Arc<dyn Collection> {
    store.get_or_create_collection(config).await.expect("a valid configuration")
}

/// Integers from -4 to 4, the same for the same seed.
fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 9) as f32 - 4.0
    };
    (0..DIM).map(|_| next()).collect()
}

fn unit(dimension: usize, length: f32) -> Vec<f32> {
    let mut vector = vec![0.0; DIM];
    vector[dimension] = length;
    vector
}

fn sparse(pairs: &[(u32, f32)]) -> SparseVector {
    pairs.iter().copied().collect()
}

fn entity(number: u64) -> Entity {
    Entity::new(format!("page {number}"), vector(number)).with_metadata(
        json!({"number": number, "even": number.is_multiple_of(2), "source": format!("{}.md", number % 7)}),
    )
}

fn entities(numbers: std::ops::Range<u64>) -> Vec<Entity> {
    numbers.map(entity).collect()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("the suite's filters are valid")
}

fn everything() -> Filter {
    filter("doc_id != ''")
}

fn inner_product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[track_caller]
fn assert_near(score: f32, expected: f32) {
    assert!((score - expected).abs() < 1e-4, "{score} is not {expected}");
}

async fn insert(collection: &dyn Collection, entities: Vec<Entity>) -> Vec<String> {
    collection.insert_entities(entities).await.expect("a valid insert")
}

async fn search(collection: &dyn Collection, request: SearchRequest) -> Vec<Hit> {
    let mut hits = collection.search_by_vector(request).await.expect("a valid search");
    assert_eq!(hits.len(), 1, "one query vector has one list of hits");
    hits.remove(0)
}

async fn query(collection: &dyn Collection, request: QueryRequest) -> Vec<Hit> {
    collection.query_by_expr(request).await.expect("a valid query")
}

/// The entities that match; `None` if the store rejects the filter, which only one without
/// [`all_filters`](VectorCapabilities::all_filters) may do.
async fn query_if_supported(
    store: &dyn VectorStore,
    collection: &dyn Collection,
    filter: Filter,
) -> Option<Vec<Hit>> {
    match collection.query_by_expr(QueryRequest::new(filter.clone())).await {
        Ok(hits) => Some(hits),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{filter}: {error}");
            assert_eq!(error.outcome(), Outcome::NotSent, "{filter}: {error}");
            assert!(!store.capabilities().all_filters, "{filter}: {error}");
            None
        }
    }
}

/// Number of entities, by a query.
async fn count(collection: &dyn Collection) -> u64 {
    query(collection, QueryRequest::new(everything()).with_output_fields(["doc_id"])).await.len() as u64
}

/// Ids in the order of the hits, or sorted where queries have no order.
fn ids(capabilities: VectorCapabilities, hits: &[Hit]) -> Vec<&str> {
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.id.as_str()).collect();
    if !capabilities.ordered {
        ids.sort_unstable();
    }
    ids
}

fn texts(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.fields["content"].as_str().expect("a string")).collect()
}

/// Asserts that an operation was rejected as invalid before anything was sent, and returns the message.
#[track_caller]
fn rejected<T: Debug>(result: Result<T>, promise: &str) -> String {
    let error = failed(result, ErrorKind::InvalidInput, promise);
    assert_eq!(error.outcome(), Outcome::NotSent, "{promise}: {error}");
    error.to_string()
}

#[track_caller]
fn failed<T: Debug>(result: Result<T>, kind: ErrorKind, promise: &str) -> Error {
    let error = result.expect_err(promise);
    assert_eq!(error.kind(), kind, "{promise}: {error}");
    error
}
