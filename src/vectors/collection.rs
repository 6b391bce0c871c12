//! The backend trait of collections.

use std::fmt;

use async_trait::async_trait;
use serde::Serialize;

use super::bulk::{BatchLimits, insert_in_batches};
use super::{
    BulkInsertOptions, BulkInsertReport, CollectionConfig, Entity, EntityStream, Filter, Hit,
    HybridSearchRequest, QueryRequest, SearchRequest,
};
use crate::error::{Error, ErrorKind, Result};

/// Entities with their vectors: inserts, searches and deletes them.
///
/// # Contract
/// - **Insert** is all or nothing per call: one invalid entity, or a full store, and nothing of it is inserted. The
///   store assigns the ids: unique, never reused, at most 100 bytes, returned in the order of the entities. With
///   [`ordered`](super::VectorCapabilities::ordered) they ascend in the order of insertion.
/// - **Consistency.** A request sees every write that was acknowledged before it, as far as its
///   [`Consistency`](super::Consistency) says.
/// - **Search** returns the best hits first: highest score, or lowest distance with
///   [`Metric::L2`](super::Metric::L2); with [`ordered`](super::VectorCapabilities::ordered), equal scores by ascending
///   id. Scores of an inner product, a cosine and a squared Euclidean distance are Milvus's. A
///   sparse search finds only entities with a score above 0. Filters apply before the search: with enough matching
///   entities there are always `limit` hits.
/// - **Hybrid search** searches each vector for its best `offset + limit` entities, merges both lists with the request's
///   [`Ranker`](super::Ranker), as Milvus does, and skips the best `offset`.
/// - **Delete** takes a filter; there is no empty filter. One that matches everything deletes everything.
/// - **Filters** select the same entities everywhere. One that the backend cannot evaluate exactly is `Unsupported`, and
///   nothing is sent; with [`all_filters`](super::VectorCapabilities::all_filters) there is none.
/// - **Validation.** Requests that [`validation`](super::validation) rejects fail with `InvalidInput`; nothing is sent.
/// - **Cancellation.** Dropping a future aborts a search. A dropped insert or delete is done completely or not at all
///   with [`atomic_writes`](super::VectorCapabilities::atomic_writes); a dropped bulk insert may stop between batches.
#[async_trait]
pub trait Collection: fmt::Debug + Send + Sync + 'static {
    /// The configuration it was created with, or the equivalent one of the collection that existed.
    fn config(&self) -> &CollectionConfig;

    /// Inserts one entity and returns its id.
    ///
    /// # Errors
    /// As [`insert_entities`](Self::insert_entities).
    #[doc(alias = "insert_entity_async")]
    async fn insert_entity(&self, entity: Entity) -> Result<String> {
        let ids = self.insert_entities(vec![entity]).await?;
        ids.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Internal, "vectors", "backend returned no id for the inserted entity")
        })
    }

    /// Inserts entities, all or none, and returns their ids in order.
    ///
    /// # Errors
    /// `InvalidInput` with the index of the first invalid entity, `Capacity` when the store is full.
    #[doc(alias = "insert_entities_async")]
    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>>;

    /// Inserts a stream of entities in batches, with bounded memory. The first batch that fails ends it; the report
    /// says what was written, and [`BulkInsertOptions::resuming`] continues from it.
    ///
    /// The default implementation is [`insert_in_batches`] over [`insert_entities`](Self::insert_entities), one batch
    /// after the other.
    #[doc(alias = "bulk_insert_optimized_async")]
    async fn bulk_insert_optimized(
        &self,
        entities: EntityStream<'_>,
        options: BulkInsertOptions<'_>,
    ) -> BulkInsertReport {
        let insert = |batch| self.insert_entities(batch);
        insert_in_batches(entities, options, BatchLimits::default(), insert, || self.flush()).await
    }

    /// The nearest entities of each query vector: one list of hits per query vector, in their order.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid request, `Unsupported` for sparse vectors where the backend has none.
    #[doc(alias = "search_by_vector_async")]
    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>>;

    /// The nearest entities of a dense and a sparse vector together.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid request or a collection that is not hybrid.
    #[doc(alias = "hybrid_search_async")]
    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>>;

    /// The entities that match a filter, without their vectors; in ascending order of their ids with
    /// [`ordered`](super::VectorCapabilities::ordered).
    ///
    /// # Errors
    /// `InvalidInput` for an invalid request.
    #[doc(alias = "query_by_expr_async")]
    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>>;

    /// Deletes the entities that match a filter and returns their number.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown field.
    #[doc(alias = "delete_entity_async")]
    async fn delete_entity(&self, filter: &Filter) -> Result<u64>;

    /// Size of the collection; exact with [`exact_counts`](super::VectorCapabilities::exact_counts).
    ///
    /// # Errors
    /// Errors of the backend.
    async fn get_collection_stats(&self) -> Result<CollectionStats>;

    /// Makes everything inserted so far durable, as far as the backend is.
    ///
    /// # Errors
    /// Errors of the backend.
    async fn flush(&self) -> Result<()>;
}

/// Size of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionStats {
    /// Name of the collection.
    pub name: String,
    /// Number of entities.
    pub num_entities: u64,
    /// Size in bytes, where the backend knows it.
    pub bytes: Option<u64>,
}

impl CollectionStats {
    /// Statistics of a collection.
    #[must_use]
    pub fn new(name: impl Into<String>, num_entities: u64, bytes: Option<u64>) -> Self {
        Self { name: name.into(), num_entities, bytes }
    }
}
