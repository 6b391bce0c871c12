//! A policy as a decorator over the built-in store: it keeps an audit of what was deleted.

use arshai::{CloseReport, Component, Deadline, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use arshai::backends::vectors::EmbeddedStore;
use arshai::contract::vectors::{Setup, suite};
use arshai::vectors::{
    BulkInsertReport, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridRequest, Progress,
    SearchRequest, VectorCapabilities, VectorStats, VectorStore,
};
use arshai::{Arshai, Config, Health, Registry, Result};
use async_trait::async_trait;

#[derive(Debug)]
struct Audited {
    inner: Arc<dyn VectorStore>,
    deleted: Arc<Mutex<Vec<(String, u64)>>>,
}

#[async_trait]
impl Component for Audited {
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
impl VectorStore for Audited {
    async fn connect(&self) -> Result<()> {
        self.inner.connect().await
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<()> {
        self.inner.get_or_create_collection(config).await
    }

    async fn insert_entities(&self, config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.inner.insert_entities(config, entities).await
    }

    async fn bulk_insert_optimized(
        &self,
        config: &CollectionConfig,
        entities: Vec<Entity>,
        progress: Option<&Progress>,
    ) -> Result<BulkInsertReport> {
        self.inner.bulk_insert_optimized(config, entities, progress).await
    }

    async fn search_by_vector(
        &self,
        config: &CollectionConfig,
        request: SearchRequest,
    ) -> Result<Vec<Vec<Hit>>> {
        self.inner.search_by_vector(config, request).await
    }

    async fn hybrid_search(&self, config: &CollectionConfig, request: HybridRequest) -> Result<Vec<Hit>> {
        self.inner.hybrid_search(config, request).await
    }

    async fn query_by_expr(
        &self,
        config: &CollectionConfig,
        filter: &Filter,
        output_fields: Option<&[String]>,
        limit: Option<usize>,
    ) -> Result<Vec<Hit>> {
        self.inner.query_by_expr(config, filter, output_fields, limit).await
    }

    async fn delete_entity(&self, config: &CollectionConfig, filter: &Filter) -> Result<u64> {
        let deleted = self.inner.delete_entity(config, filter).await?;
        self.deleted.lock().expect("nobody panics with it").push((filter.to_string(), deleted));
        Ok(deleted)
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

#[tokio::test]
async fn a_vector_store_written_outside_keeps_the_contract() {
    suite(|setup: Setup| {
        Arc::new(Audited { inner: Arc::new(EmbeddedStore::new(setup.max_bytes)), deleted: Arc::default() })
    })
    .await;
}

#[tokio::test]
async fn a_vector_store_written_outside_is_chosen_by_name() {
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let audit = Arc::clone(&deleted);
    let mut registry = Registry::builtin();
    registry.vectors.register("audited", move |context| {
        Ok(Arc::new(Audited {
            inner: Arc::new(EmbeddedStore::from_context(context)),
            deleted: Arc::clone(&audit),
        }))
    });
    let config = Config::from_vars([("ARSHAI_VECTOR_BACKEND".into(), "audited".into())]).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    let store = runtime.vectors().expect("registered");
    let collection = CollectionConfig::new("c", 2);
    store.insert_entity(&collection, Entity::new("text", vec![1.0, 0.0])).await.expect("inserted");
    let filter = Filter::parse("content == 'text'").expect("a filter");
    assert_eq!(store.delete_entity(&collection, &filter).await.expect("deleted"), 1);
    assert_eq!(*deleted.lock().expect("nobody panics with it"), [("(content == \"text\")".to_owned(), 1)]);
}
