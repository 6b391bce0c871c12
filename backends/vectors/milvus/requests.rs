//! Requests in the form of Milvus.

use milvus::proto::common::{
    ConsistencyLevel, DslType, KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue,
};
use milvus::proto::milvus::search_request::SearchInput;
use milvus::proto::milvus::{DeleteRequest, HybridSearchRequest, QueryRequest, SearchRequest};
use prost::Message;
use serde_json::json;

use super::columns::{dense_bytes, sparse_bytes};
use super::engine::Engine;
use super::expression;
use super::schema::{metric_name, pair};
use crate::Result;
use crate::vectors::{CollectionConfig, Consistency, Filter, Metric, QueryVectors, Ranker};

/// Which writes a request sees: the level, and the time of the newest write that it must see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guarantee {
    level: ConsistencyLevel,
    timestamp: u64,
}

impl Guarantee {
    /// As the official clients compute it; `last_write` is this store's newest write to the collection.
    pub(super) fn new(consistency: Consistency, last_write: u64) -> Self {
        let (level, timestamp) = match consistency {
            Consistency::Strong => (ConsistencyLevel::Strong, 0),
            Consistency::Bounded => (ConsistencyLevel::Bounded, 2),
            Consistency::Eventually => (ConsistencyLevel::Eventually, 1),
            _ => (ConsistencyLevel::Session, last_write.max(1)),
        };
        Self { level, timestamp }
    }
}

/// What is asked of the entities, whatever they are searched by.
pub(super) struct Selection {
    pub(super) expression: String,
    pub(super) output_fields: Vec<String>,
    pub(super) limit: usize,
    pub(super) offset: usize,
    pub(super) guarantee: Guarantee,
}

impl Selection {
    /// Without a limit yet. The output fields default to all but vectors.
    pub(super) fn new(
        config: &CollectionConfig,
        engine: Engine,
        filter: Option<&Filter>,
        output_fields: Option<&[String]>,
        guarantee: Guarantee,
    ) -> Result<Self> {
        let all = || config.scalar_fields().map(str::to_owned).collect();
        Ok(Self {
            expression: filter
                .map(|filter| expression(filter, config, engine))
                .transpose()?
                .unwrap_or_default(),
            output_fields: output_fields.map_or_else(all, <[String]>::to_vec),
            limit: 0,
            offset: 0,
            guarantee,
        })
    }
}

pub(super) fn search(
    config: &CollectionConfig,
    vectors: &QueryVectors,
    selection: Selection,
) -> SearchRequest {
    let (field, metric, kind, values) = match vectors {
        QueryVectors::Dense(vectors) => {
            let values = vectors.iter().map(|vector| dense_bytes(vector)).collect();
            (&config.dense_field, config.metric, PlaceholderType::FloatVector, values)
        }
        QueryVectors::Sparse(vectors) => {
            let values = vectors.iter().map(sparse_bytes).collect();
            (&config.sparse_field, Metric::InnerProduct, PlaceholderType::SparseFloatVector, values)
        }
    };
    let placeholder =
        PlaceholderValue { tag: "$0".into(), r#type: kind.into(), values, ..PlaceholderValue::default() };
    let group = PlaceholderGroup { placeholders: vec![placeholder] };
    let metric = metric_name(metric);
    SearchRequest {
        collection_name: config.collection_name.clone(),
        dsl: selection.expression,
        dsl_type: DslType::BoolExprV1.into(),
        output_fields: selection.output_fields,
        search_params: vec![
            pair("anns_field", field),
            pair("topk", selection.limit),
            pair("offset", selection.offset),
            pair("metric_type", metric),
            pair("params", json!({"metric_type": metric})),
            pair("round_decimal", -1),
        ],
        guarantee_timestamp: selection.guarantee.timestamp,
        consistency_level: selection.guarantee.level.into(),
        nq: vectors.len() as i64,
        search_input: Some(SearchInput::PlaceholderGroup(group.encode_to_vec())),
        ..SearchRequest::default()
    }
}

pub(super) fn hybrid_search(
    config: &CollectionConfig,
    vectors: &[QueryVectors; 2],
    ranker: Ranker,
    selection: &Selection,
) -> HybridSearchRequest {
    let part = |vectors: &QueryVectors| {
        let part = Selection {
            expression: selection.expression.clone(),
            output_fields: Vec::new(),
            limit: selection.offset + selection.limit,
            offset: 0,
            guarantee: selection.guarantee,
        };
        search(config, vectors, part)
    };
    HybridSearchRequest {
        collection_name: config.collection_name.clone(),
        requests: vectors.iter().map(part).collect(),
        rank_params: rank_params(ranker, selection),
        output_fields: selection.output_fields.clone(),
        guarantee_timestamp: selection.guarantee.timestamp,
        consistency_level: selection.guarantee.level.into(),
        ..HybridSearchRequest::default()
    }
}

/// With `norm_score`, as pymilvus asks for it: scores of different metrics are normalised before they are weighted.
fn rank_params(ranker: Ranker, selection: &Selection) -> Vec<KeyValuePair> {
    let (strategy, params) = if let Ranker::ReciprocalRank { k } = ranker {
        ("rrf", json!({"k": k}))
    } else {
        let weights =
            if let Ranker::Weighted { dense, sparse } = ranker { [dense, sparse] } else { [0.5, 0.5] };
        ("weighted", json!({"weights": weights, "norm_score": true}))
    };
    vec![
        pair("strategy", strategy),
        pair("params", params),
        pair("limit", selection.limit),
        pair("round_decimal", -1),
        pair("offset", selection.offset),
    ]
}

pub(super) fn query(config: &CollectionConfig, selection: Selection) -> QueryRequest {
    QueryRequest {
        collection_name: config.collection_name.clone(),
        expr: selection.expression,
        output_fields: selection.output_fields,
        guarantee_timestamp: selection.guarantee.timestamp,
        consistency_level: selection.guarantee.level.into(),
        query_params: vec![pair("limit", selection.limit), pair("offset", selection.offset)],
        ..QueryRequest::default()
    }
}

/// Counts what matches among all acknowledged entities; everything without an expression.
pub(super) fn count(config: &CollectionConfig, expression: &str) -> QueryRequest {
    let guarantee = Guarantee::new(Consistency::Strong, 0);
    QueryRequest {
        collection_name: config.collection_name.clone(),
        expr: expression.to_owned(),
        output_fields: vec!["count(*)".into()],
        guarantee_timestamp: guarantee.timestamp,
        consistency_level: guarantee.level.into(),
        ..QueryRequest::default()
    }
}

/// Deletes what matches among all acknowledged entities.
pub(super) fn delete(config: &CollectionConfig, expression: String) -> DeleteRequest {
    DeleteRequest {
        collection_name: config.collection_name.clone(),
        expr: expression,
        consistency_level: ConsistencyLevel::Strong.into(),
        ..DeleteRequest::default()
    }
}
