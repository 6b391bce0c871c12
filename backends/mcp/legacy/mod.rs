//! The legacy manager: one attempt per server, the handshake of earlier revisions, no supervisor.

mod http;
mod server;
mod stdio;

use std::borrow::Cow;

use async_trait::async_trait;
use futures_util::future::join_all;
use parking_lot::Mutex;

use self::server::LegacyServer;
use crate::mcp::{
    McpCall, McpServerHealth, McpServerManager, McpServerStatus, McpTool, McpToolResult, ToolNames,
};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase,
};

const COMPONENT: &str = "mcp";

/// Connects to MCP servers as Python arshai 1.15.0 does: once each, when initialized or reconnected. It has no deadlines
/// of its own, no retries, no limits on what servers send, and notices no changes of their tools; it speaks revision
/// 2025-11-25 and earlier, and knows fixed bearer tokens only. Deadlines of the caller apply.
///
/// It is selected by `ARSHAI_USE_LEGACY_CONNECTIONS`. It is written without `rmcp`, so that the flag leaves out whatever
/// may be wrong there.
#[derive(Debug)]
pub struct LegacyServerManager {
    enabled: bool,
    servers: Vec<LegacyServer>,
    names: Mutex<ToolNames>,
}

impl LegacyServerManager {
    /// The name that `mcp.backend` knows it by.
    pub const NAME: &'static str = "legacy";

    /// A manager of the servers that the configuration lists. Connects nothing.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let config = &context.config.mcp;
        let configs = config.servers.iter().filter(|_| config.enabled);
        let servers = configs.map(|server| LegacyServer::new(server.clone(), context.http.clone(), config));
        Self { enabled: config.enabled, servers: servers.collect(), names: Mutex::default() }
    }

    fn server(&self, name: &str) -> Result<&LegacyServer> {
        self.servers.iter().find(|server| server.config.name == name).ok_or_else(|| {
            let names: Vec<_> = self.servers.iter().map(|server| server.config.name.as_str()).collect();
            let message = format!("unknown MCP server {name:?}; configured: {}", names.join(", "));
            Error::new(ErrorKind::NotFound, COMPONENT, message).not_sent()
        })
    }
}

#[async_trait]
impl McpServerManager for LegacyServerManager {
    fn is_enabled(&self) -> bool {
        self.enabled
    }

    async fn initialize(&self, deadline: Deadline) -> Result<()> {
        let connecting = self.servers.iter().map(|server| async move {
            // The error is in the server's status.
            let _ = deadline.run(COMPONENT, "connecting to an MCP server", server.ensure_connected()).await;
        });
        join_all(connecting).await;
        let missing = self.servers.iter().filter(|server| server.config.required && !server.is_connected());
        let missing: Vec<_> = missing.map(|server| server.config.name.clone()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("required MCP servers are not connected: {}", missing.join(", "));
        Err(Error::new(ErrorKind::Unavailable, COMPONENT, message))
    }

    fn get_all_available_tools(&self) -> Vec<McpTool> {
        let mut names = self.names.lock();
        let tools = self
            .servers
            .iter()
            .flat_map(|server| server.tools().into_iter().map(|tool| (tool, server.config.prefix.clone())));
        let named = tools.map(|(mut tool, prefix)| {
            tool.name = names.assign(&tool.server_name, prefix.as_deref(), &tool.original_name);
            tool
        });
        named.collect()
    }

    async fn call_tool(&self, call: McpCall) -> Result<McpToolResult> {
        let server = self.server(&call.server)?;
        match call.deadline {
            Some(deadline) => deadline.run(COMPONENT, "calling the tool", server.call(call)).await?,
            None => server.call(call).await,
        }
    }

    async fn health_check(&self, deadline: Deadline) -> Vec<McpServerStatus> {
        join_all(self.servers.iter().map(|server| server.check(deadline))).await
    }

    fn servers(&self) -> Vec<McpServerStatus> {
        self.servers.iter().map(LegacyServer::status).collect()
    }

    async fn reconnect(&self, server: &str, deadline: Deadline) -> Result<()> {
        let server = self.server(server)?;
        server.disconnect();
        deadline.run(COMPONENT, "reconnecting", server.ensure_connected()).await?
    }
}

#[async_trait]
impl Component for LegacyServerManager {
    fn name(&self) -> Cow<'_, str> {
        COMPONENT.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Clients
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    fn counters(&self) -> serde_json::Value {
        serde_json::json!({ "servers": self.servers.len(), "connected": self.connected_servers().len() })
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let down = self.health_check(deadline).await.into_iter().filter(|server| {
            !matches!(server.health, McpServerHealth::Healthy | McpServerHealth::Disconnected)
        });
        let down: Vec<_> = down.map(|server| server.name).collect();
        match down.is_empty() {
            true => Health::Healthy,
            false => Health::degraded(format!("servers that do not answer: {}", down.join(", "))),
        }
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.servers.iter().for_each(LegacyServer::close);
        CloseReport::idle()
    }
}
