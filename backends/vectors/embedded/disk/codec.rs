//! The payloads of records.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::row::Row;
use super::super::shared::IdSequence;
use super::record::{Bytes, Record, RecordKind};
use crate::vectors::{CollectionConfig, validation};
use crate::{Error, ErrorKind, Result};

/// The version of the format. Later versions are refused.
const FORMAT: u32 = 1;

/// The payload of a record of kind `Collection`, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct CollectionRecord {
    pub(super) format: u32,
    pub(in super::super) config: CollectionConfig,
    pub(in super::super) ids: IdSequence,
}

impl CollectionRecord {
    pub(in super::super) fn new(config: &CollectionConfig, ids: IdSequence) -> Self {
        Self { format: FORMAT, config: config.clone(), ids }
    }

    pub(super) fn is_supported(&self) -> bool {
        self.format <= FORMAT
    }

    pub(super) fn encode(&self) -> Result<Record> {
        let mut record = Record::new(RecordKind::Collection, 0);
        serde_json::to_writer(&mut record.bytes, self).map_err(encode_error)?;
        Ok(record)
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(payload).ok()?;
        validation::check_config(&record.config).is_ok().then_some(record)
    }
}

fn encode_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "vectors.embedded", "cannot encode entities").with_source(error)
}

/// A record of inserted rows and their dense vectors.
pub(in super::super) fn insert_record<'a>(
    config: &CollectionConfig,
    rows: impl ExactSizeIterator<Item = (&'a Row, &'a [f32])>,
) -> Result<Record> {
    let mut record = Record::new(RecordKind::Insert, rows.len());
    for (row, dense) in rows {
        encode_row(config, row, dense, &mut record.bytes)?;
    }
    Ok(record)
}

/// Number, dense vector, sparse vector, and the fields in the schema's order as MessagePack, which keeps every number
/// exactly.
fn encode_row(config: &CollectionConfig, row: &Row, dense: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend_from_slice(&row.number.to_le_bytes());
    dense.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    bytes.extend_from_slice(&(row.sparse.len() as u32).to_le_bytes());
    for (dimension, weight) in &row.sparse {
        bytes.extend_from_slice(&dimension.to_le_bytes());
        bytes.extend_from_slice(&weight.to_le_bytes());
    }
    let values: Vec<&Value> =
        stored_fields(config).map(|name| row.fields.get(name).unwrap_or(&Value::Null)).collect();
    let at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    values.serialize(&mut rmp_serde::Serializer::new(&mut *bytes).with_struct_map()).map_err(encode_error)?;
    let len = (bytes.len() - at - 4) as u32;
    bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

/// All fields but the vectors and the id, which is made from the number.
fn stored_fields(config: &CollectionConfig) -> impl Iterator<Item = &str> {
    config.scalar_fields().filter(|name| *name != config.pk_field)
}

/// The next row of a payload and its dense vector.
pub(super) fn decode_row(
    config: &CollectionConfig,
    ids: &IdSequence,
    bytes: &mut Bytes<'_>,
) -> Option<(Row, Vec<f32>)> {
    let number = bytes.u64()?;
    let (dense, _) = bytes.slice(config.dense_dim * 4)?.as_chunks::<4>();
    let dense = dense.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let sparse = (0..bytes.u32()?).map(|_| Some((bytes.u32()?, bytes.f32()?))).collect::<Option<_>>()?;
    let len = bytes.u32()?;
    let values: Vec<Value> = rmp_serde::from_slice(bytes.slice(len as usize)?).ok()?;
    let names = stored_fields(config).map(str::to_owned);
    let mut fields: Map<_, _> = names.zip(values).collect();
    fields.insert(config.pk_field.clone(), ids.id(number).into());
    Some((Row::restore(number, fields, sparse), dense))
}

/// A record of the numbers of deleted rows, which ascend.
pub(in super::super) fn delete_record(numbers: &[u64]) -> Record {
    let mut record = Record::new(RecordKind::Delete, numbers.len());
    for range in numbers.chunk_by(|a, b| a + 1 == *b) {
        let (start, end) = (range[0], range[range.len() - 1] + 1);
        record.bytes.extend_from_slice(&start.to_le_bytes());
        record.bytes.extend_from_slice(&end.to_le_bytes());
    }
    record
}

/// The ranges of numbers in a record of kind `Delete`.
pub(super) fn decode_delete(payload: &[u8]) -> Vec<Range<u64>> {
    let mut bytes = Bytes(payload);
    std::iter::from_fn(|| Some(bytes.u64()?..bytes.u64()?)).collect()
}
