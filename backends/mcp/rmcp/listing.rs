//! Fetching the tool list, within limits.

use std::collections::HashSet;

use rmcp::model::{ClientRequest, ListToolsRequest, PaginatedRequestParams};
use serde_json::Value;

use super::connection::{Connection, result_json};
use super::errors::call_error;
use crate::mcp::{McpGuards, McpTool};
use crate::{Error, ErrorKind, Result};

impl Connection {
    /// Fetches the tool list page by page. A tool that breaks a limit is left out with a warning.
    pub(super) async fn list_tools(&self, server: &str, guards: &McpGuards) -> Result<Vec<McpTool>> {
        let (mut tools, mut names, mut cursors) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut cursor: Option<String> = None;
        for _ in 0..guards.max_pages {
            let (page, next) = self.list_page(server, cursor).await?;
            for tool in page {
                if tools.len() == guards.max_tools {
                    tracing::warn!(
                        mcp.server = server,
                        limit = guards.max_tools,
                        "too many tools; the rest is ignored"
                    );
                    return Ok(tools);
                }
                match guards.check_tool(server, &tool) {
                    Ok(tool) if names.insert(tool.original_name.clone()) => tools.push(tool),
                    Ok(tool) => tracing::warn!(
                        mcp.server = server,
                        tool = tool.original_name,
                        "duplicate tool ignored"
                    ),
                    Err(error) => tracing::warn!(mcp.server = server, %error, "tool ignored"),
                }
            }
            match next.filter(|next| !next.is_empty()) {
                None => return Ok(tools),
                Some(next) if !cursors.insert(next.clone()) => {
                    tracing::warn!(
                        mcp.server = server,
                        "repeated cursor; the rest of the tool list is ignored"
                    );
                    return Ok(tools);
                }
                next => cursor = next,
            }
        }
        tracing::warn!(mcp.server = server, limit = guards.max_pages, "too many pages; the rest is ignored");
        Ok(tools)
    }

    /// One page as raw JSON, so that one odd tool does not lose the others.
    pub(super) async fn list_page(
        &self,
        server: &str,
        cursor: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>)> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params));
        let result =
            self.service.peer().send_request(request).await.map_err(|error| call_error(server, error))?;
        let mut result = result_json(server, &result)?;
        let Some(Value::Array(page)) = result.remove("tools") else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("mcp:{server}"),
                "tools/list result without tools",
            ));
        };
        let next = result.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        Ok((page, next))
    }
}
