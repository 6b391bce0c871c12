//! Answers of a given form.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// The longest name that providers accept.
const NAME_CHARS: usize = 64;

/// The form an answer must have: a JSON schema and its name (Python: `structure_type`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Structure {
    /// The type's name.
    pub name: String,
    /// Its schema.
    pub schema: Value,
    /// Whether the schema stays within what providers can hold a model to. An open map does not, for example; the
    /// model is then shown the schema without being bound to it.
    pub strict: bool,
}

impl Structure {
    /// The form of `T`, as strict as it can be: no further properties, and every property present, optional ones
    /// as null.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        let mut schema = schemars::schema_for!(T).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            object.remove("title");
        }
        let mut strict_schema = schema.clone();
        let strict = tighten(&mut strict_schema);
        Self { name: name_of(&T::schema_name()), schema: if strict { strict_schema } else { schema }, strict }
    }
}

/// A type's name in the characters that providers accept.
fn name_of(name: &str) -> String {
    let accepted = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(accepted).take(NAME_CHARS).collect()
}

/// Makes a schema strict in place; says whether it can be.
fn tighten(schema: &mut Value) -> bool {
    let Some(object) = schema.as_object_mut() else { return schema.as_bool().is_none() };
    if object.contains_key("$ref") {
        // Nothing may stand beside a reference.
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
    is_closed(object) && tighten_parts(object)
}

/// Closes an object's schema; says whether it can be.
fn is_closed(object: &mut Map<String, Value>) -> bool {
    let is_object = object.get("type").is_some_and(names_object);
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

fn names_object(kind: &Value) -> bool {
    kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
}

fn tighten_parts(object: &mut Map<String, Value>) -> bool {
    let by_name = ["properties", "$defs"];
    let listed = ["anyOf", "prefixItems"];
    object.iter_mut().all(|(key, value)| match value {
        Value::Object(parts) if by_name.contains(&key.as_str()) => parts.values_mut().all(tighten),
        Value::Array(parts) if listed.contains(&key.as_str()) => parts.iter_mut().all(tighten),
        // No provider can be bound to both of two schemas.
        Value::Array(_) if key == "allOf" => false,
        items if key == "items" => tighten(items),
        _ => true,
    })
}

/// Formats that say which Rust number it is and nothing of its JSON.
fn is_rust_format(format: &str) -> bool {
    matches!(format, "float" | "double") || format.trim_start_matches('u').starts_with("int")
}

/// `text` as a `T`, with an error that does not repeat it.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let place =
            format!("{:?} error at byte {} of line {}", error.classify(), error.column(), error.line());
        Error::new(ErrorKind::Protocol, "llm", "the answer has not the form that was asked for")
            .with_context("json", place)
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
        let structure = Structure::of::<Person>();
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
    fn an_open_map_is_shown_as_it_is() {
        let structure = Structure::of::<Open>();
        assert!(!structure.strict);
        assert_eq!(structure.schema["properties"]["more"]["additionalProperties"], json!({"type": "string"}));
    }

    #[test]
    fn a_name_has_the_characters_that_providers_accept() {
        assert_eq!(name_of("Vec<Person>"), "Vec_Person_");
        assert_eq!(name_of(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn an_answer_of_another_form_is_not_repeated() {
        let error = parse::<Person>("{\"name\": 5, \"age\": \"private\"}").expect_err("a name is text");
        assert!(!format!("{error} {error:?}").contains("private"));
    }
}
