//! `mcp.servers`: one MCP server, and the checks that Python arshai does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use figment::value::{Dict, Value};
use secrecy::{ExposeSecret, SecretString};

use super::McpConfig;
use super::setting::{Setting, ValueError};
use super::spec::Spec;

pub(super) const KEYS: [&str; 8] =
    ["name", "url", "command", "args", "env", "timeout", "max_retries", "description"];

/// One MCP server.
#[derive(Clone)]
#[non_exhaustive]
pub struct McpServerConfig {
    /// Unique name.
    pub name: String,
    /// URL of an HTTP server.
    pub url: Option<String>,
    /// Program of a stdio server.
    pub command: Option<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Environment of the program.
    pub env: BTreeMap<String, SecretString>,
    /// Timeout of a call.
    pub timeout: Duration,
    /// Number of attempts to connect.
    pub max_retries: Option<u32>,
    /// Purpose of the server.
    pub description: Option<String>,
}

impl McpServerConfig {
    /// An HTTP server at `url` with Python arshai's defaults.
    #[must_use]
    pub fn http(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: Some(url.into()),
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_retries: None,
            description: None,
        }
    }
}

/// Shows only the name: URL, arguments and environment may hold tokens.
impl fmt::Debug for McpServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServerConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Setting for Vec<McpServerConfig> {
    /// Only files and code can hold more than one server's settings.
    fn parse(&mut self, _: &str, _: &Spec) -> Result<(), ValueError> {
        Err(ValueError::default())
    }

    /// A server without a timeout has a zero one until [`finalize`] knows the common one.
    fn parse_value(&mut self, value: &Value, spec: &Spec) -> Result<(), ValueError> {
        let items = value.as_array().ok_or_else(ValueError::default)?.iter().enumerate();
        let servers = items.map(|(index, item)| {
            parse_server(item, spec).map_err(|error| error.nested_under(&format!("[{index}]")))
        });
        *self = servers.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Only names: URLs, arguments and environments may hold tokens.
    fn display(&self, spec: &Spec) -> String {
        self.iter().map(|server| server.name.clone()).collect::<Vec<_>>().display(spec)
    }

    fn expected(&self, _: &Spec) -> String {
        "a list of MCP servers, each with a name and a url or a command".to_owned()
    }

    fn is_secret(&self, _: &Spec) -> bool {
        true
    }

    fn exposed(&self) -> String {
        let server = |server: &McpServerConfig| {
            let McpServerConfig { name, url, command, args, env, timeout, max_retries, description } = server;
            let env: Vec<_> = env.iter().map(|(name, value)| (name, value.expose_secret())).collect();
            format!("{:?}", (name, url, command, args, env, timeout, max_retries, description))
        };
        self.iter().map(server).collect()
    }
}

/// The keys of servers in this list that are not known: index and key.
pub(super) fn unknown_keys(servers: &Value) -> impl Iterator<Item = (usize, &str)> {
    let servers = servers.as_array().unwrap_or_default().iter().enumerate();
    servers.filter_map(|(index, server)| Some((index, server.as_dict()?))).flat_map(|(index, server)| {
        let unknown = server.keys().map(String::as_str).filter(|key| !KEYS.contains(key));
        unknown.map(move |key| (index, key))
    })
}

fn parse_server(value: &Value, spec: &Spec) -> Result<McpServerConfig, ValueError> {
    let Some(dict) = value.as_dict() else {
        let expected = "expected an MCP server table: `name` and either `url` or `command`";
        return Err(ValueError::new(expected));
    };
    let name: String = read(dict, "name", "a non-empty string", &Spec::NEW)?
        .ok_or_else(|| ValueError::new("expected the server's name").at_key("name"))?;
    let url = read(dict, "url", "a URL, e.g. https://mcp.example.com/mcp", spec)?;
    let command = read(dict, "command", "a non-empty string", &Spec::NEW)?;
    if url.is_some() == command.is_some() {
        return Err(ValueError::new(format!("MCP server {name:?}: set exactly one of `url` and `command`")));
    }
    let retries = Spec { min: 0, max: 100, ..Spec::NEW };
    Ok(McpServerConfig {
        name,
        url,
        command,
        args: read(dict, "args", "a list of strings", &Spec::NEW)?.unwrap_or_default(),
        env: env(dict)?,
        timeout: read(dict, "timeout", "a whole number of seconds, at least 1", &Spec::NEW)?
            .unwrap_or_default(),
        max_retries: read(dict, "max_retries", "a whole number from 0 to 100", &retries)?,
        description: read(dict, "description", "a non-empty string", &Spec::NEW)?,
    })
}

fn read<T: Setting + Default>(
    dict: &Dict,
    key: &str,
    expected: &str,
    spec: &Spec,
) -> Result<Option<T>, ValueError> {
    let Some(value) = dict.get(key) else { return Ok(None) };
    let mut setting = T::default();
    setting
        .parse_value(value, spec)
        .map_err(|_| ValueError::new(format!("expected {expected}")).at_key(key))?;
    Ok(Some(setting))
}

fn env(dict: &Dict) -> Result<BTreeMap<String, SecretString>, ValueError> {
    let Some(value) = dict.get("env") else { return Ok(BTreeMap::new()) };
    let strings = |env: &Dict| {
        env.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.into()))).collect::<Option<_>>()
    };
    let env = value.as_dict().and_then(strings);
    env.ok_or_else(|| ValueError::new("expected a table of strings").at_key("env"))
}

/// Checks what only the whole configuration shows, and fills in what servers leave to the section.
pub(super) fn finalize(mcp: &mut McpConfig) -> Result<(), String> {
    if mcp.enabled && mcp.servers.is_empty() {
        return Err("mcp.enabled needs at least one server: list it here or set MCP_SERVER_URL, \
                    e.g. https://mcp.example.com/mcp"
            .to_owned());
    }
    let mut names = BTreeSet::new();
    for server in &mut mcp.servers {
        if server.timeout.is_zero() {
            server.timeout = mcp.connection_timeout;
        }
        if !names.insert(server.name.as_str()) {
            return Err(format!("duplicate MCP server name {:?}", server.name));
        }
    }
    Ok(())
}
