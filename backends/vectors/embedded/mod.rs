//! Vectors in this process, searched exactly.

mod catalog;
mod codes;
mod collection;
mod disk;
mod row;
mod search;
mod segment;
mod shared;
mod snapshot;
mod sparse_index;
mod top_k;
mod work;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use serde_json::Value;

use self::catalog::Catalog;
pub use self::disk::DamagedFile;
use self::shared::{MAX_MEMORY_MB, SEARCH_THREADS, Shared, WRITE_THREADS};
use crate::config::VectorConfig;
use crate::support::opaque_debug;
use crate::vectors::{
    Collection, CollectionConfig, VectorCapabilities, VectorStats, VectorStore, validation,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// The in-process vector store: exact search over vectors in memory, and optionally on disk.
///
/// It holds at most `vectors.max_memory_mb` of entities, their overhead included; an insert beyond that fails as a
/// whole. Rows that were deleted while a search was running are freed when it ends, and are not counted until then.
///
/// Searches run on a snapshot, so reads and writes never wait for each other; the writes of one collection run one after
/// the other. Large searches, queries and writes run on threads of the store, a large search on several. A search stops
/// when its future is dropped and when the store is closed; a write that has begun completes.
///
/// **On disk.** Without a path, nothing is written: closing the store frees everything in it. With one
/// ([`with_path`](Self::with_path), `vectors.path`), collections are in memory and in files of that folder, which the
/// first operation reads back. A write is acknowledged once it is in the file: it survives the end of the process, and with
/// `vectors.sync` (the default) that of the system. What is damaged in a file is left out, logged, and in
/// [`damage`](Self::damage). Only one store can have a folder open. All file operations run on the store's threads.
///
/// All consistency levels are `Strong`, index settings are ignored.
pub struct EmbeddedStore {
    catalog: Arc<Catalog>,
}

impl EmbeddedStore {
    /// Its name in the configuration.
    pub const NAME: &'static str = "embedded";

    /// A store of at most `max_bytes`, with the default number of threads.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let VectorConfig { search_threads, write_threads, .. } = VectorConfig::default();
        Self::with_threads(max_bytes, search_threads, write_threads)
    }

    /// A store of at most `max_bytes`, with this many threads for large searches and for large writes; at least one.
    #[must_use]
    pub fn with_threads(max_bytes: u64, search_threads: usize, write_threads: usize) -> Self {
        let shared = Shared::new(max_bytes, search_threads.max(1), write_threads.max(1));
        Self { catalog: Arc::new(Catalog::new(Arc::new(shared), None)) }
    }

    /// The same store, empty, with its collections in a folder, which is created if necessary. With `sync`, writes also
    /// survive a crash of the system or a power failure; without it, only that of the process.
    ///
    /// It is free again once the store is closed, or it and its collections are dropped.
    ///
    /// The first operation, [`connect`](VectorStore::connect) or `health` opens the folder. It fails with `Unavailable`
    /// while another store, or a collection of one, has it open and where it cannot be read or written, with `Capacity` when its collections do not
    /// fit into memory, and with `Unsupported` for files of a later version. The next operation tries again.
    #[must_use]
    pub fn with_path(self, path: impl Into<PathBuf>, sync: bool) -> Self {
        Self { catalog: Arc::new(Catalog::new(Arc::clone(&self.catalog.shared), Some((path.into(), sync)))) }
    }

    /// A store with the limits, and the folder, of a runtime's configuration.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let vectors = &context.config.vectors;
        let max_bytes = vectors.max_memory_mb.saturating_mul(1 << 20);
        let store = Self::with_threads(max_bytes, vectors.search_threads, vectors.write_threads);
        match &vectors.path {
            Some(path) => store.with_path(path, vectors.sync),
            None => store,
        }
    }

    /// The files that were found damaged when the folder was opened.
    #[must_use]
    pub fn damage(&self) -> Vec<DamagedFile> {
        self.catalog.damage()
    }
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
        let shared = &self.catalog.shared;
        vec![shared.budget.usage(), shared.search_threads.usage(), shared.write_threads.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let open = Catalog::open(&self.catalog);
        match deadline.run("vectors.embedded", "opening the folder", open).await.and_then(|opened| opened) {
            Ok(()) => Health::Healthy,
            Err(error) => Health::unhealthy(error.message()),
        }
    }

    /// Lowering the memory limit below the present use rejects inserts and evicts nothing; lowering the threads lets
    /// running work end.
    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let threads = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        let shared = &self.catalog.shared;
        match key {
            MAX_MEMORY_MB => shared.budget.set_max(max),
            SEARCH_THREADS => shared.search_threads.set_max_threads(threads),
            WRITE_THREADS => shared.write_threads.set_max_threads(threads),
            _ => return Err(unsupported_limit_error("vectors.embedded", key)),
        }
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let Shared { closed, search_threads, write_threads, .. } = &*self.catalog.shared;
        closed.cancel();
        search_threads.close();
        let (searches, writes) = (search_threads.used(), write_threads.used());
        let wait = async {
            search_threads.wait_idle().await;
            self.catalog.close().await
        };
        let closed = deadline.run("vectors.embedded", "waiting for running writes", wait).await;
        write_threads.close();
        if let Ok(lost) = closed {
            return CloseReport::new(writes, searches, lost);
        }
        let (still_writing, still_searching) = (write_threads.used(), search_threads.used());
        let lost = format!("{still_writing} writes and {still_searching} searches are still running");
        let (finished, aborted) =
            (writes.saturating_sub(still_writing), searches.saturating_sub(still_searching));
        CloseReport::new(finished, aborted, vec![lost])
    }
}

#[async_trait]
impl VectorStore for EmbeddedStore {
    async fn connect(&self) -> Result<()> {
        Catalog::open(&self.catalog).await
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        validation::check_config(config)?;
        Ok(Arc::new(Catalog::get_or_create(&self.catalog, config).await?))
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        Catalog::open(&self.catalog).await?;
        Ok(Arc::new(self.catalog.find(name)?))
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        Catalog::open(&self.catalog).await?;
        Ok(self.catalog.names())
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        Catalog::open(&self.catalog).await?;
        Catalog::drop_collection(&self.catalog, name).await
    }

    fn capabilities(&self) -> VectorCapabilities {
        let mut capabilities = VectorCapabilities::default();
        capabilities.bounded = true;
        capabilities.exact = true;
        capabilities.sparse = true;
        capabilities.all_filters = true;
        capabilities.ordered = true;
        capabilities.exact_counts = true;
        capabilities.atomic_writes = true;
        capabilities
    }

    fn stats(&self) -> VectorStats {
        let shared = &self.catalog.shared;
        let (collections, entities) = self.catalog.count();
        let searches = shared.searches.load(Ordering::Relaxed);
        let lost = self.catalog.damage().iter().map(|damage| damage.lost_entities).sum();
        VectorStats::new(collections, entities, shared.budget.used(), searches).with_lost_entities(lost)
    }
}

opaque_debug!(EmbeddedStore { catalog });
