//! A found entity.

use serde::Serialize;
use serde_json::{Map, Value};

/// A found entity.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Hit {
    /// Id of the entity.
    pub id: String,
    /// Score or distance, as the collection's metric defines it; zero in queries without a vector.
    pub score: f32,
    /// The requested fields.
    pub fields: Map<String, Value>,
}

impl Hit {
    /// A hit.
    #[must_use]
    pub fn new(id: String, score: f32, fields: Map<String, Value>) -> Self {
        Self { id, score, fields }
    }
}
