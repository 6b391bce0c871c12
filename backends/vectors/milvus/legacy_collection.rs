//! A collection of the legacy implementation.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::insert::EncodedInsert;
use super::legacy::Shared;
use super::requests::{self, Guarantee, Selection};
use super::rows::{count, id_strings, query_hits, search_hits};
use super::schema::Schema;
use super::{COMPONENT, expression, is_by_id};
use crate::vectors::{
    BatchLimits, BulkInsertOptions, BulkInsertReport, Collection, CollectionConfig, CollectionStats,
    Consistency, Entity, EntityStream, Filter, Hit, HybridSearchRequest, QueryRequest, QueryVectors,
    SearchRequest, insert_in_batches, validation,
};
use crate::{Error, ErrorKind, Outcome, Result};

#[derive(Debug)]
pub(super) struct LegacyCollection {
    shared: Arc<Shared>,
    schema: Schema,
    dropped: CancellationToken,
}

impl LegacyCollection {
    pub(super) fn new(shared: Arc<Shared>, schema: Schema, dropped: CancellationToken) -> Self {
        Self { shared, schema, dropped }
    }

    fn check_usable(&self) -> Result<()> {
        self.shared.check_open()?;
        if self.dropped.is_cancelled() {
            let message = format!("collection {:?} was dropped", self.schema.config.collection_name);
            return Err(Error::new(ErrorKind::NotFound, COMPONENT, message).not_sent());
        }
        Ok(())
    }

    async fn insert_batch(&self, batch: Vec<Entity>) -> Result<Vec<String>> {
        let request = EncodedInsert::new(&self.schema.config, batch, self.shared.settings.python_floats);
        let result = self.shared.call(&request).await?;
        id_strings(result.i_ds)
    }

    async fn selection(
        &self,
        filter: Option<&Filter>,
        output_fields: Option<&[String]>,
        consistency: Consistency,
    ) -> Result<Selection> {
        let engine = self.shared.engine().await?;
        // Another handle may have written last; only the server knows.
        let consistency = if consistency == Consistency::Session { Consistency::Strong } else { consistency };
        let guarantee = Guarantee::new(consistency, 0);
        Selection::new(&self.schema.config, engine, filter, output_fields, guarantee)
    }
}

#[async_trait]
impl Collection for LegacyCollection {
    fn config(&self) -> &CollectionConfig {
        &self.schema.config
    }

    async fn insert_entities(&self, entities: Vec<Entity>) -> Result<Vec<String>> {
        self.check_usable()?;
        let entities = validation::check_entities(&self.schema.config, entities)?;
        self.schema.check_strings(&entities)?;
        if entities.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::with_capacity(entities.len());
        let mut entities = entities.into_iter().peekable();
        while entities.peek().is_some() {
            let batch = entities.by_ref().take(self.shared.settings.batch_size).collect();
            match self.insert_batch(batch).await {
                Ok(inserted) => ids.extend(inserted),
                // Earlier batches stay.
                Err(error) if !ids.is_empty() => return Err(error.with_outcome(Outcome::Unknown)),
                Err(error) => return Err(error),
            }
        }
        // The entities are inserted, whether or not they could be flushed.
        if let Err(error) = self.shared.flush(&self.schema.config.collection_name).await {
            tracing::warn!(db.system.name = "milvus", %error, "failed to flush after an insert");
        }
        Ok(ids)
    }

    async fn bulk_insert_optimized(
        &self,
        entities: EntityStream<'_>,
        options: BulkInsertOptions<'_>,
    ) -> BulkInsertReport {
        let limits = BatchLimits::new(self.shared.settings.batch_size, 1);
        insert_in_batches(entities, options, limits, |batch| self.insert_entities(batch), || self.flush())
            .await
    }

    async fn search_by_vector(&self, request: SearchRequest) -> Result<Vec<Vec<Hit>>> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_search(config, &request)?;
        self.shared.searches.fetch_add(1, Ordering::Relaxed);
        let output_fields = request.output_fields.as_deref();
        let queries: Vec<QueryVectors> = match request.query_vectors {
            QueryVectors::Dense(vectors) => vectors.into_iter().map(QueryVectors::from).collect(),
            QueryVectors::Sparse(vectors) => vectors.into_iter().map(QueryVectors::from).collect(),
        };
        let mut hits = Vec::with_capacity(queries.len());
        for query in queries {
            if matches!(&query, QueryVectors::Sparse(vectors) if vectors[0].is_empty()) {
                hits.push(Vec::new());
                continue;
            }
            let filter = request.filter.as_ref();
            let selection = self.selection(filter, output_fields, request.consistency).await?;
            let selection = Selection { limit: request.limit, offset: request.offset, ..selection };
            let answer = self.shared.call(&requests::search(config, &query, selection)).await?;
            hits.push(search_hits(config, answer, output_fields)?.into_iter().next().unwrap_or_default());
        }
        Ok(hits)
    }

    async fn hybrid_search(&self, request: HybridSearchRequest) -> Result<Vec<Hit>> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_hybrid_search(config, &request)?;
        self.shared.searches.fetch_add(1, Ordering::Relaxed);
        let output_fields = request.output_fields.as_deref();
        let filter = request.filter.as_ref();
        let selection = self.selection(filter, output_fields, request.consistency).await?;
        let selection = Selection { limit: request.limit, offset: request.offset, ..selection };
        let vectors = [request.dense.into(), request.sparse.into()];
        let message = requests::hybrid_search(config, &vectors, request.ranker, &selection);
        let answer = self.shared.call(&message).await?;
        Ok(search_hits(config, answer, output_fields)?.into_iter().next().unwrap_or_default())
    }

    async fn query_by_expr(&self, request: QueryRequest) -> Result<Vec<Hit>> {
        self.check_usable()?;
        let config = &self.schema.config;
        let limit = validation::check_query(config, &request)?;
        let output_fields = request.output_fields.as_deref();
        let filter = Some(&request.filter);
        let mut selection = self.selection(filter, output_fields, request.consistency).await?;
        (selection.limit, selection.offset) = (limit, request.offset);
        if !selection.output_fields.contains(&config.pk_field) {
            selection.output_fields.push(config.pk_field.clone());
        }
        query_hits(config, self.shared.call(&requests::query(config, selection)).await?, output_fields)
    }

    async fn delete_entity(&self, filter: &Filter) -> Result<u64> {
        self.check_usable()?;
        let config = &self.schema.config;
        validation::check_filter(config, filter)?;
        let engine = self.shared.engine().await?;
        let expression = expression(filter, config, engine)?;
        let by_id = match engine.counts_deleted_ids() && is_by_id(&expression, config) {
            true => Some(count(&self.shared.call(&requests::count(config, &expression)).await?)?),
            false => None,
        };
        let result = self.shared.call(&requests::delete(config, expression)).await?;
        Ok(by_id.unwrap_or_else(|| u64::try_from(result.delete_cnt).unwrap_or(0)))
    }

    async fn get_collection_stats(&self) -> Result<CollectionStats> {
        self.check_usable()?;
        let config = &self.schema.config;
        let answer = self.shared.call(&requests::count(config, "")).await?;
        Ok(CollectionStats::new(&config.collection_name, count(&answer)?, None))
    }

    async fn flush(&self) -> Result<()> {
        self.check_usable()?;
        self.shared.flush(&self.schema.config.collection_name).await
    }
}
