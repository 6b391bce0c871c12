//! The backend trait of vector stores.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::{Collection, CollectionConfig, VectorCapabilities};
use crate::component::{CloseReport, Component};
use crate::deadline::Deadline;
use crate::error::Result;

/// Creates, finds and drops collections (Python: `IVectorDBClient`).
///
/// # Contract
/// - **Only [`get_or_create_collection`] creates.** Every other method returns [`NotFound`] for an unknown name, an
///   invalid one included.
/// - **Handles.** Handles to one collection see the same data. A handle to a dropped collection returns [`NotFound`],
///   even after another collection of the same name was created.
/// - **Limits.** A store with [`VectorCapabilities::bounded`] holds at most its limit of bytes, collections included.
///   Creating or inserting beyond it fails with [`Capacity`] and changes nothing.
/// - **Close.** Afterwards every operation fails with [`Closed`], also through handles. Running searches are aborted;
///   running writes complete until the deadline.
///
/// Its [`Component`] name is `vectors`, and it closes in the phase `Stores`. `arshai::contract::vectors` (feature
/// `contract`) tests all of this, and the contract of [`Collection`], on any backend.
///
/// [`get_or_create_collection`]: Self::get_or_create_collection
/// [`NotFound`]: crate::ErrorKind::NotFound
/// [`Capacity`]: crate::ErrorKind::Capacity
/// [`Closed`]: crate::ErrorKind::Closed
#[doc(alias = "IVectorDBClient")]
#[async_trait]
pub trait VectorStore: Component {
    /// Connects, where there is a server to connect to. Connecting twice is fine; without it, the first operation
    /// connects.
    ///
    /// # Errors
    /// `Unavailable` when the server cannot be reached, `Closed` after [`close`](Component::close).
    async fn connect(&self) -> Result<()>;

    /// Closes the store: the same as [`Component::close`].
    async fn disconnect(&self, deadline: Deadline) -> CloseReport {
        self.close(deadline).await
    }

    /// Returns the collection with this name; creates it if there is none. Dropping the future leaves a whole
    /// collection or none.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid configuration, and for an existing collection with a different schema: the error
    /// says what differs. `Capacity` when the store is full.
    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>>;

    /// Returns the collection with this name.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>>;

    /// The names of all collections, sorted.
    ///
    /// # Errors
    /// Errors of the backend.
    async fn list_collections(&self) -> Result<Vec<String>>;

    /// Drops a collection with everything in it. Writes to it that are in progress complete first; searches are
    /// aborted.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn drop_collection(&self, name: &str) -> Result<()>;

    /// The capabilities of this backend.
    fn capabilities(&self) -> VectorCapabilities;

    /// A snapshot of the counters.
    fn stats(&self) -> VectorStats;
}

/// Contents and counters of a vector store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VectorStats {
    /// Number of collections.
    pub collections: u64,
    /// Number of entities, where the backend knows it without asking a server.
    pub entities: u64,
    /// Size in bytes, overhead included, where the backend knows it without asking a server.
    pub bytes: u64,
    /// Number of searches started, hybrid ones included.
    pub searches: u64,
    /// Number of entities that a durable store could not read back when it was opened, as far as they could be counted.
    /// More may be missing, and deleted ones back: the store's own report of damage says so.
    pub lost_entities: u64,
}

impl VectorStats {
    /// Statistics of a store.
    #[must_use]
    pub fn new(collections: u64, entities: u64, bytes: u64, searches: u64) -> Self {
        Self { collections, entities, bytes, searches, lost_entities: 0 }
    }

    /// Sets the number of entities that could not be read back.
    #[must_use]
    pub fn with_lost_entities(mut self, lost_entities: u64) -> Self {
        self.lost_entities = lost_entities;
        self
    }
}
