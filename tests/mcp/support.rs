//! Servers and managers for these tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpCredentialStore, McpServerManager, McpToolResult};
use arshai::{Arshai, ArshaiBuilder, Config, Deadline, Result};
use arshai_test_support::eventually;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use crate::scripted::Script;

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

/// A server without any package, that is odd in the way that `oddity` names.
pub(crate) fn odd(oddity: &str) -> McpServerConfig {
    let python = installed("mcp-python/bin/python");
    let script = root().join("tests/mcp/odd.py");
    McpServerConfig::stdio("odd", python.to_string_lossy(), [script.to_string_lossy().as_ref(), oddity])
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

/// Waits until `holds`, with a deadline that only a broken promise reaches.
pub(crate) async fn until(what: &str, holds: impl FnMut() -> bool) {
    eventually(what, Duration::from_secs(30), holds).await;
}

/// A call of the tool `pay` that the server has received and not answered yet.
pub(crate) async fn running_call(
    manager: &Arc<dyn McpServerManager>,
    server: &str,
    script: &Script,
) -> JoinHandle<Result<McpToolResult>> {
    let (manager, call) = (Arc::clone(manager), McpCall::new(server, "pay"));
    let before = script.called().len();
    let running = tokio::spawn(async move { manager.call_tool(call).await });
    until("the call runs", || script.called().len() > before).await;
    running
}

/// Whether the process runs; a zombie does not.
pub(crate) fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

/// Whether there is nothing left of the process, not even a zombie.
pub(crate) fn is_gone(pid: &str) -> bool {
    !Path::new("/proc").join(pid).exists()
}

/// Sockets connected to the server at `origin` that a process holds, as the system counts them.
pub(crate) fn sockets_to(origin: &str) -> usize {
    let port: u16 = origin.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let is_held = |line: &&str| {
        // sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
        let columns: Vec<_> = line.split_whitespace().collect();
        columns[2].ends_with(&format!(":{port:04X}")) && columns[9] != "0"
    };
    table.lines().skip(1).filter(is_held).count()
}
