//! Responses that match a JSON schema.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// Maximum length of a name that providers accept.
const NAME_CHARS: usize = 64;

/// The JSON schema of a response and its name (Python: `structure_type`).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Structure {
    /// The type's name.
    pub name: String,
    /// Its schema.
    pub schema: Value,
    /// Whether providers can enforce the schema. They cannot enforce an open map, for example; the model is then shown
    /// the schema only.
    pub strict: bool,
}

impl Structure {
    /// The schema of `T`, as strict as possible: no further properties, and every property present, optional ones
    /// as null.
    #[must_use]
    pub fn for_type<T: JsonSchema>() -> Self {
        let mut schema = schemars::schema_for!(T).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            object.remove("title");
        }
        let mut strict_schema = schema.clone();
        let strict = make_strict(&mut strict_schema);
        Self {
            name: sanitized_name(&T::schema_name()),
            schema: if strict { strict_schema } else { schema },
            strict,
        }
    }
}

/// A type's name with only the characters that providers accept.
fn sanitized_name(name: &str) -> String {
    let accepted = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(accepted).take(NAME_CHARS).collect()
}

/// Makes a schema strict in place, and returns whether it can be.
fn make_strict(schema: &mut Value) -> bool {
    let Some(object) = schema.as_object_mut() else { return schema.as_bool().is_none() };
    if object.contains_key("$ref") {
        // No other keyword is allowed beside a reference.
        object.retain(|name, _| name == "$ref");
        return true;
    }
    object.remove("default");
    if matches!(object.get("format").and_then(Value::as_str), Some(format) if is_rust_format(format)) {
        object.remove("format");
    }
    if let Some(variants) = object.remove("oneOf") {
        object.insert("anyOf".into(), variants);
    }
    close_object(object) && make_subschemas_strict(object)
}

/// Closes an object's schema, and returns whether it can be.
fn close_object(object: &mut Map<String, Value>) -> bool {
    let is_object = object.get("type").is_some_and(is_object_type);
    if !is_object && !object.contains_key("properties") {
        return true;
    }
    if object.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false)) {
        return false;
    }
    let Some(properties) = object.get("properties").and_then(Value::as_object) else { return false };
    let names: Vec<Value> = properties.keys().cloned().map(Value::String).collect();
    object.insert("required".into(), Value::Array(names));
    object.insert("additionalProperties".into(), Value::Bool(false));
    true
}

fn is_object_type(kind: &Value) -> bool {
    kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
}

fn make_subschemas_strict(object: &mut Map<String, Value>) -> bool {
    let by_name = ["properties", "$defs"];
    let listed = ["anyOf", "prefixItems"];
    object.iter_mut().all(|(key, value)| match value {
        Value::Object(parts) if by_name.contains(&key.as_str()) => parts.values_mut().all(make_strict),
        Value::Array(parts) if listed.contains(&key.as_str()) => parts.iter_mut().all(make_strict),
        // No provider enforces two schemas at the same time.
        Value::Array(_) if key == "allOf" => false,
        items if key == "items" => make_strict(items),
        _ => true,
    })
}

/// Formats of Rust's number types, which mean nothing in JSON.
fn is_rust_format(format: &str) -> bool {
    matches!(format, "float" | "double") || format.trim_start_matches('u').starts_with("int")
}

/// Deserializes `text`, with an error that does not repeat it.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let location =
            format!("{:?} error at byte {} of line {}", error.classify(), error.column(), error.line());
        Error::new(ErrorKind::Protocol, "llm", "response does not match the requested JSON schema")
            .with_context("json", location)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Person {
        /// Their name.
        name: String,
        age: Option<u32>,
        #[serde(default)]
        home: Place,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Place {
        latitude: f64,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Open {
        more: BTreeMap<String, String>,
    }

    #[test]
    fn a_types_schema_is_made_strict() {
        let structure = Structure::for_type::<Person>();
        assert_eq!((structure.name.as_str(), structure.strict), ("Person", true));
        let place = json!({"type": "object", "properties": {"latitude": {"type": "number"}},
                           "required": ["latitude"], "additionalProperties": false});
        let expected = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "Their name."},
                "age": {"type": ["integer", "null"], "minimum": 0},
                "home": {"$ref": "#/$defs/Place"},
            },
            "required": ["age", "home", "name"],
            "additionalProperties": false,
            "$defs": {"Place": place},
        });
        let mut schema = structure.schema;
        let required = schema["required"].as_array_mut().expect("a list");
        required.sort_by_key(ToString::to_string);
        assert_eq!(schema, expected);
    }

    #[test]
    fn an_open_map_is_not_strict() {
        let structure = Structure::for_type::<Open>();
        assert!(!structure.strict);
        assert_eq!(structure.schema["properties"]["more"]["additionalProperties"], json!({"type": "string"}));
    }

    #[test]
    fn a_name_has_the_characters_that_providers_accept() {
        assert_eq!(sanitized_name("Vec<Person>"), "Vec_Person_");
        assert_eq!(sanitized_name(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn a_response_that_does_not_match_is_not_repeated() {
        let error = parse::<Person>("{\"name\": 5, \"age\": \"private\"}").expect_err("a name is text");
        assert!(!format!("{error} {error:?}").contains("private"));
    }
}
