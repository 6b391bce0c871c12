//! MCP servers over `rmcp`: HTTP over the runtime's own transport, and child processes.

mod authorization;
mod calls;
mod catalog;
mod connection;
mod connector;
mod errors;
mod fingerprint;
mod handler;
mod headers;
mod http_client;
mod http_response;
mod input;
mod listing;
#[cfg(feature = "mcp-oauth")]
mod oauth;
mod replace;
mod resume;
mod server;
mod state;
mod stdio;
mod streams;
mod subscription;
mod supervisor;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::{McpConfig, McpServerConfig};
use crate::http::HttpTransport;
use crate::mcp::{
    InMemoryMcpCredentials, McpCall, McpCredentialStore, McpServerHealth, McpServerManager, McpServerStatus,
    McpTool, McpToolResult, ToolBudget, ToolNames,
};
use crate::support::opaque_debug;
use crate::{
    BuildContext, CloseReport, Component, ComponentRegistrar, Deadline, Error, ErrorKind, Health, LimitUsage,
    Result, ShutdownPhase,
};
use catalog::Catalog;
use connector::Connector;
use http_client::HttpSettings;
use server::Server;

const COMPONENT: &str = "mcp";

/// Many MCP servers under one supervisor; see [`McpServerManager`] for what it promises.
///
/// Both eras of the protocol are spoken: the stateless one (revision 2026-07-28) and the handshake of earlier revisions,
/// detected for each server and remembered.
pub struct RmcpServerManager {
    config: McpConfig,
    connector: Connector,
    credentials: Arc<dyn McpCredentialStore>,
    names: Arc<Mutex<ToolNames>>,
    servers: RwLock<Arc<[Arc<Server>]>>,
    /// Held while the servers are replaced.
    replacing: tokio::sync::Mutex<()>,
    registrar: ComponentRegistrar,
    closed: CancellationToken,
    streams: Option<Arc<dyn HttpTransport>>,
}

impl RmcpServerManager {
    /// The name that `mcp.backend` knows it by.
    pub const NAME: &'static str = "rmcp";

    /// A manager of the servers that the configuration lists. Connects nothing. Each server becomes a component of the
    /// runtime, named `mcp:NAME`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a header or token that HTTP does not allow.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let config = context.config.mcp.clone();
        let streams = streams::transport(context)?;
        let http = context.http.clone().map(|calls| HttpSettings {
            streams: streams.clone().unwrap_or_else(|| Arc::clone(&calls)),
            calls,
            authorization: None,
            call_timeout: config.connection_timeout,
            max_bytes: usize::MAX,
            deny_private_addresses: config.deny_private_addresses,
        });
        let inherited = Arc::new(config.inherited_env.clone());
        let (credentials, handler) = (context.mcp_credentials.clone(), context.mcp_handler.clone());
        let manager = Self {
            connector: Connector { http, inherited, guards: config.guards.clone(), handler },
            credentials: credentials.unwrap_or_else(|| Arc::new(InMemoryMcpCredentials::default())),
            names: Arc::default(),
            servers: RwLock::new(Arc::default()),
            replacing: tokio::sync::Mutex::default(),
            registrar: context.registrar(),
            closed: CancellationToken::new(),
            streams,
            config,
        };
        let configs = manager.config.servers.iter().filter(|_| manager.config.enabled);
        let servers: Arc<[_]> = configs.map(|config| manager.build(config.clone())).collect::<Result<_>>()?;
        for server in servers.iter() {
            manager.registrar.register(Arc::clone(server) as Arc<dyn Component>);
        }
        *manager.servers.write() = servers;
        Ok(manager)
    }

    /// A server that is not connected yet.
    fn build(&self, config: McpServerConfig) -> Result<Arc<Server>> {
        let guards = self.config.guards.with_overrides(&config.guards);
        let catalog = Catalog::new(&config, self.config.tool_changes, guards, Arc::clone(&self.names));
        let (connector, timeout) = (self.connector.clone(), self.config.connection_timeout);
        Ok(Arc::new(Server::new(config, connector, timeout, catalog, &self.credentials)?))
    }

    /// Attempts to connect that are waited for.
    fn attempts(&self, config: &McpServerConfig) -> u64 {
        u64::from(config.max_retries.unwrap_or(self.config.default_max_retries)).max(1)
    }

    fn current(&self) -> Arc<[Arc<Server>]> {
        Arc::clone(&self.servers.read())
    }

    fn server(&self, name: &str) -> Result<Arc<Server>> {
        let servers = self.current();
        servers.iter().find(|server| server.config.name == name).cloned().ok_or_else(|| {
            let names: Vec<_> = servers.iter().map(|server| server.config.name.as_str()).collect();
            let message = format!("unknown MCP server {name:?}; configured: {}", names.join(", "));
            Error::new(ErrorKind::NotFound, COMPONENT, message).not_sent()
        })
    }
}

#[async_trait]
impl McpServerManager for RmcpServerManager {
    fn is_enabled(&self) -> bool {
        !self.current().is_empty()
    }

    async fn initialize(&self, deadline: Deadline) -> Result<()> {
        let servers = self.current();
        let attempts = |server: &Arc<Server>| self.attempts(&server.config);
        // 1.5 times what all attempts may take, whatever a server does between them.
        let most = servers.iter().map(attempts).max().unwrap_or_default();
        let budget = self
            .config
            .connection_timeout
            .mul_f64(1.5)
            .saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
        let settled = servers.iter().map(|server| {
            server.start();
            server.settled(attempts(server))
        });
        let _ = deadline.capped(budget).run(COMPONENT, "connecting to MCP servers", join_all(settled)).await;
        let missing: Vec<_> = servers
            .iter()
            .filter(|server| server.config.required && server.status().health != McpServerHealth::Healthy)
            .map(|server| server.config.name.clone())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("required MCP servers are not connected: {}", missing.join(", "));
        Err(Error::new(ErrorKind::Unavailable, COMPONENT, message))
    }

    fn get_all_available_tools(&self) -> Vec<McpTool> {
        self.current().iter().flat_map(|server| server.tools().to_vec()).collect()
    }

    async fn call_tool(&self, call: McpCall) -> Result<McpToolResult> {
        self.call(call).await
    }

    async fn health_check(&self, deadline: Deadline) -> Vec<McpServerStatus> {
        join_all(self.current().iter().map(|server| server.check(deadline))).await
    }

    fn servers(&self) -> Vec<McpServerStatus> {
        self.current().iter().map(|server| server.status()).collect()
    }

    async fn reconnect(&self, server: &str, deadline: Deadline) -> Result<()> {
        let server = self.server(server)?;
        server.start();
        server.reconnect(deadline).await
    }

    async fn set_servers(&self, servers: Vec<McpServerConfig>, deadline: Deadline) -> Result<()> {
        self.replace(servers, deadline).await
    }

    fn accept_tool(&self, server: &str, tool: &str) -> Result<()> {
        self.server(server)?.accept(tool)
    }

    fn tool_budget(&self) -> ToolBudget {
        ToolBudget::new(self.config.max_offered_bytes, self.config.always_offer.clone())
    }

    async fn begin_authorization(
        &self,
        server: &str,
        redirect_url: &str,
        deadline: Deadline,
    ) -> Result<String> {
        self.server(server)?.begin_authorization(redirect_url, deadline).await
    }

    async fn complete_authorization(
        &self,
        server: &str,
        callback_url: &str,
        deadline: Deadline,
    ) -> Result<()> {
        let server = self.server(server)?;
        server.start();
        server.complete_authorization(callback_url, deadline).await
    }
}

/// The servers are components of their own; this one only closes them where there is no runtime to do it.
#[async_trait]
impl Component for RmcpServerManager {
    fn name(&self) -> Cow<'_, str> {
        COMPONENT.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Clients
    }

    fn limits(&self) -> Vec<LimitUsage> {
        self.streams.iter().filter_map(|streams| streams::usage(&**streams)).collect()
    }

    fn counters(&self) -> Value {
        json!({ "servers": self.current().len(), "connected": self.connected_servers().len() })
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        // Under the lock: a replacement that comes later finds it closed.
        let servers = {
            let servers = self.servers.write();
            self.closed.cancel();
            Arc::clone(&servers)
        };
        let reports = join_all(servers.iter().map(|server| server.close(deadline))).await;
        if let Some(streams) = &self.streams {
            streams.close(deadline).await;
        }
        let sum = |count: fn(&CloseReport) -> usize| reports.iter().map(count).sum();
        CloseReport::new(sum(|report| report.finished), sum(|report| report.aborted), Vec::new())
    }
}

impl Drop for RmcpServerManager {
    fn drop(&mut self) {
        self.current().iter().for_each(|server| server.stop());
    }
}

opaque_debug!(RmcpServerManager(self) { servers: self.current() });
