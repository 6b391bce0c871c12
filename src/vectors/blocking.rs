//! Vector stores for callers outside an async runtime.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::{
    BulkInsertOptions, BulkInsertReport, Collection, CollectionConfig, CollectionStats, Entity, Filter, Hit,
    HybridSearchRequest, QueryRequest, SearchRequest, VectorStore, entity_stream,
};
use crate::component::CloseReport;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// A vector store whose methods block the calling thread: for threads outside an async runtime.
///
/// It wraps any [`VectorStore`]; the work runs on a runtime of the application's, which must be multi-threaded and
/// outlive it. Python arshai names the asynchronous counterpart of `insert_entity` `insert_entity_async`; here the
/// methods of [`Collection`] are asynchronous, and those of [`BlockingCollection`] have the same names.
///
/// ```
/// # #[cfg(feature = "embedded")]
/// # fn main() -> arshai::Result<()> {
/// use std::sync::Arc;
/// use arshai::backends::vectors::EmbeddedStore;
/// use arshai::vectors::{BlockingVectorStore, CollectionConfig, Entity, SearchRequest};
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
/// let store = BlockingVectorStore::new(Arc::new(EmbeddedStore::new(64 << 20)), runtime.handle().clone())?;
/// let pages = store.get_or_create_collection(&CollectionConfig::new("pages", 2))?;
/// pages.insert_entity(Entity::new("a page", vec![1.0, 0.0]))?;
/// assert_eq!(pages.search_by_vector(SearchRequest::new(vec![1.0, 0.0]))?[0].len(), 1);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "embedded"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Every method fails with [`ErrorKind::Unsupported`] on a thread of an async runtime, which it would block; otherwise
/// as its counterpart does.
#[derive(Debug, Clone)]
pub struct BlockingVectorStore {
    store: Arc<dyn VectorStore>,
    runtime: Handle,
}

impl BlockingVectorStore {
    /// The store, with its work on this runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a runtime of the calling thread's own, which nobody drives while that is blocked.
    pub fn new(store: Arc<dyn VectorStore>, runtime: Handle) -> Result<Self> {
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            let message = "blocking calls need a multi-threaded tokio runtime";
            return Err(Error::new(ErrorKind::Unsupported, "vectors", message).not_sent());
        }
        Ok(Self { store, runtime })
    }

    /// As [`VectorStore::connect`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn connect(&self) -> Result<()> {
        block_on(&self.runtime, self.store.connect())?
    }

    /// As [`VectorStore::disconnect`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn disconnect(&self, deadline: Deadline) -> Result<CloseReport> {
        block_on(&self.runtime, self.store.disconnect(deadline))
    }

    /// As [`VectorStore::get_or_create_collection`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<BlockingCollection> {
        let collection = block_on(&self.runtime, self.store.get_or_create_collection(config))??;
        Ok(BlockingCollection { collection, runtime: self.runtime.clone() })
    }

    /// As [`VectorStore::get_collection`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn get_collection(&self, name: &str) -> Result<BlockingCollection> {
        let collection = block_on(&self.runtime, self.store.get_collection(name))??;
        Ok(BlockingCollection { collection, runtime: self.runtime.clone() })
    }

    /// As [`VectorStore::list_collections`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn list_collections(&self) -> Result<Vec<String>> {
        block_on(&self.runtime, self.store.list_collections())?
    }

    /// As [`VectorStore::drop_collection`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn drop_collection(&self, name: &str) -> Result<()> {
        block_on(&self.runtime, self.store.drop_collection(name))?
    }
}

/// A collection whose methods block the calling thread; from a [`BlockingVectorStore`], whose errors it has.
#[derive(Debug, Clone)]
pub struct BlockingCollection {
    collection: Arc<dyn Collection>,
    runtime: Handle,
}

impl BlockingCollection {
    /// As [`Collection::config`].
    #[must_use]
    pub fn config(&self) -> &CollectionConfig {
        self.collection.config()
    }

    /// As [`Collection::insert_entity`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn insert_entity(&self, entity: Entity) -> Result<String> {
        block_on(&self.runtime, self.collection.insert_entity(entity))?
    }

    /// As [`Collection::insert_entities`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        block_on(&self.runtime, self.collection.insert_entities(entities))?
    }

    /// As [`Collection::bulk_insert_optimized`], from an iterator.
    ///
    /// # Errors
    /// `Unsupported` on a thread of an async runtime; everything else is in the report.
    pub fn bulk_insert_optimized<I>(
        &self,
        entities: I,
        options: BulkInsertOptions<'_>,
    ) -> Result<BulkInsertReport>
    where
        I: IntoIterator<Item = Entity>,
        I::IntoIter: Send,
    {
        block_on(&self.runtime, self.collection.bulk_insert_optimized(entity_stream(entities), options))
    }

    /// As [`Collection::search_by_vector`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        block_on(&self.runtime, self.collection.search_by_vector(request))?
    }

    /// As [`Collection::hybrid_search`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        block_on(&self.runtime, self.collection.hybrid_search(request))?
    }

    /// As [`Collection::query_by_expr`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        block_on(&self.runtime, self.collection.query_by_expr(request))?
    }

    /// As [`Collection::delete_entity`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        block_on(&self.runtime, self.collection.delete_entity(filter))?
    }

    /// As [`Collection::get_collection_stats`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn get_collection_stats(&self) -> Result<CollectionStats> {
        block_on(&self.runtime, self.collection.get_collection_stats())?
    }

    /// As [`Collection::flush`].
    ///
    /// # Errors
    /// See [`BlockingVectorStore`].
    pub fn flush(&self) -> Result<()> {
        block_on(&self.runtime, self.collection.flush())?
    }
}

fn block_on<F: Future>(runtime: &Handle, work: F) -> Result<F::Output> {
    if Handle::try_current().is_ok() {
        let message =
            "blocking call on a thread of an async runtime; await the method of the wrapped store instead";
        return Err(Error::new(ErrorKind::Unsupported, "vectors", message).not_sent());
    }
    Ok(runtime.block_on(work))
}
