//! Collections are found, created, loaded and dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milvus::proto::common::{ConsistencyLevel, LoadState};
use milvus::proto::milvus::{
    CreateCollectionRequest, CreateIndexRequest, DescribeCollectionRequest, DescribeCollectionResponse,
    DescribeIndexRequest, DropCollectionRequest, GetLoadStateRequest, IndexDescription,
    LoadCollectionRequest, ShowCollectionsRequest,
};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::COMPONENT;
use super::connection::Connection;
use super::requests::Guarantee;
use super::schema::{Schema, new_indexes, new_schema};
use crate::vectors::{CollectionConfig, Consistency, validation};
use crate::{Deadline, Error, ErrorKind, Outcome, Result};

/// Time between two looks at a collection that is loading: the first, doubled up to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// All collections of a store.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) connection: Connection,
    live: Mutex<HashMap<String, Arc<Live>>>,
    /// Held while a collection is created: two creations of one would both see that it is not there.
    creating: tokio::sync::Mutex<()>,
    pub(super) searches: AtomicU64,
}

/// What the handles to one collection share.
#[derive(Debug)]
pub(super) struct Live {
    id: i64,
    /// The time of the newest write through this store, by the server's clock.
    last_write: AtomicU64,
    /// Writes whose time the server did not say, and how many of them are older than one whose time it did. Milvus 2.3
    /// says none for deletes.
    untimed: AtomicU64,
    covered: AtomicU64,
    /// Read by each write, written by the drop.
    pub(super) writes: tokio::sync::RwLock<()>,
    /// Cancelled when the collection is dropped.
    pub(super) dropped: CancellationToken,
}

impl Catalog {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, live: Mutex::default(), creating: Default::default(), searches: AtomicU64::new(0) }
    }

    /// Number of collections that this store has opened.
    pub(super) fn len(&self) -> usize {
        self.live.lock().len()
    }

    /// The collection's schema and shared state.
    pub(super) async fn open(&self, name: &str, deadline: Deadline) -> Result<(Schema, Arc<Live>)> {
        self.connection.check_open()?;
        let found = self.describe(name, deadline).await?.ok_or_else(|| not_found(name))?;
        let indexes = self.indexes(name, deadline).await?;
        let schema = found.schema.as_ref().ok_or_else(|| missing("schema"))?;
        let schema = Schema::read(name, schema, &indexes, None).map_err(|reason| {
            let message = format!("collection {name:?} is not one that arshai can use: {reason}");
            Error::new(ErrorKind::Unsupported, COMPONENT, message).not_sent()
        })?;
        if indexes.is_empty() {
            let message = format!("collection {name:?} has no index; get_or_create_collection completes it");
            return Err(Error::new(ErrorKind::Unsupported, COMPONENT, message).not_sent());
        }
        self.load(name, deadline).await?;
        Ok((schema, self.live(name, found.collection_id)))
    }

    /// As [`open`](Self::open); creates the collection, or what it lacks, first.
    pub(super) async fn open_or_create(
        &self,
        config: &CollectionConfig,
        deadline: Deadline,
    ) -> Result<(Schema, Arc<Live>)> {
        let name = &config.collection_name;
        let creating = deadline.run(COMPONENT, "waiting for another creation", self.creating.lock()).await?;
        let found = match self.describe(name, deadline).await? {
            Some(found) => found,
            None => self.create(config, deadline).await?,
        };
        let indexes = self.indexes(name, deadline).await?;
        let schema = found.schema.as_ref().ok_or_else(|| missing("schema"))?;
        let schema = Schema::read(name, schema, &indexes, Some(config)).map_err(|reason| {
            let message = format!("collection {name:?} exists with a different schema: {reason}");
            Error::new(ErrorKind::InvalidInput, COMPONENT, message).not_sent()
        })?;
        validation::check_same_schema(&schema.config, config)?;
        self.check_sparse(config, deadline).await?;
        self.complete(config, &indexes, deadline).await?;
        drop(creating);
        self.load(name, deadline).await?;
        Ok((schema, self.live(name, found.collection_id)))
    }

    /// Nothing is made on a server that would refuse a part of it.
    async fn check_sparse(&self, config: &CollectionConfig, deadline: Deadline) -> Result<()> {
        match config.is_hybrid {
            true => self.connection.engine(deadline).await?.check_sparse(),
            false => Ok(()),
        }
    }

    async fn create(
        &self,
        config: &CollectionConfig,
        deadline: Deadline,
    ) -> Result<DescribeCollectionResponse> {
        let name = &config.collection_name;
        self.check_sparse(config, deadline).await?;
        let request = CreateCollectionRequest {
            collection_name: name.clone(),
            schema: new_schema(config).encode_to_vec(),
            consistency_level: ConsistencyLevel::Bounded.into(),
            ..CreateCollectionRequest::default()
        };
        let created = self.connection.call(&request, deadline).await;
        // Another client may have been faster.
        match (self.describe(name, deadline).await?, created) {
            (Some(found), _) => Ok(found),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(missing("collection that was created")),
        }
    }

    /// Makes the missing indexes. A collection without any that the server rejects an index for is dropped again: it
    /// could never be loaded.
    async fn complete(
        &self,
        config: &CollectionConfig,
        existing: &[IndexDescription],
        deadline: Deadline,
    ) -> Result<()> {
        for (field, extra_params) in new_indexes(config) {
            if existing.iter().any(|index| index.field_name == field) {
                continue;
            }
            let request = CreateIndexRequest {
                collection_name: config.collection_name.clone(),
                field_name: field.to_owned(),
                extra_params,
                ..CreateIndexRequest::default()
            };
            let Err(error) = self.connection.call(&request, deadline).await else { continue };
            let is_final = !error.is_retryable() && error.kind() != ErrorKind::Closed;
            if existing.is_empty() && is_final {
                // The error of the index is what the caller has to know.
                let _ = self.send_drop(&config.collection_name, deadline).await;
            }
            return Err(error.with_context("field", field));
        }
        Ok(())
    }

    async fn describe(&self, name: &str, deadline: Deadline) -> Result<Option<DescribeCollectionResponse>> {
        if !is_valid_name(name) {
            return Ok(None);
        }
        let request = DescribeCollectionRequest { collection_name: name.to_owned(), ..Default::default() };
        match self.connection.call(&request, deadline).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing_collection(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn indexes(&self, name: &str, deadline: Deadline) -> Result<Vec<IndexDescription>> {
        let request = DescribeIndexRequest { collection_name: name.to_owned(), ..Default::default() };
        match self.connection.call(&request, deadline).await {
            Ok(found) => Ok(found.index_descriptions),
            Err(error) if is_missing_index(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Loads the collection, unless it is loaded, and waits until it is.
    pub(super) async fn load(&self, name: &str, deadline: Deadline) -> Result<()> {
        if self.load_state(name, deadline).await? == LoadState::Loaded {
            return Ok(());
        }
        let request = LoadCollectionRequest { collection_name: name.to_owned(), ..Default::default() };
        self.connection.call(&request, deadline).await?;
        let wait = async {
            let mut pause = POLL.0;
            while self.load_state(name, deadline).await? != LoadState::Loaded {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL.1);
            }
            Ok(())
        };
        deadline.run(COMPONENT, "loading the collection (milvus.load_timeout)", wait).await?
    }

    async fn load_state(&self, name: &str, deadline: Deadline) -> Result<LoadState> {
        let request = GetLoadStateRequest { collection_name: name.to_owned(), ..Default::default() };
        Ok(self.connection.call(&request, deadline).await?.state())
    }

    /// The names of all collections, sorted.
    pub(super) async fn list(&self) -> Result<Vec<String>> {
        let request = ShowCollectionsRequest::default();
        let mut found = self.connection.call(&request, self.connection.deadline()).await?;
        found.collection_names.sort_unstable();
        Ok(found.collection_names)
    }

    /// Drops a collection once its running writes are done.
    pub(super) async fn drop_collection(&self, name: &str) -> Result<()> {
        self.connection.check_open()?;
        let deadline = self.connection.deadline();
        let found = self.describe(name, deadline).await?.ok_or_else(|| not_found(name))?;
        let live = self.live(name, found.collection_id);
        let _no_writes = deadline.run(COMPONENT, "waiting for running writes", live.writes.write()).await?;
        self.send_drop(name, deadline).await?;
        live.dropped.cancel();
        self.live.lock().retain(|_, other| !Arc::ptr_eq(other, &live));
        Ok(())
    }

    async fn send_drop(&self, name: &str, deadline: Deadline) -> Result<()> {
        let request = DropCollectionRequest { collection_name: name.to_owned(), ..Default::default() };
        self.connection.call(&request, deadline).await.map(drop)
    }

    /// The shared state of the collection with this id. Handles to an earlier one of the same name end.
    fn live(&self, name: &str, id: i64) -> Arc<Live> {
        let mut live = self.live.lock();
        if let Some(existing) = live.get(name) {
            if existing.id == id {
                return Arc::clone(existing);
            }
            existing.dropped.cancel();
        }
        let new = Arc::new(Live {
            id,
            last_write: AtomicU64::new(0),
            untimed: AtomicU64::new(0),
            covered: AtomicU64::new(0),
            writes: tokio::sync::RwLock::default(),
            dropped: CancellationToken::new(),
        });
        live.insert(name.to_owned(), Arc::clone(&new));
        new
    }
}

impl Live {
    /// To be called before a write, for [`written`](Self::written).
    pub(super) fn begin_write(&self) -> u64 {
        self.untimed.load(Ordering::Acquire)
    }

    /// Notes a write, so that requests of the level `Session` see it.
    pub(super) fn written(&self, begun: u64, timestamp: u64) {
        if timestamp == 0 {
            self.untimed.fetch_add(1, Ordering::AcqRel);
        } else {
            self.last_write.fetch_max(timestamp, Ordering::AcqRel);
            self.covered.fetch_max(begun, Ordering::AcqRel);
        }
    }

    /// What a request sees. After a write of unknown time, only `Strong` is sure to see it.
    pub(super) fn guarantee(&self, consistency: Consistency) -> Guarantee {
        let is_unsure = self.covered.load(Ordering::Acquire) < self.untimed.load(Ordering::Acquire);
        let consistency = match consistency {
            Consistency::Session if is_unsure => Consistency::Strong,
            other => other,
        };
        Guarantee::new(consistency, self.last_write.load(Ordering::Acquire))
    }
}

/// No collection has an invalid name, which servers answer with other errors than `NotFound`.
pub(super) fn is_valid_name(name: &str) -> bool {
    validation::check_config(&CollectionConfig::new(name, 1)).is_ok()
}

/// Versions before 2.3.4 say it in the text only.
pub(super) fn is_missing_collection(error: &Error) -> bool {
    let says = |words: &str| error.context().any(|(name, value)| name == "server" && value.contains(words));
    error.kind() == ErrorKind::NotFound && !says("database")
        || says("can't find collection")
        || says("collection not found")
}

pub(super) fn is_missing_index(error: &Error) -> bool {
    let says = |words: &str| error.context().any(|(name, value)| name == "server" && value.contains(words));
    error.outcome() != Outcome::NotSent
        && (says("index not found") || says("index not exist") || says("no index"))
}

pub(super) fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, COMPONENT, format!("collection {name:?} does not exist")).not_sent()
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, COMPONENT, format!("malformed response: no {what}"))
}
