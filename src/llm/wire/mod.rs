//! The wire format of OpenAI-compatible chat completions and embeddings, which all four providers implement.

mod embeddings;
mod event_queue;
mod lenient;
mod messages;
mod provider_error;
mod repair;
mod request;
mod response;
mod retry_after;
mod state;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};

pub(super) use embeddings::decode_embeddings;
pub(super) use event_queue::EventQueue;
pub(super) use provider_error::status_error;
pub(super) use request::{encode_chat, encode_embed};
pub(super) use state::{StreamState, decode_chat};

/// A response of the wrong shape. The parser's own message could repeat the response's text.
fn decode_error(component: &'static str, error: &serde_json::Error, message: &'static str) -> Error {
    let location =
        format!("{:?} error at byte {} of line {}", error.classify(), error.column(), error.line());
    Error::new(ErrorKind::Protocol, component, message).with_context("json", location)
}

/// Adds the unnamed fields of a delta: strings and lists continue earlier ones, objects are merged, anything else
/// replaces.
pub(super) fn merge_extra(merged: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, value) in delta {
        match (merged.get_mut(&name), value) {
            (_, Value::Null) => {}
            (Some(Value::String(earlier)), Value::String(more)) if !is_constant(&name) => {
                earlier.push_str(&more)
            }
            (Some(Value::Array(earlier)), Value::Array(more)) => earlier.extend(more),
            (Some(Value::Object(earlier)), Value::Object(more)) => merge_extra(earlier, more),
            (_, value) => {
                merged.insert(name, value);
            }
        }
    }
}

/// Fields that are repeated, not continued.
fn is_constant(name: &str) -> bool {
    matches!(name, "id" | "type" | "index" | "name" | "format" | "thought_signature")
}
