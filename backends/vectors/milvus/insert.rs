//! Entities as a request that is encoded once, whatever the number of attempts to send it.

use bytes::Bytes;
use milvus::proto::milvus::InsertRequest;
use prost::Message;

use super::columns::columns;
use crate::vectors::{CollectionConfig, Entity};

/// An insert of checked entities.
pub(super) struct EncodedInsert {
    pub(super) bytes: Bytes,
    pub(super) rows: usize,
}

impl EncodedInsert {
    pub(super) const PATH: &'static str = "/milvus.proto.milvus.MilvusService/Insert";

    pub(super) fn new(config: &CollectionConfig, entities: Vec<Entity>, python_floats: bool) -> Self {
        let rows = entities.len();
        let request = InsertRequest {
            collection_name: config.collection_name.clone(),
            num_rows: u32::try_from(rows).unwrap_or(u32::MAX),
            fields_data: columns(config, entities, python_floats),
            ..InsertRequest::default()
        };
        Self { bytes: request.encode_to_vec().into(), rows }
    }
}
