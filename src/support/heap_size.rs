//! Heap sizes of JSON values, as the standard library and common allocators lay them out.

use serde_json::{Map, Value};

/// Bytes that a JSON object holds on the heap: a B-tree whose nodes have capacity for eleven entries, at least five of
/// them used where there is more than one node, and what keys and values hold themselves.
#[must_use]
pub fn map_heap_bytes(fields: &Map<String, Value>) -> usize {
    const NODE: usize = 736;
    let nodes = if fields.len() <= 11 { fields.len().min(1) } else { fields.len().div_ceil(5) };
    let entries = fields.iter().map(|(key, value)| string_heap_bytes(key) + value_heap_bytes(value));
    nodes * NODE + entries.sum::<usize>()
}

/// Bytes that a JSON value holds on the heap, itself not included.
#[must_use]
fn value_heap_bytes(value: &Value) -> usize {
    match value {
        Value::String(string) => string_heap_bytes(string),
        Value::Array(items) => {
            16 + items.capacity() * size_of::<Value>() + items.iter().map(value_heap_bytes).sum::<usize>()
        }
        Value::Object(fields) => map_heap_bytes(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Bytes that a string holds on the heap.
#[must_use]
pub fn string_heap_bytes(string: &str) -> usize {
    (string.len() + 8).next_multiple_of(16).max(32)
}
