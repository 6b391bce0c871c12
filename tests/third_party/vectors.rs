//! A vector store written from scratch with the public API: a list of rows behind a lock, searched one by one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arshai::contract::vectors::suite;
use arshai::support::counters;
use arshai::vectors::{
    Collection, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridSearchRequest, Metric,
    QueryRequest, QueryVectors, SearchRequest, SparseVector, VectorCapabilities, VectorStats, VectorStore,
    validation,
};
use arshai::{
    Arshai, CloseReport, Component, Config, Deadline, Error, ErrorKind, Health, LimitUsage, Registry, Result,
    ShutdownPhase,
};
use async_trait::async_trait;
use serde_json::Value;

#[derive(Debug, Default)]
struct ListStore {
    collections: Mutex<BTreeMap<String, Arc<ListCollection>>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    closed: AtomicBool,
    next_id: AtomicU64,
    searches: AtomicU64,
}

#[derive(Debug)]
struct ListCollection {
    config: CollectionConfig,
    rows: Mutex<Vec<(String, Entity)>>,
    dropped: AtomicBool,
    counters: Arc<Counters>,
}

fn error(kind: ErrorKind, message: &'static str) -> Error {
    Error::new(kind, "vectors.list", message).not_sent()
}

impl ListStore {
    fn check_open(&self) -> Result<()> {
        if self.counters.closed.load(Ordering::SeqCst) {
            return Err(error(ErrorKind::Closed, "store is closed"));
        }
        Ok(())
    }
}

#[async_trait]
impl Component for ListStore {
    fn name(&self) -> Cow<'_, str> {
        "vectors".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    fn counters(&self) -> Value {
        counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.counters.closed.store(true, Ordering::SeqCst);
        CloseReport::idle()
    }
}

#[async_trait]
impl VectorStore for ListStore {
    async fn connect(&self) -> Result<()> {
        self.check_open()
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        self.check_open()?;
        validation::check_config(config)?;
        let mut collections = self.collections.lock().expect("not poisoned");
        if let Some(existing) = collections.get(&config.collection_name) {
            validation::check_same_schema(&existing.config, config)?;
            return Ok(existing.clone());
        }
        let created = Arc::new(ListCollection {
            config: config.clone(),
            rows: Mutex::default(),
            dropped: AtomicBool::new(false),
            counters: Arc::clone(&self.counters),
        });
        collections.insert(config.collection_name.clone(), created.clone());
        Ok(created)
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        self.check_open()?;
        match self.collections.lock().expect("not poisoned").get(name) {
            Some(collection) => Ok(collection.clone()),
            None => Err(error(ErrorKind::NotFound, "collection does not exist")),
        }
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        self.check_open()?;
        Ok(self.collections.lock().expect("not poisoned").keys().cloned().collect())
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        self.check_open()?;
        match self.collections.lock().expect("not poisoned").remove(name) {
            Some(collection) => collection.dropped.store(true, Ordering::SeqCst),
            None => return Err(error(ErrorKind::NotFound, "collection does not exist")),
        }
        Ok(())
    }

    fn capabilities(&self) -> VectorCapabilities {
        let mut capabilities = VectorCapabilities::default();
        capabilities.exact = true;
        capabilities.sparse = true;
        capabilities.ordered = true;
        capabilities.exact_counts = true;
        capabilities.atomic_writes = true;
        capabilities
    }

    fn stats(&self) -> VectorStats {
        let collections = self.collections.lock().expect("not poisoned");
        let rows = collections.values().map(|collection| collection.rows.lock().expect("not poisoned").len());
        let searches = self.counters.searches.load(Ordering::SeqCst);
        VectorStats::new(collections.len() as u64, rows.sum::<usize>() as u64, 0, searches)
    }
}

type Scores = Vec<(String, f32)>;

impl ListCollection {
    fn check_open(&self) -> Result<()> {
        if self.counters.closed.load(Ordering::SeqCst) {
            return Err(error(ErrorKind::Closed, "store is closed"));
        }
        if self.dropped.load(Ordering::SeqCst) {
            return Err(error(ErrorKind::NotFound, "collection was dropped"));
        }
        Ok(())
    }

    /// Ids and scores of all rows that match, best first.
    fn scores(
        &self,
        filter: Option<&Filter>,
        ascending: bool,
        score: impl Fn(&Entity) -> Option<f32>,
    ) -> Scores {
        let rows = self.rows.lock().expect("not poisoned");
        let matching = rows.iter().filter(|(_, row)| filter.is_none_or(|filter| filter.matches(&row.fields)));
        let mut scores: Scores = matching.filter_map(|(id, row)| Some((id.clone(), score(row)?))).collect();
        let sign = if ascending { 1.0 } else { -1.0 };
        scores.sort_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)).then(a.0.cmp(&b.0)));
        scores
    }

    fn dense_scores(&self, filter: Option<&Filter>, query: &[f32]) -> Scores {
        let metric = self.config.metric;
        self.scores(filter, !metric.higher_is_nearer(), |row| Some(dense_score(metric, &row.dense, query)))
    }

    fn sparse_scores(&self, filter: Option<&Filter>, query: &SparseVector) -> Scores {
        self.scores(filter, false, |row| sparse_score(row.sparse.as_ref()?, query))
    }

    fn hits(&self, scores: impl Iterator<Item = (String, f32)>, output: Option<&[String]>) -> Vec<Hit> {
        let rows = self.rows.lock().expect("not poisoned");
        let hit = |(id, score): (String, f32)| {
            let (_, row) = rows.iter().find(|(other, _)| *other == id)?;
            let is_wanted = |name: &String| output.is_none_or(|wanted| wanted.contains(name));
            let fields = row.fields.iter().filter(|(name, _)| is_wanted(name));
            Some(Hit::new(id, score, fields.map(|(name, value)| (name.clone(), value.clone())).collect()))
        };
        scores.filter_map(hit).collect()
    }
}

fn dense_score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>() + 0.0;
    match metric {
        Metric::L2 => a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum(),
        Metric::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE),
        _ => dot(a, b),
    }
}

/// Nothing without a common dimension.
fn sparse_score(a: &SparseVector, b: &SparseVector) -> Option<f32> {
    let mut common = a.iter().filter_map(|(dimension, x)| Some(x * b.get(dimension)?)).peekable();
    common.peek()?;
    Some(common.sum())
}

#[async_trait]
impl Collection for ListCollection {
    fn config(&self) -> &CollectionConfig {
        &self.config
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.check_open()?;
        let entities = validation::check_entities(&self.config, entities)?;
        let mut rows = self.rows.lock().expect("not poisoned");
        let mut ids = Vec::new();
        for mut entity in entities {
            let id = format!("{:020}", self.counters.next_id.fetch_add(1, Ordering::SeqCst));
            entity.fields.insert(self.config.pk_field.clone(), id.clone().into());
            rows.push((id.clone(), entity));
            ids.push(id);
        }
        Ok(ids)
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.check_open()?;
        validation::check_search(&self.config, &request)?;
        self.counters.searches.fetch_add(1, Ordering::SeqCst);
        let filter = request.filter.as_ref();
        let scores: Vec<Scores> = match &request.query_vectors {
            QueryVectors::Dense(queries) => {
                queries.iter().map(|query| self.dense_scores(filter, query)).collect()
            }
            QueryVectors::Sparse(queries) => {
                queries.iter().map(|query| self.sparse_scores(filter, query)).collect()
            }
        };
        let page = |scores: Scores| {
            let page = scores.into_iter().skip(request.offset).take(request.limit);
            self.hits(page, request.output_fields.as_deref())
        };
        Ok(scores.into_iter().map(page).collect())
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        validation::check_hybrid_search(&self.config, &request)?;
        self.counters.searches.fetch_add(1, Ordering::SeqCst);
        let mut dense = self.dense_scores(request.filter.as_ref(), &request.dense);
        let mut sparse = self.sparse_scores(request.filter.as_ref(), &request.sparse);
        let candidates = request.offset + request.limit;
        dense.truncate(candidates);
        sparse.truncate(candidates);
        let merged = request.ranker.merge(self.config.metric, dense, sparse, candidates);
        Ok(self.hits(merged.into_iter().skip(request.offset), request.output_fields.as_deref()))
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        let limit = validation::check_query(&self.config, &request)?;
        let scores = self.scores(Some(&request.filter), true, |_| Some(0.0));
        let page = scores.into_iter().skip(request.offset).take(limit);
        Ok(self.hits(page, request.output_fields.as_deref()))
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        self.check_open()?;
        validation::check_filter(&self.config, filter)?;
        let mut rows = self.rows.lock().expect("not poisoned");
        let before = rows.len();
        rows.retain(|(_, row)| !filter.matches(&row.fields));
        Ok((before - rows.len()) as u64)
    }

    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.check_open()?;
        let rows = self.rows.lock().expect("not poisoned").len() as u64;
        Ok(CollectionStats::new(&self.config.collection_name, rows, None))
    }

    async fn flush(&self) -> Result<()> {
        self.check_open()
    }
}

#[tokio::test]
async fn a_vector_store_written_outside_keeps_the_contract() {
    suite(async |_| Arc::new(ListStore::default()) as _).await;
}

#[tokio::test]
async fn a_vector_store_written_outside_is_chosen_by_name() {
    let mut registry = Registry::builtin();
    registry.vectors.register("list", |_| Ok(Arc::new(ListStore::default())));
    let config = Config::from_vars([("ARSHAI_VECTOR_BACKEND".into(), "list".into())]).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    let store = runtime.vectors().expect("registered");
    let collection = store.get_or_create_collection(&CollectionConfig::new("c", 2)).await.expect("created");
    collection.insert_entity(Entity::new("text", vec![1.0, 0.0])).await.expect("inserted");
    let filter = Filter::parse("content == 'text'").expect("a filter");
    assert_eq!(collection.delete_entity(&filter).await.expect("deleted"), 1);
    assert_eq!(store.stats().collections, 1);
}
