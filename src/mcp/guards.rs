//! Limits on what a server may send.

use serde_json::Value;

use super::McpTool;
use crate::error::{Error, ErrorKind, Result};

/// Limits on what one server may send; what exceeds them is left out with a warning, or fails alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpGuards {
    /// Maximum number of pages of a tool list. Default: 100.
    pub max_pages: usize,
    /// Maximum number of tools. Default: 1 000.
    pub max_tools: usize,
    /// Maximum bytes of a tool's name. Default: 256.
    pub max_name_bytes: usize,
    /// Maximum bytes of a tool's description; longer ones are truncated. Default: 8 KiB.
    pub max_description_bytes: usize,
    /// Maximum bytes of a tool's schema. Default: 64 KiB.
    pub max_schema_bytes: usize,
    /// Maximum nesting of a tool's schema. Default: 64.
    pub max_schema_depth: usize,
    /// Maximum bytes of a result. Default: 4 MiB.
    pub max_result_bytes: usize,
}

impl Default for McpGuards {
    fn default() -> Self {
        Self {
            max_pages: 100,
            max_tools: 1_000,
            max_name_bytes: 256,
            max_description_bytes: 8 * 1024,
            max_schema_bytes: 64 * 1024,
            max_schema_depth: 64,
            max_result_bytes: 4 << 20,
        }
    }
}

impl McpGuards {
    /// Reads one tool of a list, truncating its description where it is too long.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] for a tool without name or with a schema that is no object, [`ErrorKind::TooLarge`] for one
    /// that exceeds a limit.
    pub fn check_tool(&self, server: &str, tool: &Value) -> Result<McpTool> {
        let error = |kind, message: String| Err(Error::new(kind, format!("mcp:{server}"), message));
        let Some(name) = tool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return error(ErrorKind::Protocol, "tool without a name".into());
        };
        if name.len() > self.max_name_bytes {
            let message = format!("tool name of {} bytes exceeds {}", name.len(), self.max_name_bytes);
            return error(ErrorKind::TooLarge, message);
        }
        let empty = serde_json::json!({ "type": "object", "properties": {} });
        let schema = tool.get("inputSchema").filter(|schema| !schema.is_null()).unwrap_or(&empty);
        if !schema.is_object() {
            return error(ErrorKind::Protocol, format!("tool {name:?}: inputSchema is not an object"));
        }
        if depth(schema, self.max_schema_depth) > self.max_schema_depth {
            let message =
                format!("tool {name:?}: inputSchema is nested deeper than {}", self.max_schema_depth);
            return error(ErrorKind::TooLarge, message);
        }
        let bytes = schema.to_string().len();
        if bytes > self.max_schema_bytes {
            let message =
                format!("tool {name:?}: inputSchema of {bytes} bytes exceeds {}", self.max_schema_bytes);
            return error(ErrorKind::TooLarge, message);
        }
        let description = tool.get("description").and_then(Value::as_str).unwrap_or_default();
        Ok(McpTool::new(server, name, truncate(description, self.max_description_bytes), schema.clone()))
    }
}

/// The nesting of `value`, counted no further than one beyond `limit`.
fn depth(value: &Value, limit: usize) -> usize {
    let children = |items: &mut dyn Iterator<Item = &Value>| {
        let below = limit.saturating_sub(1);
        1 + items.map(|item| if limit == 0 { 1 } else { depth(item, below) }).max().unwrap_or(0)
    };
    match value {
        Value::Array(items) => children(&mut items.iter()),
        Value::Object(fields) => children(&mut fields.values()),
        _ => 0,
    }
}

fn truncate(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tool: Value) -> Result<McpTool> {
        McpGuards::default().check_tool("s", &tool)
    }

    #[test]
    fn a_tool_without_a_schema_takes_no_arguments() {
        let tool = check(json!({"name": "t"})).expect("fine");
        assert_eq!(tool.input_schema, json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn hostile_tools_are_rejected_one_by_one() {
        let mut nested = json!({});
        for _ in 0..100 {
            nested = json!({ "properties": nested });
        }
        for (tool, kind) in [
            (json!({"description": "no name"}), ErrorKind::Protocol),
            (json!({"name": ""}), ErrorKind::Protocol),
            (json!({"name": "n".repeat(10_000)}), ErrorKind::TooLarge),
            (json!({"name": "t", "inputSchema": "text"}), ErrorKind::Protocol),
            (json!({"name": "t", "inputSchema": {"x": "y".repeat(100_000)}}), ErrorKind::TooLarge),
            (json!({"name": "t", "inputSchema": nested}), ErrorKind::TooLarge),
        ] {
            assert_eq!(check(tool).expect_err("hostile").kind(), kind);
        }
    }

    #[test]
    fn a_long_description_is_truncated_between_characters() {
        let tool = check(json!({"name": "t", "description": "é".repeat(5_000)})).expect("fine");
        assert_eq!(tool.description.len(), 8 * 1024);
    }
}
