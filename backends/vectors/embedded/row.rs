//! An entity in the store, without its dense vector.

use serde_json::{Map, Value};

use crate::support::map_heap_bytes;
use crate::vectors::{CollectionConfig, Entity, Metric};

#[derive(Debug)]
pub(super) struct Row {
    /// The position of the entity among all that were ever inserted; its id ends with it.
    pub(super) number: u64,
    /// Every field but the vectors, the id included.
    pub(super) fields: Map<String, Value>,
    /// Dimensions and weights, sorted by dimension.
    pub(super) sparse: Box<[(u32, f32)]>,
    pub(super) bytes: u64,
}

impl Row {
    /// A row of a checked entity, and the dense vector as it is searched: of unit length for a cosine.
    pub(super) fn new(config: &CollectionConfig, entity: Entity, number: u64, id: &str) -> (Self, Vec<f32>) {
        let Entity { mut fields, mut dense, sparse, .. } = entity;
        fields.insert(config.pk_field.clone(), id.into());
        if config.metric == Metric::Cosine {
            normalise(&mut dense);
        }
        (Self::restore(number, fields, sparse.unwrap_or_default().into_iter().collect()), dense)
    }

    /// A row whose fields have an id.
    pub(super) fn restore(number: u64, fields: Map<String, Value>, sparse: Box<[(u32, f32)]>) -> Self {
        let bytes = (16 + size_of::<Self>() + map_heap_bytes(&fields) + 16 + size_of_val(&*sparse)) as u64;
        Self { number, fields, sparse, bytes }
    }
}

/// Scales a vector to unit length; zeros stay zeros.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
