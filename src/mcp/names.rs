//! Names under which tools of several servers are offered to a model.

use std::collections::{HashMap, HashSet};

use super::search::SEARCH_TOOLS;

/// The longest name that all providers accept.
const MAX_NAME_LEN: usize = 64;

/// Assigns every tool the name under which it is offered: unique among all servers, at most 64 characters of
/// `[a-zA-Z0-9_-]`.
///
/// A tool keeps its own name where providers accept it and no other tool has it; otherwise it is `SERVER_TOOL`, and a
/// number is appended while that is taken too. An assigned name stays for as long as the table lives, so no tool is
/// renamed because another server appears, changes or goes away.
#[derive(Debug, Default)]
pub struct ToolNames {
    assigned: HashMap<(String, String), String>,
    taken: HashSet<String>,
}

impl ToolNames {
    /// The name under which the tool `tool` of `server` is offered. With a `prefix`, names start with it instead of being
    /// the tool's own.
    pub fn assign(&mut self, server: &str, prefix: Option<&str>, tool: &str) -> String {
        let key = (server.to_owned(), tool.to_owned());
        if let Some(name) = self.assigned.get(&key) {
            return name.clone();
        }
        let own = prefix.map_or_else(|| sanitize(tool), |prefix| sanitize(&format!("{prefix}_{tool}")));
        let name = match self.taken.contains(&own) {
            true => self.numbered(sanitize(&format!("{server}_{tool}"))),
            false => own,
        };
        self.taken.insert(name.clone());
        self.assigned.insert(key, name.clone());
        name
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
    name.chars().map(accepted).take(MAX_NAME_LEN).collect()
}

#[cfg(test)]
mod tests {
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
    fn names_are_unique_and_acceptable_for_any_tool_names() {
        let mut names = ToolNames::default();
        let long = "x".repeat(200);
        let tools = [("a", "größe.x"), ("a", "größe x"), ("b", &long), ("c", &long), ("d", &long), ("d", "")];
        let assigned: Vec<_> = tools.iter().map(|(server, tool)| names.assign(server, None, tool)).collect();
        assert_eq!(assigned[0], "gr__e_x");
        assert_eq!(assigned.iter().collect::<HashSet<_>>().len(), tools.len(), "{assigned:?}");
        assert!(assigned.iter().all(|name| name.len() <= 64 && name.is_ascii()), "{assigned:?}");
    }
}
