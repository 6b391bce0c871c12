//! Servers and managers for these tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCredentialStore, McpServerManager};
use arshai::{Arshai, ArshaiBuilder, Config, Deadline};
use serde_json::{Map, Value};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/all.sh` installs.
pub(crate) fn installed(path: &str) -> PathBuf {
    let path = root().join("target").join(path);
    assert!(path.exists(), "{path:?} is missing; `bash tests/all.sh` installs it");
    path
}

/// The Python server as a child process.
pub(crate) fn python(name: &str) -> McpServerConfig {
    let python = installed("mcp-python/bin/python");
    let script = root().join("tests/mcp/server.py");
    McpServerConfig::stdio(name, python.to_string_lossy(), [script.to_string_lossy().as_ref(), "stdio"])
}

/// The npm server as a child process.
pub(crate) fn everything(name: &str) -> McpServerConfig {
    let script = installed("node/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    McpServerConfig::stdio(name, "node", [script.to_string_lossy().as_ref(), "stdio"])
}

pub(crate) fn runtime(servers: impl IntoIterator<Item = McpServerConfig>) -> Arshai {
    runtime_with(servers, |_| {})
}

pub(crate) fn runtime_with(
    servers: impl IntoIterator<Item = McpServerConfig>,
    change: impl FnOnce(&mut Config),
) -> Arshai {
    builder(servers, change).build().expect("the configuration is valid")
}

pub(crate) fn builder(
    servers: impl IntoIterator<Item = McpServerConfig>,
    change: impl FnOnce(&mut Config),
) -> ArshaiBuilder {
    let mut config = Config::default();
    config.mcp.enabled = true;
    // A third of it is for the probe: a real server may take long to start where many are tested at once.
    config.mcp.connection_timeout = Duration::from_secs(60);
    config.mcp.servers = servers.into_iter().collect();
    config.mcp.inherited_env = [("PATH".to_owned(), std::env::var("PATH").expect("there is a path"))].into();
    change(&mut config);
    Arshai::builder(config)
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub(crate) async fn connected(
    servers: impl IntoIterator<Item = McpServerConfig>,
) -> (Arshai, Arc<dyn McpServerManager>) {
    connected_with(servers, |_| {}).await
}

/// The same, with more of the configuration.
pub(crate) async fn connected_with(
    servers: impl IntoIterator<Item = McpServerConfig>,
    change: impl FnOnce(&mut Config),
) -> (Arshai, Arc<dyn McpServerManager>) {
    initialized(runtime_with(servers, change)).await
}

/// The same, with a store for credentials.
pub(crate) async fn connected_with_store(
    servers: impl IntoIterator<Item = McpServerConfig>,
    store: Arc<dyn McpCredentialStore>,
) -> (Arshai, Arc<dyn McpServerManager>) {
    let runtime = builder(servers, |_| {}).mcp_credentials(store).build();
    initialized(runtime.expect("the configuration is valid")).await
}

async fn initialized(runtime: Arshai) -> (Arshai, Arc<dyn McpServerManager>) {
    let manager = Arc::clone(runtime.mcp().expect("compiled in"));
    manager.initialize(soon()).await.expect("no server is required");
    (runtime, manager)
}

pub(crate) fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}
