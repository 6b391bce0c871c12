//! `mcp.servers`: one MCP server, and the checks that Python arshai does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

use figment::value::{Dict, Value};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::McpConfig;
use super::mcp_auth::McpAuth;
use super::mcp_guards::{self, McpGuardOverrides};
use super::mcp_tool_changes::{McpToolChanges, is_fingerprint};
use super::setting::{Setting, ValueError};
use super::spec::Spec;
use crate::support::opaque_debug;

pub(super) const KEYS: [&str; 20] = [
    "name",
    "url",
    "command",
    "args",
    "env",
    "timeout",
    "max_retries",
    "description",
    "headers",
    "token",
    "auth",
    "protocol",
    "max_concurrency",
    "required",
    "prefix",
    "allow_tools",
    "deny_tools",
    "guards",
    "tool_changes",
    "pins",
];

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
    /// HTTP headers of every request.
    pub headers: BTreeMap<String, SecretString>,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// Authorization by OAuth, instead of a fixed bearer token.
    pub auth: Option<McpAuth>,
    /// Protocol era.
    pub protocol: McpProtocol,
    /// Maximum number of concurrent calls.
    pub max_concurrency: usize,
    /// Whether `initialize` fails when the server cannot be connected.
    pub required: bool,
    /// Prefix of the names of its tools, instead of their own names.
    pub prefix: Option<String>,
    /// The tools that are offered, by their names on the server; all if unset.
    pub allow_tools: Option<Vec<String>>,
    /// Tools that are not offered.
    pub deny_tools: Vec<String>,
    /// Limits on what it may send, instead of those for all servers, by name: `max_tools`.
    pub guards: McpGuardOverrides,
    /// Response to a tool that changes under the same name; that of the section `mcp` if unset.
    pub tool_changes: Option<McpToolChanges>,
    /// The fingerprints that tools must have, by their names on the server.
    pub pins: BTreeMap<String, String>,
}

/// The environment that every child process gets besides its own `env`: by default `PATH`, `HOME`, `LANG`, `TMPDIR`,
/// `USER` and `SHELL` of the environment that the configuration was loaded from, and nothing else.
pub type InheritedEnv = BTreeMap<String, String>;

/// The variables of [`InheritedEnv`].
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL"];

/// Picks the variables that child processes inherit.
pub(super) fn inherited_env(vars: &[(OsString, OsString)]) -> InheritedEnv {
    let text =
        |(name, value): &(OsString, OsString)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()));
    vars.iter().filter_map(text).filter(|(name, _)| INHERITED.contains(&name.as_str())).collect()
}

/// How a connection to a server begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum McpProtocol {
    /// Tries the stateless era first, then the handshake of earlier revisions, and remembers which one worked.
    #[default]
    Auto,
    /// Revision 2026-07-28 and later: no session, metadata with every request.
    Stateless,
    /// Revision 2025-11-25 and earlier: the `initialize` handshake. For servers that fail when they are probed.
    Initialize,
}

impl McpServerConfig {
    /// An HTTP server at `url` with Python arshai's defaults.
    #[must_use]
    pub fn http(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::named(name.into()) }
    }

    /// A server that is the child process `command` with `args`.
    #[must_use]
    pub fn stdio<'a>(
        name: impl Into<String>,
        command: impl Into<String>,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let args = args.into_iter().map(str::to_owned).collect();
        Self { command: Some(command.into()), args, ..Self::named(name.into()) }
    }

    fn named(name: String) -> Self {
        Self {
            name,
            url: None,
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_retries: None,
            description: None,
            headers: BTreeMap::new(),
            token: None,
            auth: None,
            protocol: McpProtocol::Auto,
            max_concurrency: 16,
            required: false,
            prefix: None,
            allow_tools: None,
            deny_tools: Vec::new(),
            guards: BTreeMap::new(),
            tool_changes: None,
            pins: BTreeMap::new(),
        }
    }
}

// Shows only the name: URL, arguments and environment may hold tokens.
opaque_debug!(McpServerConfig { name });

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

    fn is_valid(&self, _: &Spec) -> bool {
        self.iter().all(|server| server.problem().is_none())
    }

    /// Only names and guards: URLs, arguments and environments may hold tokens.
    fn display(&self, spec: &Spec) -> String {
        let server = |server: &McpServerConfig| {
            let guards = mcp_guards::display(&server.guards);
            if guards.is_empty() { server.name.clone() } else { format!("{} ({guards})", server.name) }
        };
        self.iter().map(server).collect::<Vec<_>>().display(spec)
    }

    fn expected(&self, _: &Spec) -> String {
        "a list of MCP servers, each with a name and a url or a command".to_owned()
    }

    fn is_secret(&self, _: &Spec) -> bool {
        true
    }

    fn exposed(&self) -> String {
        self.iter().map(McpServerConfig::exposed).collect()
    }
}

impl McpServerConfig {
    /// Everything of it, secrets included, to find out whether it has changed.
    fn exposed(&self) -> String {
        let server = |server: &McpServerConfig| {
            let exposed = |secrets: &BTreeMap<String, SecretString>| -> Vec<(String, String)> {
                secrets.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
            };
            let McpServerConfig { name, url, command, args, timeout, max_retries, description, .. } = server;
            let McpServerConfig {
                protocol, max_concurrency, required, prefix, allow_tools, deny_tools, ..
            } = server;
            let secrets = (exposed(&server.env), exposed(&server.headers));
            let token = server.token.as_ref().map(|token| token.expose_secret());
            let auth = server.auth.as_ref().map(McpAuth::exposed);
            format!(
                "{:?}{:?}{:?}",
                (name, url, command, args, timeout, max_retries, description),
                (protocol, max_concurrency, required, prefix, allow_tools, deny_tools),
                (secrets, token, auth, &server.guards, server.tool_changes, &server.pins)
            )
        };
        server(self)
    }

    /// Whether both are the same in everything, secrets included.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.exposed() == other.exposed()
    }
}

/// The keys of servers in this list that are not known: index and key.
pub(super) fn unknown_keys(servers: &Value) -> impl Iterator<Item = (usize, String)> {
    let servers = servers.as_array().unwrap_or_default().iter().enumerate();
    servers.filter_map(|(index, server)| Some((index, server.as_dict()?))).flat_map(|(index, server)| {
        let unknown = server.keys().filter(|key| !KEYS.contains(&key.as_str())).cloned();
        unknown.chain(mcp_guards::unknown_keys(server)).map(move |key| (index, key))
    })
}

/// Every key of a server.
pub(super) fn known_keys() -> impl Iterator<Item = String> {
    KEYS.into_iter().map(str::to_owned).chain(mcp_guards::known_keys())
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
    let auth = dict.get("auth").map(|auth| McpAuth::parse(auth).map_err(|error| error.at_key("auth")));
    let auth = auth.transpose()?;
    if auth.is_some() && (dict.contains_key("token") || command.is_some()) {
        let message = "is for an HTTP server without a fixed `token`";
        return Err(ValueError::new(message).at_key("auth"));
    }
    let retries = Spec { min: 0, max: 100, ..Spec::NEW };
    let strings = "a list of strings";
    Ok(McpServerConfig {
        url,
        command,
        args: read(dict, "args", strings, &Spec::NEW)?.unwrap_or_default(),
        env: table(dict, "env")?,
        timeout: read(dict, "timeout", "a whole number of seconds, at least 1", &Spec::NEW)?
            .unwrap_or_default(),
        max_retries: read(dict, "max_retries", "a whole number from 0 to 100", &retries)?,
        description: read(dict, "description", "a non-empty string", &Spec::NEW)?,
        headers: table(dict, "headers")?,
        token: read::<Option<SecretString>>(dict, "token", "a non-empty string", &Spec::NEW)?.flatten(),
        auth,
        protocol: protocol(dict)?,
        max_concurrency: read(dict, "max_concurrency", "a whole number, at least 1", &Spec::NEW)?
            .unwrap_or(16),
        required: read(dict, "required", "true or false", &Spec::NEW)?.unwrap_or_default(),
        prefix: read(dict, "prefix", "a non-empty string", &Spec::NEW)?,
        allow_tools: read(dict, "allow_tools", strings, &Spec::NEW)?,
        deny_tools: read(dict, "deny_tools", strings, &Spec::NEW)?.unwrap_or_default(),
        guards: mcp_guards::parse(dict)?,
        tool_changes: read(dict, "tool_changes", "\"ignore\", \"report\" or \"refuse\"", &Spec::NEW)?,
        pins: pins(dict)?,
        ..McpServerConfig::named(name)
    })
}

fn protocol(dict: &Dict) -> Result<McpProtocol, ValueError> {
    match dict.get("protocol").map(|value| value.as_str()) {
        None | Some(Some("auto")) => Ok(McpProtocol::Auto),
        Some(Some("stateless")) => Ok(McpProtocol::Stateless),
        Some(Some("initialize")) => Ok(McpProtocol::Initialize),
        Some(_) => {
            Err(ValueError::new("expected \"auto\", \"stateless\" or \"initialize\"").at_key("protocol"))
        }
    }
}

fn pins(dict: &Dict) -> Result<BTreeMap<String, String>, ValueError> {
    let pins = table(dict, "pins")?.into_iter().map(|(tool, pin)| (tool, pin.expose_secret().to_owned()));
    let pins: BTreeMap<_, _> = pins.collect();
    match pins.iter().find(|(_, pin)| !is_fingerprint(pin)) {
        None => Ok(pins),
        Some((tool, _)) => {
            let error = ValueError::new("expected a fingerprint: `sha256:` and 64 hexadecimal digits");
            Err(error.at_key(tool).nested_under(".pins"))
        }
    }
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

fn table(dict: &Dict, key: &str) -> Result<BTreeMap<String, SecretString>, ValueError> {
    let Some(value) = dict.get(key) else { return Ok(BTreeMap::new()) };
    let strings = |table: &Dict| {
        table.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.into()))).collect::<Option<_>>()
    };
    let table = value.as_dict().and_then(strings);
    table.ok_or_else(|| ValueError::new("expected a table of strings").at_key(key))
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
