//! Vector storage: the backend traits, their types and the filter language.
//!
//! A [`VectorStore`] creates and finds collections; a [`Collection`] inserts, searches and deletes. Both traits'
//! documentation is their contract; [`validation`] checks configurations, entities and requests for every backend in the
//! same way.

mod blocking;
mod bulk;
mod capabilities;
mod collection;
mod config;
mod entity;
mod filter;
mod hit;
mod ranker;
mod report;
mod request;
mod store;
pub mod validation;

pub use blocking::{BlockingCollection, BlockingVectorStore};
pub use bulk::{
    BatchLimits, BulkInsertOptions, EntityStream, ProgressCallback, entity_stream, insert_in_batches,
};
pub use capabilities::VectorCapabilities;
pub use collection::{Collection, CollectionStats};
pub use config::{CollectionConfig, ExtraField, FieldType, IndexSettings, Metric};
pub use entity::{Entity, SparseVector};
pub use filter::{
    ArithmeticOp, CompareOp, Expr, FieldPath, FieldValue, Fields, Filter, MAX_FILTER_BYTES, MAX_FILTER_DEPTH,
    MAX_PATTERN_BYTES, MilvusDialect, Operand, PathSegment,
};
pub use hit::Hit;
pub use ranker::Ranker;
pub use report::{BulkInsertReport, FailedRange, WrittenRange};
pub use request::{Consistency, HybridSearchRequest, QueryRequest, QueryVectors, SearchRequest};
pub use store::{VectorStats, VectorStore};
