//! The legacy implementation: the inserts of Python arshai's client.
//!
//! Rows go in batches of 50, one after the other, and every call flushes. There are neither retries nor a limit of
//! pending requests. Only the formats are shared with the optimised store: both read and write the same collections.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use milvus::proto::common::LoadState;
use milvus::proto::milvus::{
    ConnectRequest, CreateCollectionRequest, CreateIndexRequest, DescribeCollectionRequest,
    DescribeIndexRequest, DropCollectionRequest, FlushRequest, GetFlushStateRequest, GetLoadStateRequest,
    GetVersionRequest, LoadCollectionRequest, ShowCollectionsRequest,
};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::engine::Engine;
use super::legacy_collection::LegacyCollection;
use super::rpc::Rpc;
use super::schema::{Schema, new_indexes, new_schema};
use super::settings::Settings;
use super::{COMPONENT, catalog};
use crate::support::opaque_debug;
use crate::vectors::{
    Collection, CollectionConfig, VectorCapabilities, VectorStats, VectorStore, validation,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase,
};

/// Time between two looks at a collection that is loading or flushing.
const PAUSE: Duration = Duration::from_millis(100);

/// Milvus as Python arshai uses it: batches of 50 rows in sequence and a flush per insert. Selected by
/// `ARSHAI_DISABLE_OPTIMIZATIONS` instead of [`MilvusStore`](super::MilvusStore), whose collections it shares.
#[derive(Debug)]
pub struct LegacyMilvusStore {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    client: Mutex<Option<Client>>,
    engine: Mutex<Option<Engine>>,
    /// Ends when the collection is dropped.
    collections: Mutex<HashMap<String, CancellationToken>>,
    pub(super) searches: AtomicU64,
    closed: CancellationToken,
}

impl LegacyMilvusStore {
    /// Its name in the configuration.
    pub const NAME: &'static str = "milvus_legacy";

    /// A store with the settings of a runtime's configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// `Config` for an invalid host, database, token or pair of client certificate and key.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let shared = Shared {
            settings: Settings::new(&context.config)?,
            client: Mutex::default(),
            engine: Mutex::default(),
            collections: Mutex::default(),
            searches: AtomicU64::new(0),
            closed: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, COMPONENT, "store is closed").not_sent());
        }
        Ok(())
    }

    /// Sends a request once.
    pub(super) async fn call<R: Rpc>(&self, request: &R) -> Result<R::Reply> {
        self.check_open()?;
        let client = self.client()?;
        let deadline = Deadline::after(self.settings.request_timeout);
        let result = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::Closed, COMPONENT, "store is closed")),
            result = deadline.run(COMPONENT, R::STEP, request.send(client, deadline)) => result.and_then(|result| result),
        };
        if result.is_err() {
            *self.client.lock() = None;
        }
        result.map_err(|error| error.with_context("operation", R::STEP))
    }

    fn client(&self) -> Result<Client> {
        let mut client = self.client.lock();
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(Client::connect_lazy(&self.settings)?).clone())
    }

    pub(super) async fn engine(&self) -> Result<Engine> {
        let known = *self.engine.lock();
        if let Some(engine) = known {
            return Ok(engine);
        }
        let engine = Engine::detect(self.call(&GetVersionRequest {}).await)?;
        *self.engine.lock() = Some(engine);
        Ok(engine)
    }

    async fn read_schema(&self, name: &str, wanted: Option<&CollectionConfig>) -> Result<Option<Schema>> {
        self.check_open()?;
        if !catalog::is_valid_name(name) {
            return Ok(None);
        }
        let request = DescribeCollectionRequest { collection_name: name.to_owned(), ..Default::default() };
        let found = match self.call(&request).await {
            Ok(found) => found.schema.unwrap_or_default(),
            Err(error) if catalog::is_missing_collection(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let request = DescribeIndexRequest { collection_name: name.to_owned(), ..Default::default() };
        let indexes = match self.call(&request).await {
            Ok(found) => found.index_descriptions,
            Err(error) if catalog::is_missing_index(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let schema = Schema::read(name, &found, &indexes, wanted).map_err(|reason| {
            let message = format!("collection {name:?} exists with a different schema: {reason}");
            Error::new(ErrorKind::InvalidInput, COMPONENT, message).not_sent()
        })?;
        Ok(Some(schema))
    }

    async fn create(&self, config: &CollectionConfig) -> Result<()> {
        if config.is_hybrid {
            self.engine().await?.check_sparse()?;
        }
        let collection_name = config.collection_name.clone();
        let schema = new_schema(config).encode_to_vec();
        self.call(&CreateCollectionRequest {
            collection_name,
            schema,
            consistency_level: 2,
            ..Default::default()
        })
        .await?;
        for (field, extra_params) in new_indexes(config) {
            let (collection_name, field_name) = (config.collection_name.clone(), field.to_owned());
            let request =
                CreateIndexRequest { collection_name, field_name, extra_params, ..Default::default() };
            self.call(&request).await?;
        }
        Ok(())
    }

    async fn load(&self, name: &str) -> Result<()> {
        self.call(&LoadCollectionRequest { collection_name: name.to_owned(), ..Default::default() }).await?;
        let request = GetLoadStateRequest { collection_name: name.to_owned(), ..Default::default() };
        let wait = async {
            while self.call(&request).await?.state() != LoadState::Loaded {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        Deadline::after(self.settings.load_timeout).run(COMPONENT, "loading the collection", wait).await?
    }

    pub(super) async fn flush(&self, name: &str) -> Result<()> {
        let request = FlushRequest { collection_names: vec![name.to_owned()], ..Default::default() };
        let started = self.call(&request).await?;
        let Some(flush_ts) = started.coll_flush_ts.get(name).copied() else { return Ok(()) };
        let segment_i_ds = started.coll_seg_i_ds.get(name).map(|ids| ids.data.clone()).unwrap_or_default();
        let collection_name = name.to_owned();
        let request = GetFlushStateRequest { segment_i_ds, flush_ts, collection_name, ..Default::default() };
        let wait = async {
            while !self.call(&request).await?.flushed {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        Deadline::after(self.settings.load_timeout).run(COMPONENT, "flushing the collection", wait).await?
    }

    fn dropped(&self, name: &str) -> CancellationToken {
        self.collections.lock().entry(name.to_owned()).or_default().clone()
    }
}

#[async_trait]
impl Component for LegacyMilvusStore {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("vectors")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let connect = ConnectRequest::default();
        match deadline.run(COMPONENT, "checking the health", self.shared.call(&connect)).await {
            Ok(Ok(_)) => Health::Healthy,
            Ok(Err(error)) | Err(error) => Health::unhealthy(error.to_string()),
        }
    }

    /// Aborts what is running.
    async fn close(&self, _: Deadline) -> CloseReport {
        self.shared.closed.cancel();
        *self.shared.client.lock() = None;
        CloseReport::idle()
    }
}

#[async_trait]
impl VectorStore for LegacyMilvusStore {
    async fn connect(&self) -> Result<()> {
        self.shared.check_open()?;
        self.shared.engine().await.map(drop)
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        validation::check_config(config)?;
        self.shared.check_open()?;
        let name = &config.collection_name;
        let schema = match self.shared.read_schema(name, Some(config)).await? {
            Some(schema) => schema,
            None => {
                self.shared.create(config).await?;
                let created = self.shared.read_schema(name, Some(config)).await?;
                created.ok_or_else(|| catalog::not_found(name))?
            }
        };
        validation::check_same_schema(&schema.config, config)?;
        self.shared.load(name).await?;
        let dropped = self.shared.dropped(name);
        Ok(Arc::new(LegacyCollection::new(Arc::clone(&self.shared), schema, dropped)))
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        self.shared.check_open()?;
        let schema = self.shared.read_schema(name, None).await?.ok_or_else(|| catalog::not_found(name))?;
        self.shared.load(name).await?;
        let dropped = self.shared.dropped(name);
        Ok(Arc::new(LegacyCollection::new(Arc::clone(&self.shared), schema, dropped)))
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        let mut names = self.shared.call(&ShowCollectionsRequest::default()).await?.collection_names;
        names.sort_unstable();
        Ok(names)
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        self.shared.read_schema(name, None).await?.ok_or_else(|| catalog::not_found(name))?;
        let request = DropCollectionRequest { collection_name: name.to_owned(), ..Default::default() };
        self.shared.call(&request).await?;
        if let Some(dropped) = self.shared.collections.lock().remove(name) {
            dropped.cancel();
        }
        Ok(())
    }

    fn capabilities(&self) -> VectorCapabilities {
        let mut capabilities = VectorCapabilities::default();
        capabilities.sparse = self.shared.engine.lock().is_none_or(Engine::has_sparse);
        capabilities
    }

    fn stats(&self) -> VectorStats {
        let collections = self.shared.collections.lock().len() as u64;
        VectorStats::new(collections, 0, 0, self.shared.searches.load(Ordering::Relaxed))
    }
}

opaque_debug!(Shared { settings });
