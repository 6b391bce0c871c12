//! Calls of tools: each finds the server of its name, also when that is replaced while the call waits.

use std::sync::Arc;

use tracing::Instrument as _;

use super::RmcpServerManager;
use crate::mcp::{McpCall, McpToolResult};
use crate::{ErrorKind, Result};

impl RmcpServerManager {
    /// See [`McpServerManager::call_tool`](crate::mcp::McpServerManager::call_tool).
    pub(super) async fn call(&self, call: McpCall) -> Result<McpToolResult> {
        let span = tracing::info_span!(
            "mcp.call",
            mcp.server = call.server,
            mcp.method.name = "tools/call",
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = call.tool,
            mcp.protocol.version = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        let result = self.call_current(call).instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("error.type", tracing::field::debug(error.kind()));
        }
        result
    }

    async fn call_current(&self, call: McpCall) -> Result<McpToolResult> {
        let mut server = self.server(&call.server)?;
        let admission = loop {
            match server.admit(&call).await {
                // Nothing was sent: where the server was replaced meanwhile, its successor gets the call.
                Err(error) if error.kind() == ErrorKind::Closed => {
                    let successor = self.server(&call.server)?;
                    if Arc::ptr_eq(&server, &successor) {
                        return Err(error);
                    }
                    server = successor;
                }
                admitted => break admitted?,
            }
        };
        server.call_tool(call, admission).await
    }
}
