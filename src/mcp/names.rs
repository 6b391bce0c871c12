//! Names under which tools of several servers are offered to a model.

use std::collections::{HashMap, HashSet};

use super::McpTool;
use super::search::SEARCH_TOOLS;

/// The longest name that all providers accept.
const MAX_NAME_LEN: usize = 64;

/// Tools that one server no longer lists and whose names are kept.
const MAX_ABSENT: usize = 1_000;

/// Assigns every tool the name under which it is offered: unique among all servers, 1 to 64 characters of
/// `[a-zA-Z0-9_-]`.
///
/// A tool keeps its own name (`PREFIX_TOOL`, where its server has a prefix) if providers accept it and no other tool has
/// it. Other characters become `_`, and longer names are cut. If another tool has that name already it is `SERVER_TOOL`,
/// and a number is appended while that is taken too. `search_tools` is never assigned.
///
/// An assigned name stays for as long as its server does, so no tool is renamed because another server appears, changes
/// or goes away, or because its own server was away. Only names of tools that a server no longer lists are given up, once
/// there are more than a thousand of them.
#[derive(Debug)]
pub struct ToolNames {
    /// By server and prefix, then by the tool's name on the server.
    assigned: HashMap<(String, Option<String>), HashMap<String, String>>,
    taken: HashSet<String>,
}

impl Default for ToolNames {
    fn default() -> Self {
        Self { assigned: HashMap::new(), taken: [SEARCH_TOOLS.to_owned()].into() }
    }
}

impl ToolNames {
    /// The name under which the tool `tool` of `server` is offered. With a `prefix`, names start with it instead of being
    /// the tool's own.
    pub fn assign(&mut self, server: &str, prefix: Option<&str>, tool: &str) -> String {
        let key = (server.to_owned(), prefix.map(str::to_owned));
        if let Some(name) = self.assigned.get(&key).and_then(|names| names.get(tool)) {
            return name.clone();
        }
        let own = prefix.map_or_else(|| sanitize(tool), |prefix| sanitize(&format!("{prefix}_{tool}")));
        let name = match self.taken.contains(&own) {
            true => self.numbered(sanitize(&format!("{server}_{tool}"))),
            false => own,
        };
        self.taken.insert(name.clone());
        self.assigned.entry(key).or_default().insert(tool.to_owned(), name.clone());
        name
    }

    /// Gives up names of tools that `server` no longer lists, if there are many: a server that renames its tools without
    /// end must not fill the table. `listed` is its current list.
    pub fn forget_absent(&mut self, server: &str, prefix: Option<&str>, listed: &[McpTool]) {
        let key = (server.to_owned(), prefix.map(str::to_owned));
        let Some(names) = self.assigned.get_mut(&key) else { return };
        if names.len() <= listed.len() + MAX_ABSENT {
            return;
        }
        let listed: HashSet<_> = listed.iter().map(|tool| tool.original_name.as_str()).collect();
        let taken = &mut self.taken;
        names.retain(|tool, name| listed.contains(tool.as_str()) || !taken.remove(name));
    }

    /// Gives up the names of a server that is no longer configured with this prefix.
    pub fn forget_server(&mut self, server: &str, prefix: Option<&str>) {
        let names = self.assigned.remove(&(server.to_owned(), prefix.map(str::to_owned)));
        for name in names.into_iter().flat_map(HashMap::into_values) {
            self.taken.remove(&name);
        }
    }

    fn numbered(&self, base: String) -> String {
        let candidates = (2..).map(|number| {
            let suffix = format!("_{number}");
            format!("{}{suffix}", &base[..base.len().min(MAX_NAME_LEN - suffix.len())])
        });
        std::iter::once(base.clone())
            .chain(candidates)
            .find(|name| !self.taken.contains(name))
            .unwrap_or(base)
    }
}

/// Replaces what providers do not accept by `_`; the result is ASCII.
fn sanitize(name: &str) -> String {
    let accepted = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = name.chars().map(accepted).take(MAX_NAME_LEN).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_name_that_another_tool_has_gets_its_servers_name() {
        let mut names = ToolNames::default();
        assert_eq!(names.assign("a", None, "search"), "search");
        assert_eq!(names.assign("b", None, "search"), "b_search");
        assert_eq!(names.assign("b", Some("wiki"), "read"), "wiki_read");
    }

    #[test]
    fn an_assigned_name_stays() {
        let mut names = ToolNames::default();
        let late = names.assign("late", None, "search");
        names.assign("early", None, "search");
        assert_eq!(names.assign("late", None, "search"), late);
    }

    #[test]
    fn a_server_that_renames_its_tools_without_end_does_not_fill_the_table() {
        let mut names = ToolNames::default();
        let kept = names.assign("other", None, "tool0");
        let stays = McpTool::new("s", "stays", "", Value::Null);
        let name = names.assign("s", None, "stays");
        for number in 0..10_000 {
            names.assign("s", None, &format!("tool{number}"));
            names.forget_absent("s", None, std::slice::from_ref(&stays));
        }
        assert!(names.taken.len() < 1_010, "{}", names.taken.len());
        assert_eq!((names.assign("other", None, "tool0"), names.assign("s", None, "stays")), (kept, name));
    }

    #[test]
    fn the_names_of_a_server_that_is_gone_are_free() {
        let mut names = ToolNames::default();
        names.assign("a", None, "search");
        names.forget_server("a", None);
        assert_eq!(names.assign("b", None, "search"), "search");
        assert_eq!(names.assign("b", Some("web"), "search"), "web_search", "another prefix is another name");
    }

    /// Few servers and tools, so that they collide; and any characters.
    fn any_tool() -> impl Strategy<Value = (String, Option<String>, String)> {
        let server = proptest::sample::select(vec!["a", "b", "a_b", "größe"]).prop_map(str::to_owned);
        let prefix = proptest::option::of(proptest::sample::select(vec!["a", "p"]).prop_map(str::to_owned));
        let tool = prop_oneof!["[ab_.]{0,3}", "[ab_]{60,70}", "search_tools", ".{0,100}"];
        (server, prefix, tool)
    }

    proptest! {
        #[test]
        fn names_are_unique_acceptable_and_stay_whatever_comes_later(
            tools in proptest::collection::vec(any_tool(), 1..60)
        ) {
            let mut names = ToolNames::default();
            let mut assigned = HashMap::new();
            for tool in &tools {
                let (server, prefix, name) = tool;
                let offered = names.assign(server, prefix.as_deref(), name);
                prop_assert!((1..=64).contains(&offered.len()), "{}", offered);
                prop_assert!(offered.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert_ne!(&offered, SEARCH_TOOLS);
                let before = assigned.insert(tool, offered.clone());
                prop_assert!(before.is_none_or(|before| before == offered));
            }
            for (tool, offered) in &assigned {
                prop_assert_eq!(&names.assign(&tool.0, tool.1.as_deref(), &tool.2), offered);
            }
            prop_assert_eq!(assigned.values().collect::<HashSet<_>>().len(), assigned.len());
        }
    }
}
