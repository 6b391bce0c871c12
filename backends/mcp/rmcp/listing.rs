//! Fetching the tool list, within limits.

use std::collections::HashSet;
use std::time::Duration;

use rmcp::model::{ClientRequest, ListToolsRequest, PaginatedRequestParams};
use serde_json::Value;

use super::connection::{Connection, result_json};
use super::fingerprint::fingerprint;
use crate::mcp::{McpGuards, McpTool};
use crate::{Error, ErrorKind, Result};

/// A tool list.
#[derive(Default)]
pub(super) struct ToolList {
    pub(super) tools: Vec<McpTool>,
    /// Number of pages it came in.
    pub(super) pages: usize,
    /// How long it may be used without asking again, where the server says so.
    pub(super) ttl: Option<Duration>,
}

/// One page as raw JSON, so that one odd tool does not lose the others.
pub(super) struct Page {
    tools: Vec<Value>,
    next: Option<String>,
    ttl: Option<Duration>,
}

impl Connection {
    /// Fetches the tool list page by page. A tool that breaks a limit is left out with a warning.
    #[tracing::instrument(
        name = "mcp.list",
        skip_all,
        fields(mcp.server = server, mcp.method.name = "tools/list", mcp.protocol.version = self.protocol_version(), mcp.tools = tracing::field::Empty)
    )]
    pub(super) async fn list_tools(&self, server: &str, guards: &McpGuards) -> Result<ToolList> {
        let list = self.list_pages(server, guards).await?;
        tracing::Span::current().record("mcp.tools", list.tools.len());
        Ok(list)
    }

    async fn list_pages(&self, server: &str, guards: &McpGuards) -> Result<ToolList> {
        let (mut list, mut names, mut cursors) = (ToolList::default(), HashSet::new(), HashSet::new());
        let mut cursor: Option<String> = None;
        for _ in 0..guards.max_pages {
            let page = self.list_page(server, cursor).await?;
            list.pages += 1;
            list.ttl = match (list.ttl, page.ttl) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            for tool in page.tools {
                if list.tools.len() == guards.max_tools {
                    let limit = guards.max_tools;
                    tracing::warn!(mcp.server = server, limit, "too many tools; the rest is ignored");
                    return Ok(list);
                }
                match guards.check_tool(server, &tool) {
                    Ok(checked) if names.insert(checked.original_name.clone()) => {
                        list.tools.push(checked.with_fingerprint(fingerprint(tool)));
                    }
                    Ok(tool) => tracing::warn!(
                        mcp.server = server,
                        tool = tool.original_name,
                        "duplicate tool ignored"
                    ),
                    Err(error) => tracing::warn!(mcp.server = server, %error, "tool ignored"),
                }
            }
            match page.next.filter(|next| !next.is_empty()) {
                None => return Ok(list),
                Some(next) if !cursors.insert(next.clone()) => {
                    tracing::warn!(
                        mcp.server = server,
                        "repeated cursor; the rest of the tool list is ignored"
                    );
                    return Ok(list);
                }
                next => cursor = next,
            }
        }
        tracing::warn!(mcp.server = server, limit = guards.max_pages, "too many pages; the rest is ignored");
        Ok(list)
    }

    pub(super) async fn list_page(&self, server: &str, cursor: Option<String>) -> Result<Page> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params));
        let result = self.request(server, request).await?;
        let mut result = result_json(server, &result)?;
        let Some(Value::Array(tools)) = result.remove("tools") else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("mcp:{server}"),
                "tools/list result without tools",
            ));
        };
        let next = result.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        let ttl = result.get("ttlMs").and_then(Value::as_u64).map(Duration::from_millis);
        Ok(Page { tools, next, ttl })
    }
}
