//! MCP server managers.

mod legacy;
mod rmcp;

use std::sync::Arc;

use crate::Registry;
pub use legacy::LegacyServerManager;
pub use rmcp::RmcpServerManager;

/// Adds the MCP backends.
pub(super) fn register(registry: &mut Registry) {
    registry
        .mcp
        .register(RmcpServerManager::NAME, |context| Ok(Arc::new(RmcpServerManager::from_context(context)?)));
    registry.mcp.register(LegacyServerManager::NAME, |context| {
        Ok(Arc::new(LegacyServerManager::from_context(context)))
    });
}
