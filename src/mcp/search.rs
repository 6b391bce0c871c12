//! Tools that are found by words instead of being offered all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{McpServerManager, McpTool};
use crate::tasks::{Function, FunctionError, FunctionOffer, Functions};

/// The function that finds tools.
pub(super) const SEARCH_TOOLS: &str = "search_tools";

/// Tools that one search returns unless the model asks for another number.
const DEFAULT_RESULTS: usize = 5;
/// Tools that one search returns at most.
const MAX_RESULTS: usize = 20;
/// Weight of a word in a tool's name, against one in its description.
const NAME_WEIGHT: f64 = 4.0;

/// Which tools are offered to a model directly, and which by search: see [`functions`](super::functions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolBudget {
    /// Maximum size of all tool definitions together, in bytes of JSON; beyond it tools are offered by search.
    pub max_offered_bytes: usize,
    /// Names of tools that are offered directly even then.
    pub always_offer: Vec<String>,
}

impl Default for ToolBudget {
    /// No limit.
    fn default() -> Self {
        Self { max_offered_bytes: usize::MAX, always_offer: Vec::new() }
    }
}

impl ToolBudget {
    /// A limit, and the tools to which it does not apply.
    #[must_use]
    pub fn new(max_offered_bytes: usize, always_offer: Vec<String>) -> Self {
        Self { max_offered_bytes, always_offer }
    }

    /// Whether all these tools may be offered directly.
    fn allows(&self, tools: &[McpTool]) -> bool {
        let mut left = self.max_offered_bytes;
        tools.iter().all(|tool| match left.checked_sub(tool.definition_bytes()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
    }
}

/// `tools` as functions, within the manager's budget.
pub(super) fn offer(manager: &Arc<dyn McpServerManager>, tools: Vec<McpTool>) -> Functions {
    let function = |tool: McpTool| tool.into_function(Arc::clone(manager));
    let budget = manager.tool_budget();
    if budget.allows(&tools) {
        return tools.into_iter().map(function).collect();
    }
    let (direct, searched): (Vec<_>, Vec<_>) =
        tools.into_iter().partition(|tool| budget.always_offer.contains(&tool.name));
    let found: Vec<_> = searched.into_iter().map(|tool| (tool, FunctionOffer::new())).collect();
    let on_demand = found.iter().map(|(tool, offer)| function(tool.clone()).with_offer(offer.clone()));
    let functions: Functions = direct.into_iter().map(function).chain(on_demand).collect();
    functions.with(search_function(manager, found, budget.max_offered_bytes))
}

/// Arguments of [`SEARCH_TOOLS`].
#[derive(Deserialize, JsonSchema)]
struct SearchArguments {
    /// Words that describe what the tool should do, or the name of a tool.
    query: String,
    /// Maximum number of tools to return; 5 unless given.
    #[serde(default)]
    limit: Option<usize>,
}

/// Finds tools among `tools`, returns their definitions and offers them.
fn search_function(
    manager: &Arc<dyn McpServerManager>,
    tools: Vec<(McpTool, FunctionOffer)>,
    max_bytes: usize,
) -> Function {
    let description = describe(manager, &tools);
    let tools: Arc<[_]> = tools.into();
    let search = move |arguments: SearchArguments| {
        let tools = Arc::clone(&tools);
        async move { Ok::<_, FunctionError>(search(&tools, &arguments, max_bytes)) }
    };
    Function::typed(SEARCH_TOOLS, search).with_description(description).with_max_result_bytes(usize::MAX)
}

fn describe(manager: &Arc<dyn McpServerManager>, tools: &[(McpTool, FunctionOffer)]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for (tool, _) in tools {
        *counts.entry(&tool.server_name).or_default() += 1;
    }
    let servers = manager.servers();
    let server = |(name, count): (&str, usize)| {
        let status = servers.iter().find(|server| server.name == name);
        let purpose = status.and_then(|server| server.description.as_deref());
        format!("\n- {name} ({count} tools){}", purpose.map_or_else(String::new, |text| format!(": {text}")))
    };
    let servers: String = counts.into_iter().map(server).collect();
    let count = tools.len();
    format!(
        "Finds tools by words, with the parameters they take. {count} tools are not listed until they are found; a tool \
         that was found can be called by its name. They belong to:{servers}"
    )
}

fn search(tools: &[(McpTool, FunctionOffer)], arguments: &SearchArguments, max_bytes: usize) -> Value {
    let limit = arguments.limit.unwrap_or(DEFAULT_RESULTS).clamp(1, MAX_RESULTS);
    let ranked = rank(tools.iter().map(|(tool, _)| tool), &arguments.query);
    let matches = ranked.len();
    let (mut found, mut bytes) = (Vec::new(), 0);
    for index in ranked.into_iter().take(limit) {
        let (tool, offer) = &tools[index];
        bytes += tool.definition_bytes();
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        offer.make();
        let McpTool { name, description, input_schema, server_name, .. } = tool;
        found.push(json!({ "name": name, "server": server_name, "description": description,
            "parameters": input_schema }));
    }
    match found.is_empty() {
        true => json!({ "tools": [], "message": "no tool matches; use other words" }),
        false => json!({ "tools": found, "matches": matches }),
    }
}

/// Indexes of the tools that share words with `query`, best first: rare words count more than frequent ones, words of the
/// name more than those of the description, a whole word more than its beginning. The name of a tool finds that tool
/// first. Equals are in the order of their names.
fn rank<'a>(tools: impl Iterator<Item = &'a McpTool>, query: &str) -> Vec<usize> {
    let documents: Vec<_> = tools.map(|tool| (tool, words(&tool.name), all_words(tool))).collect();
    let mut scores = vec![0.0; documents.len()];
    for word in words(query) {
        let strength = |words: &BTreeSet<String>| match words.contains(&word) {
            true => 1.0,
            false if words.range(word.clone()..).next().is_some_and(|next| next.starts_with(&word)) => 0.5,
            false => 0.0,
        };
        let strengths: Vec<_> = documents.iter().map(|(_, _, all)| strength(all)).collect();
        let frequency = strengths.iter().filter(|strength| **strength > 0.0).count() as f64;
        let rarity = (1.0 + documents.len() as f64 / (1.0 + frequency)).ln();
        for ((score, strength_all), (_, name, _)) in scores.iter_mut().zip(strengths).zip(&documents) {
            *score += rarity * (strength_all + (NAME_WEIGHT - 1.0) * strength(name));
        }
    }
    let is_name = |index: usize| {
        let tool = documents[index].0;
        [&tool.name, &tool.original_name].contains(&&query.trim().to_owned())
    };
    let mut ranked: Vec<_> = (0..documents.len()).filter(|index| scores[*index] > 0.0).collect();
    ranked.sort_by(|one, other| {
        let by_score = is_name(*other).cmp(&is_name(*one)).then(scores[*other].total_cmp(&scores[*one]));
        by_score.then_with(|| documents[*one].0.name.cmp(&documents[*other].0.name))
    });
    ranked
}

/// Words of the tool's names, its description, its server and its arguments.
fn all_words(tool: &McpTool) -> BTreeSet<String> {
    let properties = tool.input_schema.get("properties").and_then(Value::as_object);
    let arguments = properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str);
    let texts = [tool.name.as_str(), &tool.original_name, &tool.description, &tool.server_name];
    texts.into_iter().chain(arguments).flat_map(words).collect()
}

/// Words in lower case: runs of letters and digits, and the parts of camelCase. A plural's `s` is dropped.
fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for run in text.split(|c: char| !c.is_alphanumeric()) {
        let mut part = String::new();
        let mut was_lower = false;
        for c in run.chars() {
            if c.is_uppercase() && was_lower {
                words.insert(singular(std::mem::take(&mut part)));
            }
            was_lower = c.is_lowercase();
            part.extend(c.to_lowercase());
        }
        words.insert(singular(part));
    }
    words.remove("");
    words
}

fn singular(word: String) -> String {
    match word.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem.to_owned(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Vec<McpTool> {
        let tool =
            |server, name, description| McpTool::new(server, name, description, json!({"type": "object"}));
        vec![
            tool("github", "list_issues", "Lists the issues of a repository."),
            tool("github", "createPullRequest", "Creates a pull request in a repository."),
            tool("github", "search_code", "Searches code."),
            tool("mail", "send", "Sends a message to a person about an issue."),
        ]
    }

    fn found(query: &str) -> Vec<String> {
        let tools = tools();
        rank(tools.iter(), query).into_iter().map(|index| tools[index].name.clone()).collect()
    }

    #[test]
    fn words_of_names_descriptions_and_servers_are_found_best_first() {
        assert_eq!(found("issue"), ["list_issues", "send"]);
        assert_eq!(found("pull requests")[0], "createPullRequest");
        assert_eq!(
            found("repo"),
            ["createPullRequest", "list_issues"],
            "beginnings are found, equals by name"
        );
        assert_eq!(found("mail"), ["send"]);
        assert_eq!(found("search_code")[0], "search_code");
        assert!(found("weather").is_empty() && found("").is_empty());
    }

    #[test]
    fn a_search_offers_what_it_returns_within_its_limits() {
        let tools: Vec<_> = tools().into_iter().map(|tool| (tool, FunctionOffer::new())).collect();
        let arguments = SearchArguments { query: "repository".into(), limit: Some(1) };
        let result = search(&tools, &arguments, usize::MAX);
        assert_eq!((&result["matches"], result["tools"].as_array().map(Vec::len)), (&json!(2), Some(1)));
        let offered =
            |tools: &[(McpTool, FunctionOffer)]| tools.iter().filter(|(_, offer)| offer.is_made()).count();
        assert_eq!(offered(&tools), 1);
        let arguments = SearchArguments { query: "repository".into(), limit: None };
        assert_eq!(search(&tools, &arguments, 1)["tools"].as_array().map(Vec::len), Some(1), "at least one");
        assert_eq!(search(&tools, &arguments, usize::MAX)["tools"].as_array().map(Vec::len), Some(2));
        assert_eq!(offered(&tools), 2);
    }

    #[test]
    fn the_budget_counts_whole_definitions() {
        let tools = tools();
        let bytes: usize = tools.iter().map(McpTool::definition_bytes).sum();
        assert!(ToolBudget::new(bytes, Vec::new()).allows(&tools));
        assert!(!ToolBudget::new(bytes - 1, Vec::new()).allows(&tools));
    }
}
