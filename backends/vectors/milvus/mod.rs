//! Vectors in Milvus.

mod catalog;
mod client;
mod collection;
mod columns;
mod connection;
mod engine;
mod errors;
mod insert;
mod legacy;
mod legacy_collection;
mod python_floats;
mod requests;
mod rows;
mod rpc;
mod schema;
mod settings;
mod tls;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use milvus::proto::milvus::{CheckHealthRequest, ConnectRequest};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::catalog::Catalog;
use self::collection::MilvusCollection;
use self::connection::Connection;
use self::engine::Engine;
use self::settings::Settings;
use crate::support::truncated;
use crate::vectors::{
    Collection, CollectionConfig, CompareOp, Expr, Filter, Operand, VectorCapabilities, VectorStats,
    VectorStore, validation,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase, unsupported_limit_error,
};

pub use self::legacy::LegacyMilvusStore;

/// The component that errors name.
const COMPONENT: &str = "vectors.milvus";

/// Collections in Milvus 2.3 or newer, shared with Python arshai: both create the same schemas and indexes.
///
/// It connects when it is first used, over one HTTP/2 connection for all callers, and again after the connection is
/// lost. Every request has a deadline (`milvus.request_timeout`), connecting and retries included; loading and flushing
/// have their own (`milvus.load_timeout`). A request that changes nothing is tried three times; a write is repeated only
/// if it was certainly not done.
///
/// Opening a collection loads it. All consistency levels are Milvus's own: with `Session`, the default, a request sees
/// the writes made through this store. Ids are Milvus's, and have no order that says when they were inserted. An insert
/// is durable once it is acknowledged; [`flush`](Collection::flush) moves it to Milvus's storage, takes seconds and is
/// limited by the server to about one per collection in ten seconds.
///
/// A collection dropped by another client is `NotFound`; one that was created again by another client in the meantime
/// is used as if it were the same, until it is opened again.
///
/// Sparse vectors need Milvus 2.4, or the engine of `milvus-lite` 2.x;
/// [`capabilities`](VectorStore::capabilities) knows the server once it is connected, and assumes a current version
/// before.
#[derive(Debug)]
pub struct MilvusStore {
    catalog: Arc<Catalog>,
    /// Ends creations that nobody waits for.
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl MilvusStore {
    /// Its name in the configuration.
    pub const NAME: &'static str = "milvus";

    /// A store with the settings of a runtime's configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// `Config` for an invalid host, database, token or pair of client certificate and key.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let stop = CancellationToken::new();
        let connection = Connection::new(Settings::new(&context.config)?);
        let _stop_on_drop = stop.clone().drop_guard();
        Ok(Self { catalog: Arc::new(Catalog::new(connection)), stop, _stop_on_drop })
    }

    fn connection(&self) -> &Connection {
        &self.catalog.connection
    }

    fn open_deadline(&self) -> Deadline {
        Deadline::after(self.connection().settings.load_timeout)
    }
}

#[async_trait]
impl Component for MilvusStore {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("vectors")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![self.connection().pending.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let deadline = deadline.min(self.connection().deadline());
        let result = match self.connection().call(&CheckHealthRequest {}, deadline).await {
            Ok(answer) if !answer.is_healthy => {
                return Health::Degraded { reason: truncated(&answer.reasons.join("; "), 300).into_owned() };
            }
            // The small engine has no such request.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.connection().call(&ConnectRequest::default(), deadline).await.map(drop)
            }
            result => result.map(drop),
        };
        match result {
            Ok(()) => Health::Healthy,
            Err(error) => Health::unhealthy(error.to_string()),
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != self.connection().pending.key() {
            return Err(unsupported_limit_error(COMPONENT, key));
        }
        self.connection().pending.set_max(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let report = self.connection().close(deadline).await;
        self.stop.cancel();
        report
    }
}

#[async_trait]
impl VectorStore for MilvusStore {
    async fn connect(&self) -> Result<()> {
        self.connection().engine(self.connection().deadline()).await.map(drop)
    }

    async fn get_or_create_collection(&self, config: &CollectionConfig) -> Result<Arc<dyn Collection>> {
        validation::check_config(config)?;
        self.connection().check_open()?;
        let (catalog, config, deadline) = (Arc::clone(&self.catalog), config.clone(), self.open_deadline());
        let stop = self.stop.clone();
        // In a task, so that dropping the future leaves no collection without its indexes.
        let creation = tokio::spawn(async move {
            let work = async {
                let (schema, live) = catalog.open_or_create(&config, deadline).await?;
                Ok(Arc::new(MilvusCollection::new(Arc::clone(&catalog), schema, live)) as Arc<dyn Collection>)
            };
            stop.run_until_cancelled(work).await
        });
        match creation.await {
            Ok(Some(result)) => result,
            Ok(None) => Err(Error::new(ErrorKind::Closed, COMPONENT, "store is closed")),
            Err(cause) => {
                Err(Error::new(ErrorKind::Internal, COMPONENT, "opening a collection failed")
                    .with_source(cause))
            }
        }
    }

    async fn get_collection(&self, name: &str) -> Result<Arc<dyn Collection>> {
        let (schema, live) = self.catalog.open(name, self.open_deadline()).await?;
        Ok(Arc::new(MilvusCollection::new(Arc::clone(&self.catalog), schema, live)))
    }

    async fn list_collections(&self) -> Result<Vec<String>> {
        self.catalog.list().await
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        self.catalog.drop_collection(name).await
    }

    fn capabilities(&self) -> VectorCapabilities {
        let mut capabilities = VectorCapabilities::default();
        capabilities.sparse = self.connection().known_engine().is_none_or(Engine::has_sparse);
        capabilities
    }

    fn stats(&self) -> VectorStats {
        let searches = self.catalog.searches.load(Ordering::Relaxed);
        VectorStats::new(self.catalog.len() as u64, 0, 0, searches)
    }
}

/// The filter in the syntax of this engine.
///
/// # Errors
/// `Unsupported` for what the engine cannot evaluate.
fn expression(filter: &Filter, config: &CollectionConfig, engine: Engine) -> Result<String> {
    filter.to_milvus(config, &engine.dialect())
}

/// Whether an expression, as it is sent, names ids and nothing else. One that is too long to be parsed is taken for such.
/// `doc_id == ""`, which is sent for a filter that is never true, is one.
fn is_by_id(expression: &str, config: &CollectionConfig) -> bool {
    let is_key = |operand: &Operand| matches!(operand, Operand::Field(path) if path.field == config.pk_field);
    match Filter::parse(expression).as_ref().map(Filter::expr) {
        Ok(Expr::In { operand, negated: false, .. }) => is_key(operand),
        Ok(Expr::Compare { op: CompareOp::Equal, left, right }) => is_key(left) || is_key(right),
        Ok(_) => false,
        Err(_) => true,
    }
}
