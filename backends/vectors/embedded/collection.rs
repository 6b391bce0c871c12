//! One collection: a snapshot that writers replace and readers keep.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::disk::{CollectionRecord, Log, Record, delete_record, insert_record};
use super::row::Row;
use super::search::Search;
use super::shared::{IdSequence, Shared};
use super::snapshot::{Snapshot, check_running};
use super::work::{self, Work};
use crate::support::string_heap_bytes;
use crate::vectors::{
    Collection, CollectionConfig, CollectionStats, Entity, Filter, Hit, HybridSearchRequest, QueryRequest,
    SearchRequest, validation,
};
use crate::{Error, ErrorKind, Result};

/// Key and pointer in the store's map, whose nodes are at least five elevenths full.
const COLLECTION_OVERHEAD_BYTES: usize = 128;
/// Rows above which a snapshot is freed on a thread.
const MAX_FREED: usize = 1_000;

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
    /// Only used by the running write.
    ids: Mutex<IdSequence>,
    /// The file, in a durable store. Only used by the running write.
    log: Mutex<Option<Log>>,
    is_durable: bool,
    /// Cancelled when the collection is dropped or the store closed.
    dropped: CancellationToken,
}

impl EmbeddedCollection {
    /// A collection, counted in the store's budget, with the file that `open_log` returns in a durable store.
    pub(super) fn new(
        shared: &Arc<Shared>,
        record: CollectionRecord,
        snapshot: Snapshot,
        open_log: impl FnOnce(&CollectionRecord) -> Result<Option<Log>>,
    ) -> Result<Self> {
        let bytes = base_bytes(&record.config) + snapshot.bytes();
        shared.reserve(bytes)?;
        let log = open_log(&record).inspect_err(|_| shared.budget.sub(bytes))?;
        let CollectionRecord { config, ids, .. } = record;
        Ok(Self(Arc::new(Inner {
            shared: Arc::clone(shared),
            config,
            snapshot: RwLock::new(Arc::new(snapshot)),
            writer: Arc::default(),
            ids: Mutex::new(ids),
            is_durable: log.is_some(),
            log: Mutex::new(log),
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

    /// Deletes the file of a durable collection.
    pub(super) fn delete_file(&self) -> Result<()> {
        self.0.log.lock().as_mut().map_or(Ok(()), Log::remove)
    }

    /// Makes everything in the file of a durable collection survive the end of the system.
    pub(super) fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    /// Rejects further work, aborts searches, closes the file and frees the budget. Returns the rows, which take a while
    /// to free.
    pub(super) fn remove(&self) -> Arc<Snapshot> {
        self.0.dropped.cancel();
        self.0.log.lock().take();
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

    /// Runs a write alone: here if it is small and in memory, else on a thread of the store, where it completes even if
    /// the future is dropped.
    async fn write<T: Send + 'static>(
        &self,
        is_small: impl FnOnce(&Snapshot) -> bool,
        job: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let guard = self.lock_writer().await;
        self.check_open()?;
        if !self.0.is_durable && is_small(&self.0.snapshot.read()) {
            return job(&self.0);
        }
        let inner = Arc::clone(&self.0);
        let job = move || {
            let _guard = guard;
            job(&inner)
        };
        self.0.shared.write_threads.run(job).await?
    }

    /// Runs a read on a snapshot: here if it is small, else on threads of the store. It stops when the future is
    /// dropped, the collection dropped or the store closed.
    async fn read<T: Send + 'static>(
        &self,
        work: Option<Work>,
        job: impl FnOnce(&Search<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stop = self.0.dropped.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let small = {
            let current = self.0.snapshot.read();
            work.is_some_and(|work| work.is_small(&current)).then(|| Arc::clone(&current))
        };
        // Looked at after the snapshot was taken: that of a dropped collection is empty.
        self.check_open()?;
        if let Some(snapshot) = small {
            return job(&Search { snapshot: &snapshot, config: &self.0.config, partitions: 1, stop: &stop });
        }
        let inner = Arc::clone(&self.0);
        let job = move || {
            // Taken here, so that a snapshot that nobody else holds any more is freed here.
            let snapshot = Arc::clone(&inner.snapshot.read());
            check_running(&stop)?;
            let helpers = inner.shared.helpers(work.map_or(0, |work| work.partitions(&snapshot) - 1));
            let partitions = 1 + helpers.len();
            job(&Search { snapshot: &snapshot, config: &inner.config, partitions, stop: &stop })
        };
        let result = self.0.shared.search_threads.run(job).await?;
        // An aborted read says whether the store was closed or the collection dropped.
        if result.is_err() {
            self.check_open()?;
        }
        result
    }
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
    fn sync(&self) -> Result<()> {
        self.log.lock().as_mut().map_or(Ok(()), Log::sync)
    }

    fn insert(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        let entities = validation::check_entities(&self.config, entities)?;
        // Numbered under the writer's lock, so that ids are in the order of the rows.
        let mut ids = self.ids.lock();
        let numbered = entities.into_iter().map(|entity| {
            let number = ids.take();
            let id = ids.id(number);
            (Row::new(&self.config, entity, number, &id), id)
        });
        let (rows, inserted): (Vec<_>, Vec<_>) = numbered.unzip();
        drop(ids);
        if rows.is_empty() {
            return Ok(inserted);
        }
        let record = || insert_record(&self.config, rows.iter().map(|(row, dense)| (row, &**dense)));
        let record = self.is_durable.then(record).transpose()?;
        let current = Arc::clone(&self.snapshot.read());
        self.replace(&current, current.with(self.config.dense_dim, rows), record)?;
        Ok(inserted)
    }

    fn delete(&self, filter: &Filter) -> Result<u64> {
        let current = Arc::clone(&self.snapshot.read());
        let (next, deleted) = current.without(self.config.dense_dim, filter);
        if deleted.is_empty() {
            return Ok(0);
        }
        self.replace(&current, next, self.is_durable.then(|| delete_record(&deleted)))?;
        drop(current);
        self.compact_if_wasteful();
        Ok(deleted.len() as u64)
    }

    /// Replaces the snapshot once there is room for the next one and the change is in the file.
    fn replace(&self, current: &Snapshot, next: Snapshot, record: Option<Record>) -> Result<()> {
        let (before, after) = (current.bytes(), next.bytes());
        let growth = after.saturating_sub(before);
        self.shared.reserve(growth)?;
        if let (Some(log), Some(record)) = (&mut *self.log.lock(), record)
            && let Err(error) = log.append(record)
        {
            self.shared.budget.sub(growth);
            return Err(error);
        }
        self.shared.budget.sub(before.saturating_sub(after));
        *self.snapshot.write() = Arc::new(next);
        Ok(())
    }

    /// Writes the file anew when it is mostly deleted rows. Failing to do so is no failure of the delete.
    fn compact_if_wasteful(&self) {
        let snapshot = Arc::clone(&self.snapshot.read());
        let mut log = self.log.lock();
        let Some(log) = log.as_mut().filter(|log| log.is_wasteful(&snapshot)) else { return };
        let record = CollectionRecord::new(&self.config, *self.ids.lock());
        if let Err(error) = log.compact(&record, &snapshot) {
            let collection = &*self.config.collection_name;
            tracing::warn!(collection, %error, "deleted rows stay in the file of a collection");
        }
    }
}

/// Freeing many rows takes a while, and the last handle may be dropped on a thread that runs async tasks.
impl Drop for Inner {
    fn drop(&mut self) {
        let snapshot = mem::take(self.snapshot.get_mut());
        if snapshot.len() > MAX_FREED {
            let _ = thread::Builder::new().name("vectors.free".into()).spawn(move || drop(snapshot));
        }
    }
}

#[async_trait]
impl Collection for EmbeddedCollection {
    fn config(&self) -> &CollectionConfig {
        &self.0.config
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        let is_small = work::is_small_insert(&entities);
        self.write(move |_| is_small, move |inner| inner.insert(entities)).await
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.check_open()?;
        // Many long query vectors take a while to check.
        let is_checked = work::is_small_query(&request.query_vectors);
        if is_checked {
            validation::check_search(&self.0.config, &request)?;
        }
        self.0.shared.searches.fetch_add(1, Ordering::Relaxed);
        let work = is_checked.then(|| Work::search(&self.0.config, &request));
        self.read(work, move |search| {
            if !is_checked {
                validation::check_search(search.config, &request)?;
            }
            search.search(request)
        })
        .await
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        validation::check_hybrid_search(&self.0.config, &request)?;
        self.0.shared.searches.fetch_add(1, Ordering::Relaxed);
        let work = Work::hybrid_search(&self.0.config, &request);
        self.read(Some(work), move |search| search.hybrid_search(request)).await
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.check_open()?;
        let limit = validation::check_query(&self.0.config, &request)?;
        let work = Work::query(&request.filter, limit);
        self.read(Some(work), move |search| search.query(&request, limit)).await
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        validation::check_filter(&self.0.config, filter)?;
        let work = Work::query(filter, 0);
        let filter = filter.clone();
        self.write(move |snapshot| work.is_small(snapshot), move |inner| inner.delete(&filter)).await
    }

    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.check_open()?;
        let config = &self.0.config;
        let snapshot = self.0.snapshot.read();
        let bytes = base_bytes(config) + snapshot.bytes();
        Ok(CollectionStats::new(&config.collection_name, snapshot.len() as u64, Some(bytes)))
    }

    async fn flush(&self) -> Result<()> {
        if !self.0.is_durable {
            return self.check_open();
        }
        self.write(|_| false, Inner::sync).await
    }
}
