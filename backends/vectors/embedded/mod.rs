//! Vectors in this process, searched exactly.

mod collection;
mod search;
mod segment;
mod shared;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parking_lot::RwLock;
use serde_json::Value;

use self::collection::EmbeddedCollection;
use self::shared::{MAX_MEMORY_MB, SEARCH_THREADS, Shared, WRITE_THREADS};
use crate::config::VectorConfig;
use crate::support::opaque_debug;
use crate::vectors::{
    Collection, CollectionConfig, VectorCapabilities, VectorStats, VectorStore, validation,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase, unsupported_limit_error,
};

/// The in-process vector store: exact search over vectors in memory.
///
/// It holds at most `vectors.max_memory_mb` of entities, their overhead included; an insert beyond that fails as a
/// whole. Rows that were deleted while a search was running are freed when it ends, and are not counted until then.
///
/// Searches run on a snapshot, so reads and writes never wait for each other; the writes of one collection run one after
/// the other. Large searches, queries and writes run on threads of the store. A search stops when its future is dropped
/// and when the store is closed; a write that has begun completes.
///
/// Nothing is written to disk: closing the store frees everything in it. All consistency levels are `Strong`, index
/// settings are ignored.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    collections: RwLock<BTreeMap<String, EmbeddedCollection>>,
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
        Self { shared: Arc::new(shared), collections: RwLock::default() }
    }

    /// A store with the limits of a runtime's configuration.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let vectors = &context.config.vectors;
        let max_bytes = vectors.max_memory_mb.saturating_mul(1 << 20);
        Self::with_threads(max_bytes, vectors.search_threads, vectors.write_threads)
    }

    fn find(&self, name: &str) -> Result<EmbeddedCollection> {
        self.shared.check_open()?;
        self.collections.read().get(name).cloned().ok_or_else(|| {
            let message = format!("collection {name:?} does not exist");
            Error::new(ErrorKind::NotFound, "vectors.embedded", message).not_sent()
        })
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
        let shared = &self.shared;
        vec![shared.budget.usage(), shared.search_threads.usage(), shared.write_threads.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.shared.check_open() {
            Ok(()) => Health::Healthy,
            Err(error) => Health::unhealthy(error.message()),
        }
    }

    /// Lowering the memory limit below the present use rejects inserts and evicts nothing; lowering the threads lets
    /// running work end.
    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        let threads = usize::try_from(max).unwrap_or(usize::MAX).max(1);
        match key {
            MAX_MEMORY_MB => self.shared.budget.set_max(max),
            SEARCH_THREADS => self.shared.search_threads.set_max_threads(threads),
            WRITE_THREADS => self.shared.write_threads.set_max_threads(threads),
            _ => return Err(unsupported_limit_error("vectors.embedded", key)),
        }
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let Shared { closed, search_threads, write_threads, .. } = &*self.shared;
        closed.cancel();
        search_threads.close();
        let (searches, writes) = (search_threads.used(), write_threads.used());
        let wait = async {
            search_threads.wait_idle().await;
            let collections = self.collections.read().clone();
            for (name, collection) in collections {
                let _guard = collection.lock_writer().await;
                if self.collections.write().remove(&name).is_some() {
                    let rows = collection.remove();
                    // Freeing many rows takes a while.
                    let _ = write_threads.run(move || drop(rows)).await;
                }
            }
        };
        let is_idle = deadline.run("vectors.embedded", "waiting for running writes", wait).await.is_ok();
        write_threads.close();
        if is_idle {
            return CloseReport::new(writes, searches, Vec::new());
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
        self.shared.check_open()
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        validation::check_config(config)?;
        let mut collections = self.collections.write();
        // Under the lock, so that closing the store finds every collection.
        self.shared.check_open()?;
        if let Some(existing) = collections.get(&config.collection_name) {
            validation::check_same_schema(existing.config(), config)?;
            return Ok(Arc::new(existing.clone()));
        }
        let created = EmbeddedCollection::new(&self.shared, config.clone())?;
        collections.insert(config.collection_name.clone(), created.clone());
        Ok(Arc::new(created))
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        Ok(Arc::new(self.find(name)?))
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        self.shared.check_open()?;
        Ok(self.collections.read().keys().cloned().collect())
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        let collection = self.find(name)?;
        let guard = collection.lock_writer().await;
        // Another caller may have dropped it in the meantime, and created another.
        self.shared.check_open()?;
        let rows = {
            let mut collections = self.collections.write();
            if !collections.get(name).is_some_and(|current| current.is_same(&collection)) {
                return Ok(());
            }
            collections.remove(name);
            collection.remove()
        };
        drop(guard);
        // Freeing many rows takes a while.
        self.shared.write_threads.run(move || drop(rows)).await
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
        let collections = self.collections.read();
        let entities = collections.values().map(|collection| collection.len() as u64).sum();
        let searches = self.shared.searches.load(Ordering::Relaxed);
        VectorStats::new(collections.len() as u64, entities, self.shared.budget.used(), searches)
    }
}

opaque_debug!(EmbeddedStore(self) { budget: self.shared.budget });
