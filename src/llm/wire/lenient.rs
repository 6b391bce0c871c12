//! Reading fields that not every server writes alike. One odd field never loses a response.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Text: a string, or content parts whose text is joined. Null and missing mean none.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(StringOr(joined_parts))
}

/// A JSON text: a string, or the value itself, for servers that forget to encode it.
pub(super) fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(StringOr(|value: Value| Some(value.to_string())))
}

/// A `T`, or its default where the value has another type or is null.
pub(super) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: DeserializeOwned + Default,
    D: Deserializer<'de>,
{
    let json = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(json.get()).unwrap_or_default())
}

/// A count: a number of any kind, rounded; zero for anything else.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    // A negative or infinite number saturates.
    Ok(value.as_u64().or_else(|| Some(value.as_f64()?.round() as u64)).unwrap_or(0))
}

fn joined_parts(value: Value) -> Option<String> {
    let text = |part: &Value| match part {
        Value::String(text) => Some(text.clone()),
        part => part.get("text")?.as_str().map(str::to_owned),
    };
    match &value {
        Value::Array(parts) => Some(parts.iter().filter_map(text).collect()),
        part => text(part),
    }
}

/// Reads a string without a detour through `Value`, and any other value by a function.
struct StringOr<F>(F);

impl<'de, F: FnOnce(Value) -> Option<String>> Visitor<'de> for StringOr<F> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Option<String>, E> {
        Ok(Some(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Option<String>, E> {
        Ok(self.0(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<String>, E> {
        Ok(self.0(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<String>, E> {
        Ok(self.0(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<String>, E> {
        Ok(self.0(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<String>, A::Error> {
        Ok(self.0(Value::deserialize(SeqAccessDeserializer::new(items))?))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Option<String>, A::Error> {
        Ok(self.0(Value::deserialize(MapAccessDeserializer::new(fields))?))
    }
}
