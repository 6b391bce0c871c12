//! Our store and the bare SDK, doing the same work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arshai::vectors::{
    BulkInsertOptions, Collection, CollectionConfig, Consistency, Entity, SearchRequest, VectorStore,
    entity_stream,
};
use arshai::{Arshai, Config};
use futures_util::{StreamExt, TryStreamExt, stream};
use milvus::v2::client::ClientV2;
use milvus::v2::prelude::{ConnectConfig, ConsistencyLevel, FieldData, InsertRequest, SearchVectors};

use crate::rows::{DIM, row, vector};

const LIMIT: usize = 10;
/// The batches of our store, given to the SDK too.
const BATCH: usize = 1_000;
const PARALLEL: usize = 4;

/// A store of ours, as the application gets it.
pub(crate) struct Ours {
    store: Arc<dyn VectorStore>,
    collections: AtomicUsize,
    _runtime: Arshai,
}

impl Ours {
    pub(crate) async fn connect(port: u16, disable_optimizations: bool) -> Self {
        let mut config = Config::default();
        config.vectors.backend = "milvus".into();
        config.rollback.disable_optimizations = disable_optimizations;
        config.milvus.host = "127.0.0.1".into();
        config.milvus.port = port;
        let runtime = Arshai::builder(config).build().expect("the configuration is valid");
        let store = Arc::clone(runtime.vectors().expect("it is configured"));
        store.connect().await.expect("the server runs");
        Self { store, collections: AtomicUsize::new(0), _runtime: runtime }
    }

    /// Runs `fill` with the name of a collection that is dropped afterwards.
    pub(crate) async fn in_new_collection(&self, fill: impl AsyncFnOnce(String) -> f64) -> f64 {
        let number = self.collections.fetch_add(1, Ordering::Relaxed);
        let name = format!("filled_{}_{number}", std::process::id());
        self.create(&name).await;
        let figure = fill(name.clone()).await;
        self.store.drop_collection(&name).await.expect("it is there");
        figure
    }

    pub(crate) async fn create(&self, name: &str) {
        self.store.get_or_create_collection(&CollectionConfig::new(name, DIM)).await.expect("it is created");
    }

    pub(crate) async fn open(&self, name: &str) -> Arc<dyn Collection> {
        self.store.get_collection(name).await.expect("it is there")
    }

    /// Rows a second of a bulk insert.
    pub(crate) async fn fill(&self, name: String, rows: usize, flush: bool) -> f64 {
        let collection = self.open(&name).await;
        let began = Instant::now();
        let entities = (0..rows).map(|number| {
            let (text, metadata, vector) = row(number);
            Entity::new(text, vector).with_metadata(metadata)
        });
        let options = BulkInsertOptions::default().with_flush(flush).with_ids(false);
        let report = collection.bulk_insert_optimized(entity_stream(entities), options).await;
        let report = report.into_result().expect("everything is written");
        assert_eq!(report.written_count(), rows as u64);
        rows as f64 / began.elapsed().as_secs_f64()
    }
}

/// One search of ours, with everything but the vectors in its hits.
pub(crate) async fn search_ours(collection: Arc<dyn Collection>, seed: usize) {
    let request = SearchRequest::new(vector(seed)).with_limit(LIMIT).with_consistency(Consistency::Bounded);
    let hits = collection.search_by_vector(request).await.expect("it searches");
    assert_eq!(hits[0].len(), LIMIT);
}

/// The official SDK, with the settings that its users need.
#[derive(Clone)]
pub(crate) struct Sdk(Arc<ClientV2>);

impl Sdk {
    pub(crate) async fn connect(port: u16) -> Self {
        let config = ConnectConfig::new()
            .uri(format!("http://127.0.0.1:{port}"))
            .rpc_timeout(Duration::from_secs(120))
            .telemetry(milvus::v2::prelude::TelemetryConfig::new().enabled(false));
        Self(Arc::new(ClientV2::new(&config).await.expect("the server runs")))
    }

    /// Rows a second of inserts by columns, several batches at a time.
    pub(crate) async fn fill(&self, name: String, rows: usize, flush: bool) -> f64 {
        let began = Instant::now();
        let batches = stream::iter((0..rows).step_by(BATCH)).map(|first| {
            let numbers = first..rows.min(first + BATCH);
            let (client, name) = (Arc::clone(&self.0), name.clone());
            async move {
                let (mut texts, mut metadata, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
                for number in numbers {
                    let (text, json, vector) = row(number);
                    texts.push(text);
                    metadata.push(json);
                    vectors.push(vector);
                }
                let columns = vec![
                    FieldData::varchar("content", texts),
                    FieldData::json("metadata", metadata),
                    FieldData::float_vector("dense_vector", vectors),
                ];
                let request = InsertRequest::builder().collection_name(name).columns(columns).build()?;
                client.insert(request).await.map(|inserted| inserted.insert_count())
            }
        });
        let inserted =
            batches.buffer_unordered(PARALLEL).try_fold(0, |sum, count| async move { Ok(sum + count) });
        let inserted = inserted.await.expect("everything is written");
        assert_eq!(inserted as usize, rows);
        if flush {
            let request = milvus::v2::request::utility::FlushRequest::builder().collection_names([name]);
            self.0.flush(request.build().expect("a valid request")).await.expect("it flushes");
        }
        rows as f64 / began.elapsed().as_secs_f64()
    }

    /// One search, with everything but the vectors in its hits: by columns, as its rows need the name of the primary key,
    /// which Milvus 2.3 does not send.
    pub(crate) async fn search(self, name: &'static str, seed: usize) {
        let request = milvus::v2::prelude::SearchRequest::builder()
            .collection_name(name)
            .vector_field("dense_vector")
            .vectors(SearchVectors::Float(vec![vector(seed)]))
            .output_fields(["doc_id", "content", "metadata"])
            .limit(LIMIT as i64)
            .consistency_level(ConsistencyLevel::Bounded)
            .build();
        let found = self.0.search(request.expect("a valid request")).await.expect("it searches");
        let hits = found.results().iter().next().expect("one list");
        assert_eq!((hits.len(), hits.get_output_fields().len()), (LIMIT, 3));
    }
}
