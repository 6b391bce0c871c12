//! `mcp.servers`: what one may say, checked as Python arshai checks it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use figment::value::{Dict, Value};

use super::parse::{Kind, Parsed, WEB, Wrong};
use super::sections::{McpConfig, McpServerConfig};

const KEYS: [&str; 8] = ["name", "url", "command", "args", "env", "timeout", "max_retries", "description"];

/// Parses the list. A server without a timeout gets a zero one until [`settle`] knows the common one.
pub(super) fn parse(items: &[Value]) -> Result<Vec<McpServerConfig>, Wrong> {
    let numbered = items.iter().enumerate();
    numbered.map(|(at, item)| server(item).map_err(|wrong| wrong.within(&format!("[{at}]")))).collect()
}

fn server(value: &Value) -> Result<McpServerConfig, Wrong> {
    let Some(dict) = value.as_dict() else {
        return Err(Wrong::new("expected a server: a name, and a url or a command"));
    };
    if let Some(key) = dict.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let known = KEYS.join(", ");
        return Err(Wrong::new(format!("there is no such key of a server; there are {known}")).at(key));
    }
    let name = text(dict, "name")?.filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| Wrong::new("expected the server's name").at("name"))?;
    let (url, command) = (url(dict)?, text(dict, "command")?);
    if url.is_some() == command.is_some() {
        return Err(Wrong::new(format!("server {name:?} needs either a url or a command, and not both")));
    }
    let mut c = McpServerConfig::at(name, "");
    c.url = url;
    c.command = command;
    c.args = args(dict)?;
    c.env = env(dict)?;
    c.timeout = timeout(dict)?;
    c.max_retries = max_retries(dict)?;
    c.description = text(dict, "description")?;
    Ok(c)
}

fn text(dict: &Dict, key: &str) -> Result<Option<String>, Wrong> {
    let Some(value) = dict.get(key) else { return Ok(None) };
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(|text| Some(text.to_owned())).ok_or_else(|| Wrong::new("expected text").at(key))
}

fn url(dict: &Dict) -> Result<Option<String>, Wrong> {
    match value(dict, "url", Kind::Url { schemes: &WEB, example: "https://mcp.example.com/mcp" })? {
        Some(Parsed::Text(url)) => Ok(Some(url)),
        _ => Ok(None),
    }
}

fn timeout(dict: &Dict) -> Result<Duration, Wrong> {
    match value(dict, "timeout", Kind::Seconds { example: 30 })? {
        Some(Parsed::Number(seconds)) => Ok(Duration::from_secs(seconds)),
        _ => Ok(Duration::ZERO),
    }
}

fn max_retries(dict: &Dict) -> Result<Option<u32>, Wrong> {
    match value(dict, "max_retries", Kind::Number { least: 0, most: 100, example: 3 })? {
        Some(Parsed::Number(number)) => Ok(u32::try_from(number).ok()),
        _ => Ok(None),
    }
}

fn value(dict: &Dict, key: &str, kind: Kind) -> Result<Option<Parsed>, Wrong> {
    let parse = |value| kind.parse_value(value).map_err(|wrong| wrong.at(key));
    dict.get(key).map(parse).transpose()
}

fn args(dict: &Dict) -> Result<Vec<String>, Wrong> {
    let Some(value) = dict.get("args") else { return Ok(Vec::new()) };
    let texts = |items: &[Value]| items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
    value.as_array().and_then(texts).ok_or_else(|| Wrong::new("expected a list of texts").at("args"))
}

fn env(dict: &Dict) -> Result<BTreeMap<String, secrecy::SecretString>, Wrong> {
    let Some(value) = dict.get("env") else { return Ok(BTreeMap::new()) };
    let texts = |env: &Dict| {
        env.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.into()))).collect::<Option<_>>()
    };
    value.as_dict().and_then(texts).ok_or_else(|| Wrong::new("expected names with texts").at("env"))
}

/// What can only be checked once every layer has spoken; fills in what servers leave to the section.
pub(super) fn settle(mcp: &mut McpConfig) -> Result<(), Wrong> {
    if mcp.enabled && mcp.servers.is_empty() {
        return Err(Wrong::new(
            "mcp.enabled needs at least one server; list it here, or set MCP_SERVER_URL, for example \
             https://mcp.example.com/mcp",
        ));
    }
    let mut names = BTreeSet::new();
    for server in &mut mcp.servers {
        if server.timeout.is_zero() {
            server.timeout = mcp.connection_timeout;
        }
        if !names.insert(server.name.as_str()) {
            let name = &server.name;
            return Err(Wrong::new(format!("two servers are named {name:?}; give each its own name")));
        }
    }
    Ok(())
}
