//! Test doubles for vector storage.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;

use crate::vectors::{
    BulkInsertOptions, BulkInsertReport, Collection, CollectionConfig, CollectionStats, Entity, EntityStream,
    Filter, Hit, HybridSearchRequest, QueryRequest, SearchRequest, VectorCapabilities, VectorStats,
    VectorStore,
};
use crate::{CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase};

/// A store that is unreachable: every operation fails with the given kind, and it is unhealthy.
#[derive(Debug, Clone, Copy)]
pub struct FailingVectors {
    kind: ErrorKind,
}

impl FailingVectors {
    /// A store whose every operation fails with `kind`.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self { kind }
    }

    fn error<T>(self) -> Result<T> {
        Err(Error::new(self.kind, "vectors.failing", "this test double always fails"))
    }
}

#[async_trait]
impl Component for FailingVectors {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("vectors")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::unhealthy("this test double always fails")
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl VectorStore for FailingVectors {
    async fn connect(&self) -> Result<()> {
        self.error()
    }

    async fn get_or_create_collection(&self, _: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        self.error()
    }

    async fn get_collection(&self, _: &str) -> Result<Arc<dyn Collection>> {
        self.error()
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        self.error()
    }

    async fn drop_collection(&self, _: &str) -> Result<()> {
        self.error()
    }

    fn capabilities(&self) -> VectorCapabilities {
        VectorCapabilities::default()
    }

    fn stats(&self) -> VectorStats {
        VectorStats::default()
    }
}

/// Number of calls of each kind to the collections of a [`CountingVectors`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorCalls {
    /// Calls of `insert_entity`, `insert_entities` and `bulk_insert_optimized`.
    pub insert: u64,
    /// Calls of `search_by_vector` and `hybrid_search`.
    pub search: u64,
    /// Calls of `query_by_expr`.
    pub query: u64,
    /// Calls of `delete_entity`.
    pub delete: u64,
}

#[derive(Debug, Default)]
struct Counters {
    insert: AtomicU64,
    search: AtomicU64,
    query: AtomicU64,
    delete: AtomicU64,
}

/// Forwards every operation to another store and counts the calls.
#[derive(Debug)]
pub struct CountingVectors {
    inner: Arc<dyn VectorStore>,
    counters: Arc<Counters>,
}

impl CountingVectors {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn VectorStore>) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The calls so far, failed ones included.
    #[must_use]
    pub fn calls(&self) -> VectorCalls {
        VectorCalls {
            insert: self.counters.insert.load(SeqCst),
            search: self.counters.search.load(SeqCst),
            query: self.counters.query.load(SeqCst),
            delete: self.counters.delete.load(SeqCst),
        }
    }

    fn counted(&self, inner: Arc<dyn Collection>) -> Arc<dyn Collection> {
        Arc::new(CountingCollection { inner, counters: Arc::clone(&self.counters) })
    }
}

delegate_component!(CountingVectors);

#[async_trait]
impl VectorStore for CountingVectors {
    async fn connect(&self) -> Result<()> {
        self.inner.connect().await
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        Ok(self.counted(self.inner.get_or_create_collection(config).await?))
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        Ok(self.counted(self.inner.get_collection(name).await?))
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        self.inner.list_collections().await
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        self.inner.drop_collection(name).await
    }

    fn capabilities(&self) -> VectorCapabilities {
        self.inner.capabilities()
    }

    fn stats(&self) -> VectorStats {
        self.inner.stats()
    }
}

#[derive(Debug)]
struct CountingCollection {
    inner: Arc<dyn Collection>,
    counters: Arc<Counters>,
}

#[async_trait]
impl Collection for CountingCollection {
    fn config(&self) -> &CollectionConfig {
        self.inner.config()
    }

    async fn insert_entity(&self, entity: Entity) -> Result<String> {
        self.counters.insert.fetch_add(1, SeqCst);
        self.inner.insert_entity(entity).await
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.counters.insert.fetch_add(1, SeqCst);
        self.inner.insert_entities(entities).await
    }

    async fn bulk_insert_optimized(
        &self,
        entities: EntityStream<'_>,
        options: BulkInsertOptions<'_>,
    ) -> BulkInsertReport {
        self.counters.insert.fetch_add(1, SeqCst);
        self.inner.bulk_insert_optimized(entities, options).await
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.counters.search.fetch_add(1, SeqCst);
        self.inner.search_by_vector(request).await
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.counters.search.fetch_add(1, SeqCst);
        self.inner.hybrid_search(request).await
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.counters.query.fetch_add(1, SeqCst);
        self.inner.query_by_expr(request).await
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        self.counters.delete.fetch_add(1, SeqCst);
        self.inner.delete_entity(filter).await
    }

    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.inner.get_collection_stats().await
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }
}
