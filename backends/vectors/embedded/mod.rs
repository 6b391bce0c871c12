//! Vectors in this process, searched exactly.

mod collection;
mod row;

use crate::{CloseReport, Component, Deadline, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

use self::collection::Collection;
use self::row::{Row, check_dense, check_sparse, invalid};
use crate::support::BlockingPool;
use crate::vectors::{
    BulkInsertReport, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridRequest, Progress,
    SearchRequest, VectorCapabilities, VectorStats, VectorStore,
};
use crate::{BuildContext, Error, ErrorKind, Health, LimitUsage, Result};

/// The most results of a query, and the most hits of a search: Milvus's.
const MAX_RESULTS: usize = 16_384;
/// Entities of one batch of a bulk insert.
const BATCH: usize = 1_000;
/// Multiplications above which a search runs on a thread of its own instead of the caller's: about a millisecond's.
const LARGE_SEARCH: usize = 4_000_000;
/// Threads for large searches. More than there are cores would only take turns.
const SEARCH_THREADS: usize = 4;

/// The in-process vector store: exact inner-product search over vectors kept side by side in memory.
///
/// It holds at most `vectors.max_memory_mb` of entities, their overhead included; an insert beyond that is refused
/// whole. Searches share a collection; inserts and deletes have it for themselves, for no longer than it takes to copy
/// what was prepared before. A search that is large runs on one of four threads of the store's own; dropping its
/// future lets it run to its end there and drops the result.
///
/// Nothing is written to disk: what it holds ends with it.
pub struct EmbeddedStore {
    collections: RwLock<BTreeMap<String, Arc<RwLock<Collection>>>>,
    budget: Budget,
    threads: BlockingPool,
    /// Ids are this, different for each store, and a number that counts up.
    id_prefix: u32,
    next_id: AtomicU64,
    searches: AtomicU64,
}

/// Bytes over all collections.
#[derive(Debug)]
struct Budget {
    limit: u64,
    used: Mutex<Usage>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    bytes: u64,
    peak: u64,
}

impl Budget {
    /// Exchanges `before` bytes for `after`, if they fit.
    fn exchange(&self, before: u64, after: u64) -> Result<()> {
        let mut used = self.used.lock();
        let bytes = used.bytes - before + after;
        if after > before && bytes > self.limit {
            let message = format!(
                "the store would hold {bytes} bytes and may hold {} (vectors.max_memory_mb); nothing was inserted",
                self.limit
            );
            return Err(Error::new(ErrorKind::Capacity, "vectors.embedded", message).with_retryable(false));
        }
        *used = Usage { bytes, peak: used.peak.max(bytes) };
        Ok(())
    }
}

impl EmbeddedStore {
    /// Its name in configuration.
    pub const NAME: &'static str = "embedded";

    /// A store that holds at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            collections: RwLock::default(),
            budget: Budget { limit: max_bytes, used: Mutex::default() },
            threads: BlockingPool::new("vectors.search_threads", SEARCH_THREADS),
            id_prefix: RandomState::new().hash_one("ids") as u32,
            next_id: AtomicU64::new(0),
            searches: AtomicU64::new(0),
        }
    }

    /// A store as a runtime's configuration asks for it.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        Self::new(context.config.vectors.max_memory_mb.saturating_mul(1 << 20))
    }

    /// The collection, created if it is not there.
    fn collection(&self, config: &CollectionConfig) -> Result<Arc<RwLock<Collection>>> {
        let existing = self.collections.read().get(&config.collection_name).cloned();
        let collection = match existing {
            Some(collection) => collection,
            None => {
                check_config(config)?;
                match self.collections.write().entry(config.collection_name.clone()) {
                    Entry::Occupied(there) => Arc::clone(there.get()),
                    Entry::Vacant(vacant) => {
                        let collection = Collection::new(config.clone());
                        self.budget.exchange(0, collection.bytes())?;
                        Arc::clone(vacant.insert(Arc::new(RwLock::new(collection))))
                    }
                }
            }
        };
        if collection.read().config != *config {
            let name = &config.collection_name;
            return Err(invalid(format!("the collection {name:?} exists with other fields or dimensions")));
        }
        Ok(collection)
    }

    fn next_id(&self) -> String {
        format!("{:08x}-{:016x}", self.id_prefix, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn insert(&self, config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<String>> {
        let collection = self.collection(config)?;
        let prepare =
            |(at, entity)| Row::new(config, entity).map_err(|error| error.with_context("entity", at));
        let mut rows = entities.into_iter().enumerate().map(prepare).collect::<Result<Vec<_>>>()?;
        let mut collection = collection.write();
        // Numbered under the lock, so that ids are in the order of the rows whoever else inserts.
        let mut ids = Vec::with_capacity(rows.len());
        for row in &mut rows {
            let id = self.next_id();
            row.fields.insert(config.pk_field.clone(), id.clone().into());
            ids.push(id);
        }
        self.budget.exchange(collection.bytes(), collection.bytes_with(&rows))?;
        collection.push(rows);
        Ok(ids)
    }

    /// Runs a search here if it is small and on a thread of the store if it is large.
    async fn search<T: Send + 'static>(
        &self,
        collection: Arc<RwLock<Collection>>,
        queries: usize,
        search: impl FnOnce(&Collection) -> T + Send + 'static,
    ) -> Result<T> {
        self.searches.fetch_add(1, Ordering::Relaxed);
        let work = {
            let collection = collection.read();
            let work =
                collection.len().saturating_mul(collection.config.dense_dim).saturating_mul(queries.max(1));
            if work <= LARGE_SEARCH {
                return Ok(search(&collection));
            }
            work
        };
        tracing::trace!(component = "vectors.embedded", work, "searching on a thread of the store");
        self.threads.run(move || search(&collection.read())).await
    }
}

fn check_config(config: &CollectionConfig) -> Result<()> {
    let mut names = vec![&config.pk_field, &config.text_field, &config.metadata_field, &config.dense_field];
    names.extend(config.is_hybrid.then_some(&config.sparse_field));
    names.extend(config.extra_fields.iter().map(|field| &field.name));
    let all = names.len();
    names.sort();
    names.dedup();
    if config.collection_name.is_empty() || names.iter().any(|name| name.is_empty()) {
        return Err(invalid("a collection and its fields need names"));
    }
    if names.len() < all {
        return Err(invalid("two fields of the collection have the same name"));
    }
    if !(1..=32_768).contains(&config.dense_dim) {
        return Err(invalid(format!(
            "{} is no number of dimensions; expected 1 to 32 768",
            config.dense_dim
        )));
    }
    Ok(())
}

fn check_limit(limit: usize) -> Result<()> {
    if (1..=MAX_RESULTS).contains(&limit) {
        return Ok(());
    }
    Err(invalid(format!("the limit is {limit}; expected 1 to {MAX_RESULTS}")))
}

#[async_trait]
impl Component for EmbeddedStore {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("vectors")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let used = *self.budget.used.lock();
        let budget =
            LimitUsage::new("vectors.max_memory_mb", "bytes", used.bytes, used.peak, Some(self.budget.limit));
        vec![budget, self.threads.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl VectorStore for EmbeddedStore {
    async fn connect(&self) -> Result<()> {
        Ok(())
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<()> {
        self.collection(config).map(drop)
    }

    async fn insert_entities(&self, config: &CollectionConfig, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.insert(config, entities)
    }

    async fn bulk_insert_optimized(
        &self,
        config: &CollectionConfig,
        entities: Vec<Entity>,
        progress: Option<&Progress>,
    ) -> Result<BulkInsertReport> {
        self.collection(config)?;
        let all = entities.len();
        let mut ids = Vec::with_capacity(all);
        let mut entities = entities.into_iter().peekable();
        while entities.peek().is_some() {
            let batch = entities.by_ref().take(BATCH).collect();
            match self.insert(config, batch) {
                Ok(more) => ids.extend(more),
                Err(error) => {
                    let not_written = all - ids.len();
                    return Ok(BulkInsertReport::new(ids, not_written, Some(error)));
                }
            }
            if let Some(progress) = progress {
                progress(ids.len());
            }
            // Others may want the runtime between two batches.
            tokio::task::yield_now().await;
        }
        Ok(BulkInsertReport::new(ids, 0, None))
    }

    async fn search_by_vector(
        &self,
        config: &CollectionConfig,
        request: SearchRequest,
    ) -> Result<Vec<Vec<Hit>>> {
        let collection = self.collection(config)?;
        check_limit(request.limit)?;
        request.query_vectors.iter().try_for_each(|query| check_dense(config, query))?;
        check_names(&collection.read(), request.filter.as_ref(), request.output_fields.as_deref())?;
        let queries = request.query_vectors.len();
        self.search(collection, queries, move |collection| {
            let fields = request.output_fields.as_deref();
            collection.search(&request.query_vectors, request.filter.as_ref(), fields, request.limit)
        })
        .await
    }

    async fn hybrid_search(&self, config: &CollectionConfig, request: HybridRequest) -> Result<Vec<Hit>> {
        if !config.is_hybrid {
            return Err(invalid("the collection is not hybrid; create it with CollectionConfig::hybrid"));
        }
        let collection = self.collection(config)?;
        check_limit(request.limit)?;
        check_dense(config, &request.dense)?;
        let mut request = request;
        request.sparse = check_sparse(request.sparse)?;
        check_names(&collection.read(), request.filter.as_ref(), request.output_fields.as_deref())?;
        self.search(collection, 1, move |collection| collection.hybrid(&request)).await
    }

    async fn query_by_expr(
        &self,
        config: &CollectionConfig,
        filter: &Filter,
        output_fields: Option<&[String]>,
        limit: Option<usize>,
    ) -> Result<Vec<Hit>> {
        let limit = limit.unwrap_or(MAX_RESULTS);
        check_limit(limit)?;
        let collection = self.collection(config)?;
        let collection = collection.read();
        check_names(&collection, Some(filter), output_fields)?;
        Ok(collection.query(filter, output_fields, limit))
    }

    async fn delete_entity(&self, config: &CollectionConfig, filter: &Filter) -> Result<u64> {
        let collection = self.collection(config)?;
        let mut collection = collection.write();
        let before = collection.bytes();
        let deleted = collection.delete(filter)?;
        self.budget.exchange(before, collection.bytes())?;
        Ok(deleted)
    }

    async fn get_collection_stats(&self, config: &CollectionConfig) -> Result<CollectionStats> {
        let collection = self.collection(config)?;
        let collection = collection.read();
        Ok(CollectionStats::new(&config.collection_name, collection.len() as u64, Some(collection.bytes())))
    }

    fn stats(&self) -> VectorStats {
        let collections = self.collections.read();
        let used = *self.budget.used.lock();
        let entities = collections.values().map(|collection| collection.read().len() as u64).sum();
        let searches = self.searches.load(Ordering::Relaxed);
        VectorStats::new(collections.len() as u64, entities, used.bytes, searches)
    }

    fn capabilities(&self) -> VectorCapabilities {
        VectorCapabilities::default().bounded(true).exact(true)
    }
}

fn check_names(
    collection: &Collection,
    filter: Option<&Filter>,
    output_fields: Option<&[String]>,
) -> Result<()> {
    let filtered = filter.into_iter().flat_map(Filter::fields);
    let wanted = output_fields.into_iter().flatten().map(String::as_str);
    collection.check_fields(filtered.chain(wanted))
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("budget", &self.budget).finish_non_exhaustive()
    }
}
