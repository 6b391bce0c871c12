//! MCP servers over `rmcp`: HTTP over the runtime's own transport, and child processes.

mod authorization;
mod connection;
mod connector;
mod errors;
mod handler;
mod headers;
mod http_client;
mod http_response;
mod listing;
#[cfg(feature = "mcp-oauth")]
mod oauth;
mod resume;
mod server;
mod state;
mod stdio;
mod streams;
mod subscription;
mod supervisor;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http::HttpTransport;
use crate::mcp::{
    InMemoryMcpCredentials, McpCall, McpGuards, McpServerHealth, McpServerManager, McpServerStatus, McpTool,
    McpToolResult, ToolNames,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase,
};
use connector::Connector;
use http_client::HttpSettings;
use server::Server;

const COMPONENT: &str = "mcp";

/// Many MCP servers under one supervisor; see [`McpServerManager`] for what it promises.
///
/// Both eras of the protocol are spoken: the stateless one (revision 2026-07-28) and the handshake of earlier revisions,
/// detected for each server and remembered.
#[derive(Debug)]
pub struct RmcpServerManager {
    enabled: bool,
    servers: Vec<Arc<Server>>,
    /// Attempts that `initialize` waits for, in the order of the servers.
    attempts: Vec<u64>,
    connect_timeout: Duration,
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
        let (config, guards) = (&context.config.mcp, McpGuards::default());
        let streams = streams::transport(context)?;
        let http = context.http.clone().map(|calls| HttpSettings {
            streams: streams.clone().unwrap_or_else(|| Arc::clone(&calls)),
            calls,
            authorization: None,
            call_timeout: config.connection_timeout,
            max_bytes: guards.max_result_bytes.saturating_mul(4),
            deny_private_addresses: config.deny_private_addresses,
        });
        let connector = Connector { http, inherited: Arc::new(config.inherited_env.clone()), guards };
        let names = Arc::new(Mutex::new(ToolNames::default()));
        let connect_timeout = config.connection_timeout;
        let configs = config.servers.iter().filter(|_| config.enabled);
        let attempts = configs
            .clone()
            .map(|server| u64::from(server.max_retries.unwrap_or(config.default_max_retries)).max(1));
        let credentials =
            context.mcp_credentials.clone().unwrap_or_else(|| Arc::new(InMemoryMcpCredentials::default()));
        let servers = configs.map(|server| {
            let (connector, names) = (connector.clone(), Arc::clone(&names));
            let server = Server::new(server.clone(), connector, connect_timeout, names, &credentials)?;
            Ok(Arc::new(server))
        });
        let servers = servers.collect::<Result<Vec<_>>>()?;
        for server in &servers {
            context.register(Arc::clone(server) as Arc<dyn Component>);
        }
        Ok(Self { enabled: config.enabled, servers, attempts: attempts.collect(), connect_timeout, streams })
    }

    fn server(&self, name: &str) -> Result<&Arc<Server>> {
        self.servers.iter().find(|server| server.config.name == name).ok_or_else(|| {
            let names: Vec<_> = self.servers.iter().map(|server| server.config.name.as_str()).collect();
            let message = format!("unknown MCP server {name:?}; configured: {}", names.join(", "));
            Error::new(ErrorKind::NotFound, COMPONENT, message).not_sent()
        })
    }
}

#[async_trait]
impl McpServerManager for RmcpServerManager {
    fn is_enabled(&self) -> bool {
        self.enabled
    }

    async fn initialize(&self, deadline: Deadline) -> Result<()> {
        // 1.5 times what all attempts may take, whatever a server does between them.
        let attempts = self.attempts.iter().copied().max().unwrap_or_default();
        let budget =
            self.connect_timeout.mul_f64(1.5).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
        let settled = self.servers.iter().zip(&self.attempts).map(|(server, attempts)| {
            server.start();
            server.settled(*attempts)
        });
        let _ = deadline.capped(budget).run(COMPONENT, "connecting to MCP servers", join_all(settled)).await;
        let missing: Vec<_> = self
            .servers
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
        self.servers.iter().flat_map(|server| server.tools().to_vec()).collect()
    }

    async fn call_tool(&self, call: McpCall) -> Result<McpToolResult> {
        self.server(&call.server)?.call(call).await
    }

    async fn health_check(&self, deadline: Deadline) -> Vec<McpServerStatus> {
        join_all(self.servers.iter().map(|server| server.check(deadline))).await
    }

    fn servers(&self) -> Vec<McpServerStatus> {
        self.servers.iter().map(|server| server.status()).collect()
    }

    async fn reconnect(&self, server: &str, deadline: Deadline) -> Result<()> {
        let server = self.server(server)?;
        server.start();
        server.reconnect(deadline).await
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
        json!({ "servers": self.servers.len(), "connected": self.connected_servers().len() })
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let reports = join_all(self.servers.iter().map(|server| server.close(deadline))).await;
        if let Some(streams) = &self.streams {
            streams.close(deadline).await;
        }
        let sum = |count: fn(&CloseReport) -> usize| reports.iter().map(count).sum();
        CloseReport::new(sum(|report| report.finished), sum(|report| report.aborted), Vec::new())
    }
}

impl Drop for RmcpServerManager {
    fn drop(&mut self) {
        self.servers.iter().for_each(|server| server.stop());
    }
}
