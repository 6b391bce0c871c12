//! `guards` of one MCP server: what it sets of `mcp.guards` for itself.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::key::Key;
use super::sections::KEYS;
use super::setting::{ValueError, parse_whole_number};
use super::{Config, McpGuards};

/// Guards that one server sets for itself, by name: `max_tools`.
pub type McpGuardOverrides = BTreeMap<String, u64>;

impl McpGuards {
    /// These guards, except for those that a server sets for itself. Names that are no guards are ignored.
    ///
    /// ```
    /// use arshai::config::McpGuards;
    ///
    /// let guards = McpGuards::default().with_overrides(&[("max_tools".to_owned(), 50)].into());
    /// assert_eq!((guards.max_tools, guards.max_pages), (50, 100));
    /// ```
    #[must_use]
    pub fn with_overrides(&self, overrides: &McpGuardOverrides) -> Self {
        let mut config = Config::default();
        config.mcp.guards = self.clone();
        for (name, key) in keys() {
            // An invalid number is reported when the configuration is loaded or validated.
            let _ = overrides.get(name).map(|number| key.parse_value(&mut config, &Value::from(*number)));
        }
        config.mcp.guards
    }
}

/// Every guard: its name, and the key that sets it for all servers.
fn keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter().filter_map(|key| Some((key.path.strip_prefix("mcp.guards.")?, key)))
}

/// Names of the guards, as keys of a server.
pub(super) fn known_keys() -> impl Iterator<Item = String> {
    keys().map(|(name, _)| format!("guards.{name}"))
}

/// The keys in a server's table `guards` that are no guards.
pub(super) fn unknown_keys(server: &Dict) -> impl Iterator<Item = String> {
    let guards = server.get("guards").and_then(Value::as_dict).into_iter().flat_map(Dict::keys);
    guards.map(|name| format!("guards.{name}")).filter(|name| known_keys().all(|known| known != *name))
}

/// A server's table `guards`.
pub(super) fn parse(server: &Dict) -> Result<McpGuardOverrides, ValueError> {
    let Some(table) = server.get("guards") else { return Ok(BTreeMap::new()) };
    let table = table.as_dict().ok_or_else(|| ValueError::new("expected a table").at_key("guards"))?;
    let guards = keys().filter_map(|(name, key)| Some((name, key, table.get(name)?)));
    let number = |(name, key, value): (&str, &Key, &Value)| {
        let valid = key.parse_value(&mut Config::default(), value).and_then(|()| parse_whole_number(value));
        let error = |_| ValueError::new(key.expected()).at_key(name).nested_under(".guards");
        Ok((name.to_owned(), valid.map_err(error)?))
    };
    guards.map(number).collect()
}

/// Whether code has set only guards that a file could have set.
pub(super) fn are_valid(guards: &McpGuardOverrides) -> bool {
    let is_valid = |(name, number): (&String, &u64)| {
        let key = keys().find(|(known, _)| known == name);
        key.is_some_and(|(_, key)| key.parse_value(&mut Config::default(), &Value::from(*number)).is_ok())
    };
    guards.iter().all(is_valid)
}

/// For example `guards.max_tools = 50`.
pub(super) fn display(guards: &McpGuardOverrides) -> String {
    guards.iter().map(|(name, number)| format!("guards.{name} = {number}")).collect::<Vec<_>>().join(", ")
}
