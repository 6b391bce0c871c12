//! One collection: a handle that sends requests by its name.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use milvus::proto::milvus::{FlushRequest, GetFlushStateRequest, MutationResult};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::COMPONENT;
use super::catalog::{Catalog, Live};
use super::connection::Connection;
use super::insert::EncodedInsert;
use super::requests::{self, Selection};
use super::rows::{count, id_strings, query_hits, search_hits};
use super::rpc::Rpc;
use super::schema::Schema;
use super::{errors, expression, is_by_id};
use crate::vectors::{
    BatchLimits, BulkInsertOptions, BulkInsertReport, Collection, CollectionConfig, CollectionStats,
    Consistency, Entity, EntityStream, Filter, Hit, HybridSearchRequest, QueryRequest, QueryVectors,
    SearchRequest, insert_in_batches, validation,
};
use crate::{Deadline, Error, ErrorKind, Result};

/// Batches of a bulk insert in progress.
const BULK_CONCURRENCY: usize = 4;
/// Time between two looks at a flush: the first, doubled up to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// A handle to a collection of a [`MilvusStore`](super::MilvusStore).
#[derive(Debug, Clone)]
pub(super) struct MilvusCollection {
    catalog: Arc<Catalog>,
    schema: Arc<Schema>,
    live: Arc<Live>,
}

impl MilvusCollection {
    pub(super) fn new(catalog: Arc<Catalog>, schema: Schema, live: Arc<Live>) -> Self {
        Self { catalog, schema: Arc::new(schema), live }
    }

    fn name(&self) -> &str {
        &self.schema.config.collection_name
    }

    fn connection(&self) -> &Connection {
        &self.catalog.connection
    }

    /// # Errors
    /// `Closed`, or `NotFound` once the collection was dropped through this store.
    fn check_usable(&self) -> Result<()> {
        self.connection().check_open()?;
        if self.live.dropped.is_cancelled() { Err(self.dropped_error()) } else { Ok(()) }
    }

    fn dropped_error(&self) -> Error {
        let message = format!("collection {:?} was dropped", self.name());
        Error::new(ErrorKind::NotFound, COMPONENT, message).not_sent()
    }

    /// Sends a read, which ends with the collection. One that another client has released is loaded again.
    async fn read<R: Rpc>(&self, request: &R, deadline: Deadline) -> Result<R::Reply> {
        let work = async {
            match self.connection().call(request, deadline).await {
                Err(error) if errors::is_not_loaded(&error) => {
                    self.catalog.load(self.name(), deadline).await?;
                    self.connection().call(request, deadline).await
                }
                result => result,
            }
        };
        tokio::select! {
            biased;
            () = self.live.dropped.cancelled() => Err(self.dropped_error()),
            result = work => result,
        }
    }

    /// Sends a write, which a drop of the collection waits for.
    async fn write<R: Rpc<Reply = MutationResult>>(
        &self,
        request: &R,
        deadline: Deadline,
    ) -> Result<MutationResult> {
        let waiting = "waiting for the drop of the collection";
        let _writing = deadline.run(COMPONENT, waiting, self.live.writes.read()).await?;
        self.check_usable()?;
        let begun = self.live.begin_write();
        let result = self.connection().call(request, deadline).await?;
        self.live.written(begun, result.timestamp);
        Ok(result)
    }

    /// What a search or query asks of the entities, in the words of the engine.
    async fn selection(
        &self,
        filter: Option<&Filter>,
        output_fields: Option<&[String]>,
        consistency: Consistency,
        deadline: Deadline,
    ) -> Result<Selection> {
        let engine = self.connection().engine(deadline).await?;
        let guarantee = self.live.guarantee(consistency);
        Selection::new(&self.schema.config, engine, filter, output_fields, guarantee)
    }

    /// A sparse vector without dimensions has none in common with any entity: it finds nothing and is not sent.
    fn split_empty(vectors: QueryVectors) -> (QueryVectors, Vec<bool>) {
        match vectors {
            QueryVectors::Sparse(vectors) => {
                let is_sent: Vec<bool> = vectors.iter().map(|vector| !vector.is_empty()).collect();
                let sent = vectors.into_iter().filter(|vector| !vector.is_empty()).collect();
                (QueryVectors::Sparse(sent), is_sent)
            }
            dense => {
                let is_sent = vec![true; dense.len()];
                (dense, is_sent)
            }
        }
    }
}

#[async_trait]
impl Collection for MilvusCollection {
    fn config(&self) -> &CollectionConfig {
        &self.schema.config
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.check_usable()?;
        let config = &self.schema.config;
        let entities = validation::check_entities(config, entities)?;
        self.schema.check_strings(&entities)?;
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.connection().deadline();
        let engine = self.connection().engine(deadline).await?;
        let request = EncodedInsert::new(config, entities, self.connection().settings.python_floats);
        let (bytes, max) = (request.bytes.len(), engine.max_insert_bytes());
        if bytes > max {
            let message =
                format!("insert of {bytes} bytes exceeds the limit of {max}; use bulk_insert_optimized");
            return Err(Error::new(ErrorKind::TooLarge, COMPONENT, message).not_sent());
        }
        let result = self.write(&request, deadline).await?;
        let ids = id_strings(result.i_ds)?;
        if ids.len() != request.rows || !result.err_index.is_empty() {
            let message = format!("malformed response: {} ids for {} entities", ids.len(), request.rows);
            return Err(Error::new(ErrorKind::Protocol, COMPONENT, message));
        }
        Ok(ids)
    }

    async fn bulk_insert_optimized(
        &self,
        entities: EntityStream<'_>,
        options: BulkInsertOptions<'_>,
    ) -> BulkInsertReport {
        let limits = BatchLimits::new(self.connection().settings.batch_size, BULK_CONCURRENCY);
        let insert = |batch| self.insert_in_task(batch);
        insert_in_batches(entities, options, limits, insert, || self.flush()).await
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_search(config, &request)?;
        self.catalog.searches.fetch_add(1, Ordering::Relaxed);
        let output_fields = request.output_fields.as_deref();
        let (vectors, is_sent) = Self::split_empty(request.query_vectors);
        if vectors.is_empty() {
            return Ok(vec![Vec::new(); is_sent.len()]);
        }
        let deadline = self.connection().deadline();
        let filter = request.filter.as_ref();
        let selection = self.selection(filter, output_fields, request.consistency, deadline).await?;
        let engine = self.connection().engine(deadline).await?;
        let (skipped, offset) = match engine.skips_hits_of_each(&vectors) {
            true => (0, request.offset),
            false => (request.offset, 0),
        };
        let selection = Selection { limit: request.limit + skipped, offset, ..selection };
        let message = requests::search(config, &vectors, selection);
        let answer = self.read(&message, deadline).await?;
        let mut found = search_hits(config, answer, output_fields)?.into_iter();
        let mut page = || found.next().unwrap_or_default().into_iter().skip(skipped).collect();
        Ok(is_sent.into_iter().map(|is_sent| if is_sent { page() } else { Vec::new() }).collect())
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_hybrid_search(config, &request)?;
        if request.sparse.is_empty() {
            return self.rank_dense_alone(request).await;
        }
        self.catalog.searches.fetch_add(1, Ordering::Relaxed);
        let output_fields = request.output_fields.as_deref();
        let deadline = self.connection().deadline();
        let filter = request.filter.as_ref();
        let selection = self.selection(filter, output_fields, request.consistency, deadline).await?;
        let selection = Selection { limit: request.limit, offset: request.offset, ..selection };
        let vectors = [request.dense.into(), request.sparse.into()];
        let message = requests::hybrid_search(config, &vectors, request.ranker, &selection);
        let answer = self.read(&message, deadline).await?;
        Ok(search_hits(config, answer, output_fields)?.into_iter().next().unwrap_or_default())
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.check_usable()?;
        let config = &self.schema.config;
        let limit = validation::check_query(config, &request)?;
        let output_fields = request.output_fields.as_deref();
        let deadline = self.connection().deadline();
        let filter = Some(&request.filter);
        let mut selection = self.selection(filter, output_fields, request.consistency, deadline).await?;
        (selection.limit, selection.offset) = (limit, request.offset);
        if !selection.output_fields.contains(&config.pk_field) {
            selection.output_fields.push(config.pk_field.clone());
        }
        let message = requests::query(config, selection);
        let answer = self.read(&message, deadline).await?;
        query_hits(config, answer, output_fields)
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_filter(config, filter)?;
        let deadline = self.connection().deadline();
        let engine = self.connection().engine(deadline).await?;
        let expression = expression(filter, config, engine)?;
        let by_id = match engine.counts_deleted_ids() && is_by_id(&expression, config) {
            true => Some(self.count(&expression, deadline).await?),
            false => None,
        };
        let result = self.write(&requests::delete(config, expression), deadline).await?;
        Ok(by_id.unwrap_or_else(|| u64::try_from(result.delete_cnt).unwrap_or(0)))
    }

    /// Counts with a query of the level `Strong`: exact, unlike the number that Milvus keeps.
    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.check_usable()?;
        let deadline = self.connection().deadline();
        Ok(CollectionStats::new(self.name(), self.count("", deadline).await?, None))
    }

    /// Writes everything to Milvus's storage. An acknowledged insert survives without it, in Milvus's log; a server
    /// allows few flushes, and each takes seconds.
    async fn flush(&self) -> Result<()> {
        self.check_usable()?;
        let deadline = Deadline::after(self.connection().settings.load_timeout);
        let request =
            FlushRequest { collection_names: vec![self.name().to_owned()], ..FlushRequest::default() };
        let started = self.connection().call(&request, deadline).await?;
        let Some(flush_ts) = started.coll_flush_ts.get(self.name()).copied() else { return Ok(()) };
        let segments = started.coll_seg_i_ds.get(self.name()).map(|ids| ids.data.clone()).unwrap_or_default();
        let state = GetFlushStateRequest {
            segment_i_ds: segments,
            flush_ts,
            collection_name: self.name().to_owned(),
            ..GetFlushStateRequest::default()
        };
        let wait = async {
            let mut pause = POLL.0;
            while !self.connection().call(&state, deadline).await?.flushed {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(POLL.1);
            }
            Ok(())
        };
        deadline.run(COMPONENT, "flushing the collection (milvus.load_timeout)", wait).await?
    }
}

impl MilvusCollection {
    /// Inserts in a task: the batches of a bulk insert are checked and encoded beside each other, and beside the reading of
    /// the stream.
    async fn insert_in_task(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        let collection = self.clone();
        let insertion = async move { collection.insert_entities(entities).await };
        let Ok(runtime) = Handle::try_current() else { return insertion.await };
        let inserted = AbortOnDropHandle::new(runtime.spawn(insertion)).await;
        inserted.unwrap_or_else(|cause| {
            let message = "task of an insert ended early";
            Err(Error::new(ErrorKind::Internal, COMPONENT, message).with_source(cause))
        })
    }

    /// The number of entities that match, by a query of the level `Strong`.
    async fn count(&self, expression: &str, deadline: Deadline) -> Result<u64> {
        count(&self.read(&requests::count(&self.schema.config, expression), deadline).await?)
    }

    /// A hybrid search whose sparse vector finds nothing: the dense hits, scored by the ranker.
    async fn rank_dense_alone(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        let candidates = request.offset + request.limit;
        let mut search =
            SearchRequest::new(request.dense).with_limit(candidates).with_consistency(request.consistency);
        (search.filter, search.output_fields) = (request.filter, request.output_fields);
        let hits = self.search_by_vector(search).await?.into_iter().next().unwrap_or_default();
        let scored = hits.iter().enumerate().map(|(i, hit)| (i, hit.score)).collect();
        let ranked = request.ranker.merge(self.schema.config.metric, scored, Vec::new(), candidates);
        let mut hits: Vec<Option<Hit>> = hits.into_iter().map(Some).collect();
        let take = |(i, score): (usize, f32)| hits[i].take().map(|hit| Hit::new(hit.id, score, hit.fields));
        Ok(ranked.into_iter().skip(request.offset).filter_map(take).collect())
    }
}
