//! The contenders: our manager over either transport, bare rmcp, and the official Python client.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arshai::config::McpServerConfig;
use arshai::mcp::McpServerManager;
use arshai::{Arshai, Config, Deadline};
use rmcp::ServiceExt as _;
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use tokio::runtime::Runtime;

pub(crate) const OURS: &str = "arshai";
pub(crate) const OURS_HYPER: &str = "arshai, hyper";
pub(crate) const RMCP: &str = "rmcp 3.11, idle connections kept";
pub(crate) const RMCP_DEFAULT: &str = "rmcp 3.11, as it comes";
pub(crate) const PYTHON: &str = "mcp-python 2.3.0";

pub(crate) type Rmcp = RunningService<RoleClient, ()>;

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A runtime of ours that is connected to all `urls`.
pub(crate) async fn connected(backend: &str, urls: &[String]) -> (Arshai, Arc<dyn McpServerManager>) {
    let mut config = Config::default();
    config.mcp.enabled = true;
    config.http.backend = backend.to_owned();
    config.pool.max_connections = 128;
    let server = |(n, url): (usize, &String)| {
        let mut server = McpServerConfig::http(format!("s{n}"), url.clone());
        server.max_concurrency = 128;
        server
    };
    config.mcp.servers = urls.iter().enumerate().map(server).collect();
    let runtime = Arshai::builder(config).build().expect("the configuration is valid");
    let manager = Arc::clone(runtime.mcp().expect("it is compiled in"));
    manager.initialize(Deadline::after(Duration::from_secs(30))).await.expect("nothing is required");
    assert_eq!(manager.connected_servers().len(), urls.len());
    (runtime, manager)
}

pub(crate) fn keeping_client() -> reqwest13::Client {
    reqwest13::Client::builder().pool_max_idle_per_host(128).tcp_nodelay(true).build().expect("a client")
}

pub(crate) async fn rmcp_connected(url: &str, client: Option<reqwest13::Client>) -> Rmcp {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned()).max_concurrent_requests(128);
    let transport = match client {
        Some(client) => StreamableHttpClientTransport::with_client(client, config),
        None => StreamableHttpClientTransport::from_config(config),
    };
    let service = ().serve(transport).await.expect("it connects");
    // As our manager does on every connection.
    assert_eq!(service.list_all_tools().await.expect("listed").len(), 1);
    service
}

pub(crate) async fn rmcp_all(urls: &[String]) -> Vec<Rmcp> {
    let client = keeping_client();
    futures_util::future::join_all(urls.iter().map(|url| rmcp_connected(url, Some(client.clone())))).await
}

/// Calls per second of the official Python client.
pub(crate) fn python(url: &str, callers: usize, calls: usize) -> f64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = root.join("../target/mcp-python/bin/python");
    let output = Command::new(interpreter)
        .arg(root.join("python/mcp_client.py"))
        .args([url, &callers.to_string(), &calls.to_string()])
        .output()
        .expect("tests/all.sh installs MCP's Python SDK");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}
