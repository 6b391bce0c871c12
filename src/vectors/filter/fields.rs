//! Access to the fields of an entity, by name.

use serde_json::{Map, Value};

/// The fields of one entity, as a [`Filter`](super::Filter) sees them.
pub trait Fields {
    /// The value of a field; `None` if the entity lacks it.
    fn get(&self, name: &str) -> Option<FieldValue<'_>>;
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FieldValue<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    String(&'a str),
    /// An array or object.
    Json(&'a Value),
}

/// Scalars become their own variants; integers beyond 64 bits become floats.
impl<'a> From<&'a Value> for FieldValue<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => number
                .as_i64()
                .map(Self::Int)
                .or_else(|| number.as_f64().map(Self::Float))
                .unwrap_or(Self::Null),
            Value::String(string) => Self::String(string),
            Value::Array(_) | Value::Object(_) => Self::Json(value),
        }
    }
}

impl FieldValue<'_> {
    /// The value as JSON.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int(number) => number.into(),
            Self::Float(number) => number.into(),
            Self::String(string) => string.into(),
            Self::Json(json) => json.clone(),
        }
    }
}

impl Fields for Map<String, Value> {
    fn get(&self, name: &str) -> Option<FieldValue<'_>> {
        self.get(name).map(FieldValue::from)
    }
}
