//! Doubles for vector storage.

use crate::{CloseReport, Component, Deadline, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;

use crate::vectors::{
    BulkInsertReport, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridRequest, Progress,
    SearchRequest, VectorCapabilities, VectorStats, VectorStore,
};
use crate::{Error, ErrorKind, Health, Result};

/// A store that cannot be reached: every operation fails with the kind it was made with, and it is unhealthy.
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

    fn failure<T>(self) -> Result<T> {
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
        self.failure()
    }

    async fn get_or_create_collection(&self, _config: &CollectionConfig) -> Result<()> {
        self.failure()
    }

    async fn insert_entities(
        &self,
        _config: &CollectionConfig,
        _entities: Vec<Entity>,
    ) -> Result<Vec<String>> {
        self.failure()
    }

    async fn bulk_insert_optimized(
        &self,
        _config: &CollectionConfig,
        _entities: Vec<Entity>,
        _progress: Option<&Progress>,
    ) -> Result<BulkInsertReport> {
        self.failure()
    }

    async fn search_by_vector(
        &self,
        _config: &CollectionConfig,
        _request: SearchRequest,
    ) -> Result<Vec<Vec<Hit>>> {
        self.failure()
    }

    async fn hybrid_search(&self, _config: &CollectionConfig, _request: HybridRequest) -> Result<Vec<Hit>> {
        self.failure()
    }

    async fn query_by_expr(
        &self,
        _config: &CollectionConfig,
        _filter: &Filter,
        _output_fields: Option<&[String]>,
        _limit: Option<usize>,
    ) -> Result<Vec<Hit>> {
        self.failure()
    }

    async fn delete_entity(&self, _config: &CollectionConfig, _filter: &Filter) -> Result<u64> {
        self.failure()
    }

    async fn get_collection_stats(&self, _config: &CollectionConfig) -> Result<CollectionStats> {
        self.failure()
    }

    fn stats(&self) -> VectorStats {
        VectorStats::default()
    }

    fn capabilities(&self) -> VectorCapabilities {
        VectorCapabilities::default()
    }
}

/// How often each sort of operation of a [`CountingVectors`] was called.
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

/// Passes every operation on to another store and counts the calls.
#[derive(Debug)]
pub struct CountingVectors {
    inner: Arc<dyn VectorStore>,
    insert: AtomicU64,
    search: AtomicU64,
    query: AtomicU64,
    delete: AtomicU64,
}

impl CountingVectors {
    /// Counts the calls to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn VectorStore>) -> Self {
        Self { inner, insert: 0.into(), search: 0.into(), query: 0.into(), delete: 0.into() }
    }

    /// The calls so far, those that failed included.
    #[must_use]
    pub fn calls(&self) -> VectorCalls {
        VectorCalls {
            insert: self.insert.load(SeqCst),
            search: self.search.load(SeqCst),
            query: self.query.load(SeqCst),
            delete: self.delete.load(SeqCst),
        }
    }
}

#[async_trait]
impl Component for CountingVectors {
    fn name(&self) -> Cow<'_, str> {
        self.inner.name()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        self.inner.shutdown_phase()
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.inner.limits()
    }

    fn counters(&self) -> Value {
        self.inner.counters()
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.inner.health(deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.inner.set_limit(key, max)
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.inner.close(deadline).await
    }
}

#[async_trait]
impl VectorStore for CountingVectors {
    async fn connect(&self) -> Result<()> {
        self.inner.connect().await
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<()> {
        self.inner.get_or_create_collection(config).await
    }

    async fn insert_entity(&self, config: &CollectionConfig, entity: Entity) -> Result<String> {
        self.insert.fetch_add(1, SeqCst);
        self.inner.insert_entity(config, entity).await
    }

    async fn insert_entities(&self, config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.insert.fetch_add(1, SeqCst);
        self.inner.insert_entities(config, entities).await
    }

    async fn bulk_insert_optimized(
        &self,
        config: &CollectionConfig,
        entities: Vec<Entity>,
        progress: Option<&Progress>,
    ) -> Result<BulkInsertReport> {
        self.insert.fetch_add(1, SeqCst);
        self.inner.bulk_insert_optimized(config, entities, progress).await
    }

    async fn search_by_vector(
        &self,
        config: &CollectionConfig,
        request: SearchRequest,
    ) -> Result<Vec<Vec<Hit>>> {
        self.search.fetch_add(1, SeqCst);
        self.inner.search_by_vector(config, request).await
    }

    async fn hybrid_search(&self, config: &CollectionConfig, request: HybridRequest) -> Result<Vec<Hit>> {
        self.search.fetch_add(1, SeqCst);
        self.inner.hybrid_search(config, request).await
    }

    async fn query_by_expr(
        &self,
        config: &CollectionConfig,
        filter: &Filter,
        output_fields: Option<&[String]>,
        limit: Option<usize>,
    ) -> Result<Vec<Hit>> {
        self.query.fetch_add(1, SeqCst);
        self.inner.query_by_expr(config, filter, output_fields, limit).await
    }

    async fn delete_entity(&self, config: &CollectionConfig, filter: &Filter) -> Result<u64> {
        self.delete.fetch_add(1, SeqCst);
        self.inner.delete_entity(config, filter).await
    }

    async fn get_collection_stats(&self, config: &CollectionConfig) -> Result<CollectionStats> {
        self.inner.get_collection_stats(config).await
    }

    fn stats(&self) -> VectorStats {
        self.inner.stats()
    }

    fn capabilities(&self) -> VectorCapabilities {
        self.inner.capabilities()
    }
}
