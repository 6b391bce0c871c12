//! The tools of one server: limited, filtered, named, and compared with their earlier definitions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{McpServerConfig, McpToolChanges};
use crate::mcp::{McpClientHandler, McpGuardUsage, McpGuards, McpTool, McpToolChange, ToolNames};
use crate::support::catch_panic;
use crate::{Error, ErrorKind, LimitUsage, Result};

/// Definitions of tools that are no longer listed and yet remembered, so that they cannot change by being away.
const MAX_ABSENT: usize = 1_000;

/// The tools of a server, kept whether it is connected or not.
pub(super) struct Catalog {
    config: McpServerConfig,
    changes: McpToolChanges,
    /// Notified of changed tools.
    handler: Option<Arc<dyn McpClientHandler>>,
    names: Arc<Mutex<ToolNames>>,
    guards: Mutex<McpGuards>,
    usage: Mutex<McpGuardUsage>,
    definitions: Mutex<Definitions>,
}

#[derive(Default)]
struct Definitions {
    /// The fingerprint that each tool had first, or that was accepted since.
    accepted: HashMap<String, String>,
    /// The tools whose fingerprint is another one now.
    changed: BTreeMap<String, (McpToolChange, McpTool)>,
}

impl Catalog {
    pub(super) fn new(
        config: &McpServerConfig,
        changes: McpToolChanges,
        guards: McpGuards,
        names: Arc<Mutex<ToolNames>>,
        handler: Option<Arc<dyn McpClientHandler>>,
    ) -> Self {
        Self {
            changes: config.tool_changes.unwrap_or(changes),
            config: config.clone(),
            handler,
            names,
            guards: Mutex::new(guards),
            usage: Mutex::default(),
            definitions: Mutex::default(),
        }
    }

    pub(super) fn guards(&self) -> McpGuards {
        self.guards.lock().clone()
    }

    pub(super) fn set_guard(&self, key: &str, max: u64) -> bool {
        self.guards.lock().set_limit(key, max)
    }

    pub(super) fn limits(&self) -> Vec<LimitUsage> {
        self.guards.lock().limits(&self.usage.lock())
    }

    /// Tools whose definitions differ from those that were accepted.
    pub(super) fn changed(&self) -> Vec<McpToolChange> {
        self.definitions.lock().changed.values().map(|(change, _)| change.clone()).collect()
    }

    /// The tools that are offered of a list that the server sent in so many pages.
    pub(super) fn update(&self, pages: usize, tools: Vec<McpTool>) -> Arc<[McpTool]> {
        self.usage.lock().record_list(pages, &tools);
        let (server, prefix) = (self.config.name.as_str(), self.config.prefix.as_deref());
        let mut tools: Vec<_> =
            tools.into_iter().filter(|tool| self.is_allowed(&tool.original_name)).collect();
        let mut names = self.names.lock();
        for tool in &mut tools {
            tool.name = names.assign(server, prefix, &tool.original_name);
            tool.server_url.clone_from(&self.config.url);
        }
        names.forget_absent(server, prefix, &tools);
        drop(names);
        self.compare(&tools).iter().for_each(|change| self.report(change));
        tools.retain(|tool| !self.is_refused(&tool.original_name));
        tools.into()
    }

    /// Compares fingerprints with those that were accepted; returns the changes that are new.
    fn compare(&self, tools: &[McpTool]) -> Vec<McpToolChange> {
        if self.changes == McpToolChanges::Ignore {
            return Vec::new();
        }
        let mut new = Vec::new();
        let mut definitions = self.definitions.lock();
        for tool in tools {
            let pinned = self.config.pins.get(&tool.original_name).unwrap_or(&tool.fingerprint);
            let accepted =
                definitions.accepted.entry(tool.original_name.clone()).or_insert_with(|| pinned.clone());
            if *accepted == tool.fingerprint {
                definitions.changed.remove(&tool.original_name);
                continue;
            }
            let is_refused = self.changes == McpToolChanges::Refuse;
            let change = McpToolChange::new(&tool.original_name, &**accepted, &tool.fingerprint, is_refused);
            let before =
                definitions.changed.insert(tool.original_name.clone(), (change.clone(), tool.clone()));
            if before.is_none_or(|(before, _)| before != change) {
                new.push(change);
            }
        }
        definitions.forget_absent(tools);
        new
    }

    /// Logs a change and notifies the application, which may accept it.
    fn report(&self, change: &McpToolChange) {
        let McpToolChange { tool, accepted, fingerprint, refused, .. } = change;
        let server = self.config.name.as_str();
        tracing::warn!(
            mcp.server = server,
            tool,
            accepted,
            fingerprint,
            refused,
            "the definition of a tool has changed"
        );
        let Some(handler) = &self.handler else { return };
        if let Err(panic) = catch_panic(|| handler.tool_changed(server, change)) {
            tracing::error!(mcp.server = server, panic, "the application's handler of a changed tool failed");
        }
    }

    fn is_refused(&self, tool: &str) -> bool {
        self.definitions.lock().changed.get(tool).is_some_and(|(change, _)| change.refused)
    }

    /// Accepts the present definition of a tool that has changed, and returns it.
    pub(super) fn accept(&self, tool: &str) -> Result<McpTool> {
        let mut definitions = self.definitions.lock();
        let (change, changed) = definitions.changed.remove(tool).ok_or_else(|| {
            let message = format!("tool {tool:?} has not changed");
            Error::new(ErrorKind::NotFound, self.component(), message).not_sent()
        })?;
        definitions.accepted.insert(change.tool, change.fingerprint);
        Ok(changed)
    }

    fn is_allowed(&self, tool: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| name == tool);
        self.config.allow_tools.as_deref().is_none_or(listed) && !listed(&self.config.deny_tools)
    }

    /// Whether the tool may be called.
    pub(super) fn check_call(&self, tool: &str) -> Result<()> {
        if !self.is_allowed(tool) {
            let message = format!("tool {tool:?} is excluded by allow_tools or deny_tools");
            return Err(Error::new(ErrorKind::NotFound, self.component(), message).not_sent());
        }
        if self.is_refused(tool) {
            let message = format!("the definition of tool {tool:?} has changed; accept it to call it");
            return Err(Error::new(ErrorKind::Unsupported, self.component(), message).not_sent());
        }
        Ok(())
    }

    /// Whether a result of this size, in bytes of JSON, is within the limit.
    pub(super) fn check_result(&self, bytes: usize) -> Result<()> {
        let max = self.guards.lock().max_result_bytes;
        if bytes > max {
            let message = format!("result of {bytes} bytes exceeds mcp.guards.max_result_bytes = {max}");
            return Err(Error::new(ErrorKind::TooLarge, self.component(), message));
        }
        self.usage.lock().record_result(bytes);
        Ok(())
    }

    fn component(&self) -> String {
        format!("mcp:{}", self.config.name)
    }
}

impl Definitions {
    /// Forgets tools that are no longer listed, if there are many: a server that renames its tools without end must not
    /// fill the memory.
    fn forget_absent(&mut self, listed: &[McpTool]) {
        if self.accepted.len() <= listed.len() + MAX_ABSENT {
            return;
        }
        let listed: HashSet<_> = listed.iter().map(|tool| tool.original_name.as_str()).collect();
        self.accepted.retain(|tool, _| listed.contains(tool.as_str()));
        self.changed.retain(|tool, _| listed.contains(tool.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str, fingerprint: &str) -> McpTool {
        McpTool::new("s", name, "", json!({})).with_fingerprint(fingerprint)
    }

    fn catalog(changes: McpToolChanges, pins: &[(&str, &str)]) -> Catalog {
        let mut config = McpServerConfig::http("s", "https://s");
        config.pins = pins.iter().map(|(tool, pin)| ((*tool).to_owned(), (*pin).to_owned())).collect();
        Catalog::new(&config, changes, McpGuards::default(), Arc::default(), None)
    }

    fn names(tools: &[McpTool]) -> Vec<&str> {
        tools.iter().map(|tool| tool.original_name.as_str()).collect()
    }

    #[test]
    fn a_changed_tool_is_refused_until_it_is_accepted_or_is_what_it_was() {
        let catalog = catalog(McpToolChanges::Refuse, &[]);
        catalog.update(1, vec![tool("a", "1"), tool("b", "1")]);
        assert_eq!(names(&catalog.update(1, vec![tool("a", "2"), tool("b", "1")])), ["b"]);
        assert_eq!(catalog.check_call("a").expect_err("refused").kind(), ErrorKind::Unsupported);
        assert_eq!(catalog.changed(), [McpToolChange::new("a", "1", "2", true)]);
        assert_eq!(names(&catalog.update(1, vec![tool("a", "1")])), ["a"]);
        // Being away in between does not help.
        catalog.update(1, Vec::new());
        assert!(catalog.update(1, vec![tool("a", "3")]).is_empty());
        assert_eq!(catalog.accept("a").expect("it has changed").fingerprint, "3");
        assert_eq!(names(&catalog.update(1, vec![tool("a", "3")])), ["a"]);
        assert_eq!(catalog.accept("a").expect_err("not now").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_changed_tool_is_reported_and_offered_or_ignored_as_configured() {
        for (changes, reported) in [(McpToolChanges::Report, 1), (McpToolChanges::Ignore, 0)] {
            let catalog = catalog(changes, &[]);
            catalog.update(1, vec![tool("a", "1")]);
            assert_eq!(names(&catalog.update(1, vec![tool("a", "2")])), ["a"]);
            assert_eq!(catalog.changed().len(), reported);
            catalog.check_call("a").expect("it is offered");
        }
    }

    #[test]
    fn a_pin_says_what_the_first_definition_must_be() {
        let catalog = catalog(McpToolChanges::Refuse, &[("a", "1")]);
        assert_eq!(names(&catalog.update(1, vec![tool("a", "2"), tool("b", "9")])), ["b"]);
        assert_eq!(names(&catalog.update(1, vec![tool("a", "1")])), ["a"]);
    }

    #[test]
    fn a_server_that_renames_its_tools_without_end_is_forgotten_in_time() {
        let catalog = catalog(McpToolChanges::Report, &[]);
        for number in 0..5_000 {
            catalog.update(1, vec![tool(&format!("t{number}"), "1"), tool("stays", "1")]);
        }
        assert!(catalog.definitions.lock().accepted.len() <= MAX_ABSENT + 3);
        catalog.update(1, vec![tool("stays", "2")]);
        assert_eq!(catalog.changed().len(), 1);
    }
}
