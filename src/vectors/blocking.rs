//! Blocking counterparts of the vector traits.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::{
    BulkInsertOptions, BulkInsertReport, Collection, CollectionConfig, CollectionStats, Entity, Filter, Hit,
    HybridSearchRequest, QueryRequest, SearchRequest, VectorStore, entity_stream,
};
use crate::component::CloseReport;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::support::opaque_debug;

/// A vector store for callers outside an async runtime: each method waits for the method of the same name of
/// [`VectorStore`].
///
/// Any number of threads may use it at the same time. A background thread drives timers and connections; it ends with the
/// last clone and the last [`BlockingCollection`]. Within an async runtime every method fails with `InvalidInput`, because
/// it would block other tasks; use the async methods there.
///
/// ```
/// use arshai::vectors::{BlockingVectorStore, CollectionConfig, Entity, SearchRequest};
/// use arshai::{Arshai, Config};
/// use std::sync::Arc;
///
/// let runtime = Arshai::builder(Config::default()).build()?;
/// let store = BlockingVectorStore::new(Arc::clone(runtime.vectors()?))?;
/// let documents = store.get_or_create_collection(&CollectionConfig::new("documents", 2))?;
/// documents.insert_entity(Entity::new("text", vec![1.0, 0.0]))?;
/// assert_eq!(documents.search_by_vector(SearchRequest::new(vec![1.0, 0.0]))?[0].len(), 1);
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BlockingVectorStore {
    store: Arc<dyn VectorStore>,
    driver: Arc<Driver>,
}

impl BlockingVectorStore {
    /// Blocking methods for a store; starts the thread.
    ///
    /// # Errors
    /// `Internal` when the thread cannot be started.
    pub fn new(store: Arc<dyn VectorStore>) -> Result<Self> {
        Ok(Self { store, driver: Arc::new(Driver::start()?) })
    }

    /// As [`VectorStore::connect`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn connect(&self) -> Result<()> {
        self.driver.wait(self.store.connect())
    }

    /// As [`VectorStore::disconnect`].
    ///
    /// # Errors
    /// Only within an async runtime.
    pub fn disconnect(&self, deadline: Deadline) -> Result<CloseReport> {
        self.driver.wait(async { Ok(self.store.disconnect(deadline).await) })
    }

    /// As [`VectorStore::get_or_create_collection`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<BlockingCollection> {
        self.collection(self.store.get_or_create_collection(config))
    }

    /// As [`VectorStore::get_collection`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn get_collection(&self, name: &str) -> Result<BlockingCollection> {
        self.collection(self.store.get_collection(name))
    }

    /// As [`VectorStore::list_collections`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn list_collections(&self) -> Result<Vec<String>> {
        self.driver.wait(self.store.list_collections())
    }

    /// As [`VectorStore::drop_collection`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn drop_collection(&self, name: &str) -> Result<()> {
        self.driver.wait(self.store.drop_collection(name))
    }

    fn collection(
        &self,
        opening: impl Future<Output = Result<Arc<dyn Collection>>>,
    ) -> Result<BlockingCollection> {
        let collection = self.driver.wait(opening)?;
        Ok(BlockingCollection { collection, driver: Arc::clone(&self.driver) })
    }
}

/// A collection of a [`BlockingVectorStore`]: each method waits for the one of the same name of [`Collection`].
#[derive(Clone, Debug)]
pub struct BlockingCollection {
    collection: Arc<dyn Collection>,
    driver: Arc<Driver>,
}

impl BlockingCollection {
    /// As [`Collection::config`]; waits for nothing.
    #[must_use]
    pub fn config(&self) -> &CollectionConfig {
        self.collection.config()
    }

    /// As [`Collection::insert_entity`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn insert_entity(&self, entity: Entity) -> Result<String> {
        self.driver.wait(self.collection.insert_entity(entity))
    }

    /// As [`Collection::insert_entities`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.driver.wait(self.collection.insert_entities(entities))
    }

    /// As [`Collection::bulk_insert_optimized`], from an iterator, which runs on the calling thread.
    ///
    /// # Errors
    /// Only within an async runtime; what failed is in the report.
    pub fn bulk_insert_optimized<I>(
        &self,
        entities: I,
        options: BulkInsertOptions<'_>,
    ) -> Result<BulkInsertReport>
    where
        I: IntoIterator<Item = Entity>,
        I::IntoIter: Send,
    {
        let inserting = self.collection.bulk_insert_optimized(entity_stream(entities), options);
        self.driver.wait(async { Ok(inserting.await) })
    }

    /// As [`Collection::search_by_vector`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.driver.wait(self.collection.search_by_vector(request))
    }

    /// As [`Collection::hybrid_search`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.driver.wait(self.collection.hybrid_search(request))
    }

    /// As [`Collection::query_by_expr`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.driver.wait(self.collection.query_by_expr(request))
    }

    /// As [`Collection::delete_entity`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        self.driver.wait(self.collection.delete_entity(filter))
    }

    /// As [`Collection::get_collection_stats`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.driver.wait(self.collection.get_collection_stats())
    }

    /// As [`Collection::flush`].
    ///
    /// # Errors
    /// As the asynchronous method.
    pub fn flush(&self) -> Result<()> {
        self.driver.wait(self.collection.flush())
    }
}

/// A runtime on a background thread, which waits for timers and sockets on behalf of the calling threads.
struct Driver {
    handle: Handle,
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    fn start() -> Result<Self> {
        let failed = |cause| {
            Error::new(ErrorKind::Internal, "vectors", "no thread for blocking calls").with_source(cause)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let run = {
            let end = end.clone();
            move || runtime.block_on(end.cancelled())
        };
        let thread = std::thread::Builder::new().name("arshai-blocking".into()).spawn(run).map_err(failed)?;
        Ok(Self { handle, end, thread: Some(thread) })
    }

    fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        if Handle::try_current().is_ok() {
            let message = "blocking call within an async runtime; await the method of the store itself";
            return Err(Error::new(ErrorKind::InvalidInput, "vectors", message).not_sent());
        }
        self.handle.block_on(future)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end.cancel();
        // It only waits to be told; what it drives is dropped with it.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

opaque_debug!(Driver {});
