//! Limits on what a server may send.

use serde_json::Value;

use super::McpTool;
pub use crate::config::McpGuards;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;
use crate::support::floor_char_boundary;

/// Configuration key, unit and field of a guard.
type Guard = (&'static str, &'static str, fn(&mut McpGuards) -> &mut usize);

const GUARDS: [Guard; 7] = [
    ("mcp.guards.max_pages", "pages", |guards| &mut guards.max_pages),
    ("mcp.guards.max_tools", "tools", |guards| &mut guards.max_tools),
    ("mcp.guards.max_name_bytes", "bytes", |guards| &mut guards.max_name_bytes),
    ("mcp.guards.max_description_bytes", "bytes", |guards| &mut guards.max_description_bytes),
    ("mcp.guards.max_schema_bytes", "bytes", |guards| &mut guards.max_schema_bytes),
    ("mcp.guards.max_schema_depth", "levels", |guards| &mut guards.max_schema_depth),
    ("mcp.guards.max_result_bytes", "bytes", |guards| &mut guards.max_result_bytes),
];

/// What a server has sent, measured as [`McpGuards`] limits it.
#[derive(Debug, Clone)]
pub struct McpGuardUsage {
    last: McpGuards,
    peak: McpGuards,
}

impl Default for McpGuardUsage {
    fn default() -> Self {
        let mut zero = McpGuards::default();
        GUARDS.iter().for_each(|(_, _, field)| *field(&mut zero) = 0);
        Self { last: zero.clone(), peak: zero }
    }
}

impl McpGuardUsage {
    /// Records the list of tools that a server sent.
    pub fn record_list(&mut self, pages: usize, tools: &[McpTool]) {
        let largest = |size: fn(&McpTool) -> usize| tools.iter().map(size).max().unwrap_or_default();
        self.last.max_pages = pages;
        self.last.max_tools = tools.len();
        self.last.max_name_bytes = largest(|tool| tool.original_name.len());
        self.last.max_description_bytes = largest(|tool| tool.description.len());
        self.last.max_schema_bytes = largest(|tool| json_bytes(&tool.input_schema));
        self.last.max_schema_depth = largest(|tool| depth(&tool.input_schema, usize::MAX));
        self.raise_peaks();
    }

    /// Records the size of a result.
    pub fn record_result(&mut self, bytes: usize) {
        self.last.max_result_bytes = bytes;
        self.raise_peaks();
    }

    fn raise_peaks(&mut self) {
        for (_, _, field) in GUARDS {
            let (last, peak) = (*field(&mut self.last), field(&mut self.peak));
            *peak = last.max(*peak);
        }
    }
}

impl McpGuards {
    /// Every guard with what the server sent last and at most.
    #[must_use]
    pub fn limits(&self, usage: &McpGuardUsage) -> Vec<LimitUsage> {
        let (mut guards, McpGuardUsage { mut last, mut peak }) = (self.clone(), usage.clone());
        let limit = |(key, unit, field): Guard| {
            let [used, peak, max] = [&mut last, &mut peak, &mut guards].map(|guards| *field(guards) as u64);
            LimitUsage::new(key, unit, used, peak, Some(max))
        };
        GUARDS.into_iter().map(limit).collect()
    }

    /// Changes the guard with this configuration key; returns whether there is one.
    pub fn set_limit(&mut self, key: &str, max: u64) -> bool {
        let guard = GUARDS.into_iter().find(|(name, _, _)| *name == key);
        guard.map(|(_, _, field)| *field(self) = usize::try_from(max).unwrap_or(usize::MAX)).is_some()
    }

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
        let bytes = json_bytes(schema);
        if bytes > self.max_schema_bytes {
            let message =
                format!("tool {name:?}: inputSchema of {bytes} bytes exceeds {}", self.max_schema_bytes);
            return error(ErrorKind::TooLarge, message);
        }
        let description = tool.get("description").and_then(Value::as_str).unwrap_or_default();
        Ok(McpTool::new(
            server,
            name,
            &description[..floor_char_boundary(description, self.max_description_bytes)],
            schema.clone(),
        ))
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

fn json_bytes(value: &Value) -> usize {
    value.to_string().len()
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
    fn every_guard_of_the_configuration_is_a_limit_that_can_be_changed() {
        let explained = crate::Config::default().explain().values;
        let keys: Vec<_> = explained.iter().filter(|value| value.key.starts_with("mcp.guards.")).collect();
        let mut guards = McpGuards::default();
        let limits = guards.limits(&McpGuardUsage::default());
        assert_eq!(limits.len(), keys.len());
        for (limit, key) in limits.iter().zip(keys) {
            assert_eq!(limit.key, key.key);
            assert!(guards.set_limit(limit.key, 7));
        }
        assert!(guards.limits(&McpGuardUsage::default()).iter().all(|limit| limit.limit == Some(7)));
        assert!(!guards.set_limit("mcp.guards.unknown", 7));
    }

    #[test]
    fn usage_is_of_the_last_list_and_the_peak_of_all() {
        let tool = |schema| McpTool::new("s", "name", "text", schema);
        let mut usage = McpGuardUsage::default();
        usage.record_list(2, &[tool(json!({"a": {}})), tool(json!({}))]);
        usage.record_list(1, &[tool(json!({}))]);
        let limits = McpGuards::default().limits(&usage);
        let tools = limits.iter().find(|limit| limit.key == "mcp.guards.max_tools").expect("listed");
        assert_eq!((tools.used, tools.peak, tools.limit), (1, 2, Some(1_000)));
        let depth = limits.iter().find(|limit| limit.key == "mcp.guards.max_schema_depth").expect("listed");
        assert_eq!((depth.used, depth.peak), (1, 2));
    }

    #[test]
    fn a_long_description_is_truncated_between_characters() {
        let tool = check(json!({"name": "t", "description": "é".repeat(5_000)})).expect("fine");
        assert_eq!(tool.description.len(), 8 * 1024);
    }
}
