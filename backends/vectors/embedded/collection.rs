//! One collection: a snapshot that writers replace and readers keep.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::search::{hybrid_search, query, search};
use super::segment::{Row, Snapshot};
use super::shared::Shared;
use crate::support::string_heap_bytes;
use crate::vectors::{
    Collection, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridSearchRequest, QueryRequest,
    SearchRequest, validation,
};
use crate::{Error, ErrorKind, Result};

/// Key and pointer in the store's map, whose nodes are at least five elevenths full.
const COLLECTION_OVERHEAD_BYTES: usize = 128;
/// Multiplications plus bytes of rows above which work moves to a thread of the store: well below a millisecond.
const OFFLOAD_THRESHOLD: u64 = 1_000_000;
/// Elements of query vectors above which they are checked on a thread of the store.
const MAX_CHECKED: usize = 256 * 1024;
/// Bytes of entities above which an insert moves to a thread of the store.
const OFFLOAD_INSERT_BYTES: usize = 256 * 1024;

/// A handle to a collection of an [`EmbeddedStore`](super::EmbeddedStore).
#[derive(Debug, Clone)]
pub(super) struct EmbeddedCollection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    config: CollectionConfig,
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held by the one running write, which may run on another thread.
    writer: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when the collection is dropped or the store closed.
    dropped: CancellationToken,
}

impl EmbeddedCollection {
    /// An empty collection, counted in the store's budget.
    pub(super) fn new(shared: &Arc<Shared>, config: CollectionConfig) -> Result<Self> {
        shared.adjust_budget(0, base_bytes(&config))?;
        Ok(Self(Arc::new(Inner {
            shared: Arc::clone(shared),
            config,
            snapshot: RwLock::default(),
            writer: Arc::default(),
            dropped: shared.closed.child_token(),
        })))
    }

    pub(super) fn len(&self) -> usize {
        self.0.snapshot.read().len()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits for the running write; further ones wait until the guard is dropped.
    pub(super) async fn lock_writer(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.0.writer).lock_owned().await
    }

    /// Rejects further work, aborts searches and frees the budget. Returns the rows, which take a while to free.
    pub(super) fn remove(&self) -> Arc<Snapshot> {
        self.0.dropped.cancel();
        let snapshot = mem::take(&mut *self.0.snapshot.write());
        self.0.shared.budget.sub(base_bytes(&self.0.config) + snapshot.bytes());
        snapshot
    }

    fn check_open(&self) -> Result<()> {
        self.0.shared.check_open()?;
        if self.0.dropped.is_cancelled() {
            let name = &self.0.config.collection_name;
            let message = format!("collection {name:?} was dropped");
            return Err(Error::new(ErrorKind::NotFound, "vectors.embedded", message).not_sent());
        }
        Ok(())
    }

    /// Runs a write alone: here if it is small, else on a thread of the store, where it completes even if the future is
    /// dropped.
    async fn write<T: Send + 'static>(
        &self,
        is_small: impl FnOnce(&Snapshot) -> bool,
        job: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let guard = self.lock_writer().await;
        self.check_open()?;
        if is_small(&self.0.snapshot.read()) {
            return job(&self.0);
        }
        let inner = Arc::clone(&self.0);
        let job = move || {
            let _guard = guard;
            job(&inner)
        };
        self.0.shared.write_threads.run(job).await?
    }

    /// Runs a read on a snapshot: here if it is small, else on a thread of the store. It stops when the future is
    /// dropped, the collection dropped or the store closed.
    async fn read<T: Send + 'static>(
        &self,
        queries: usize,
        is_expensive: bool,
        job: impl FnOnce(&Snapshot, &CollectionConfig, &CancellationToken) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let snapshot = Arc::clone(&self.0.snapshot.read());
        let stop = self.0.dropped.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        if !is_expensive && is_small(&snapshot, queries * self.0.config.dense_dim) {
            return job(&snapshot, &self.0.config, &stop);
        }
        let inner = Arc::clone(&self.0);
        let result = self.0.shared.search_threads.run(move || job(&snapshot, &inner.config, &stop)).await?;
        // An aborted read says whether the store was closed or the collection dropped.
        if result.is_err() {
            self.check_open()?;
        }
        result
    }
}

/// Whether work on every row, with this many multiplications for each, can run on the caller's thread.
fn is_small(snapshot: &Snapshot, multiplications: usize) -> bool {
    let multiplications = (snapshot.len() as u64).saturating_mul(multiplications as u64);
    multiplications.saturating_add(snapshot.row_bytes()) <= OFFLOAD_THRESHOLD
}

/// Whether entities are few and short enough to insert on the caller's thread.
fn are_small(entities: &[Entity]) -> bool {
    let mut left = OFFLOAD_INSERT_BYTES;
    entities.iter().all(|entity| {
        left = left.saturating_sub(entity.approximate_bytes(left));
        left > 0
    })
}

/// Bytes of an empty collection: itself, its entry in the store, its name (in both) and fields.
fn base_bytes(config: &CollectionConfig) -> u64 {
    let names = [
        &config.text_field,
        &config.pk_field,
        &config.dense_field,
        &config.sparse_field,
        &config.metadata_field,
        &config.collection_name,
        &config.collection_name,
        &config.dense_index.index_type,
        &config.sparse_index.index_type,
    ];
    let extra = config.extra_fields.iter().map(|field| size_of_val(field) + string_heap_bytes(&field.name));
    let strings = names.into_iter().map(|name| string_heap_bytes(name)).chain(extra).sum::<usize>();
    (size_of::<Inner>() + COLLECTION_OVERHEAD_BYTES + strings) as u64
}

impl Inner {
    fn insert(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        let entities = validation::check_entities(&self.config, entities)?;
        // Numbered under the writer's lock, so that ids are in the order of the rows.
        let ids: Vec<String> = entities.iter().map(|_| self.shared.next_id()).collect();
        let rows = entities.into_iter().zip(&ids).map(|(entity, id)| Row::new(&self.config, entity, id));
        let rows = rows.collect();
        let current = Arc::clone(&self.snapshot.read());
        self.replace(&current, current.with(self.config.dense_dim, rows))?;
        Ok(ids)
    }

    fn delete(&self, filter: &Filter) -> Result<u64> {
        let current = Arc::clone(&self.snapshot.read());
        let next = current.without(self.config.dense_dim, filter);
        let deleted = (current.len() - next.len()) as u64;
        self.replace(&current, next)?;
        Ok(deleted)
    }

    fn replace(&self, current: &Snapshot, next: Snapshot) -> Result<()> {
        self.shared.adjust_budget(current.bytes(), next.bytes())?;
        *self.snapshot.write() = Arc::new(next);
        Ok(())
    }
}

#[async_trait]
impl Collection for EmbeddedCollection {
    fn config(&self) -> &CollectionConfig {
        &self.0.config
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        let is_small = are_small(&entities);
        self.write(move |_| is_small, move |inner| inner.insert(entities)).await
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.check_open()?;
        // Many long query vectors take a while to check.
        let is_small = request.query_vectors.len().saturating_mul(self.0.config.dense_dim) < MAX_CHECKED;
        if is_small {
            validation::check_search(&self.0.config, &request)?;
        }
        self.0.shared.searches.fetch_add(1, Ordering::Relaxed);
        let is_expensive = !is_small || request.filter.as_ref().is_some_and(Filter::is_expensive);
        self.read(request.query_vectors.len(), is_expensive, move |snapshot, config, stop| {
            if !is_small {
                validation::check_search(config, &request)?;
            }
            search(snapshot, config, request, stop)
        })
        .await
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        validation::check_hybrid_search(&self.0.config, &request)?;
        self.0.shared.searches.fetch_add(1, Ordering::Relaxed);
        let is_expensive = request.filter.as_ref().is_some_and(Filter::is_expensive);
        self.read(1, is_expensive, move |snapshot, config, stop| {
            hybrid_search(snapshot, config, request, stop)
        })
        .await
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        let limit = validation::check_query(&self.0.config, &request)?;
        let is_expensive = request.filter.is_expensive();
        self.read(0, is_expensive, move |snapshot, config, stop| {
            query(snapshot, config, &request, limit, stop)
        })
        .await
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        validation::check_filter(&self.0.config, filter)?;
        let small = |snapshot: &Snapshot| !filter.is_expensive() && is_small(snapshot, 0);
        let filter = filter.clone();
        self.write(small, move |inner| inner.delete(&filter)).await
    }

    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.check_open()?;
        let config = &self.0.config;
        let snapshot = self.0.snapshot.read();
        let bytes = base_bytes(config) + snapshot.bytes();
        Ok(CollectionStats::new(&config.collection_name, snapshot.len() as u64, Some(bytes)))
    }

    async fn flush(&self) -> Result<()> {
        self.check_open()
    }
}
