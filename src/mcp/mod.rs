//! MCP servers: many connections under one manager.
//!
//! [`McpServerManager`] is the backend trait. A manager connects to every configured server concurrently, keeps those
//! that fail in the background and reconnects them, lists their tools under unique names, and calls tools with a
//! deadline. `mcp.backend` selects the implementation (`rmcp`).

mod call;
mod client_handler;
mod credentials;
mod guards;
mod names;
mod result;
mod search;
mod status;
mod tool;

use std::sync::Arc;

use async_trait::async_trait;

use crate::component::Component;
use crate::config::McpServerConfig;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::{FunctionProvider, Functions};

pub use call::{McpCall, ProgressListener};
pub use client_handler::{
    McpClientCapabilities, McpClientHandler, McpElicitation, McpElicitationResult, McpRoot,
};
pub use credentials::{InMemoryMcpCredentials, McpCredentialStore};
pub use guards::{McpGuardUsage, McpGuards};
pub use names::ToolNames;
pub use result::{McpContent, McpToolResult};
pub use search::ToolBudget;
pub use status::{McpServerHealth, McpServerStatus, McpToolChange};
pub use tool::McpTool;

/// Connects to MCP servers and calls their tools (Python: `MCPServerManager`).
///
/// # Contract
/// - **Isolation.** Servers do not affect each other: one that is down, slow or hostile costs the others nothing, and
///   nothing of a failed attempt survives it (no task, socket or process).
/// - **Start.** [`initialize`](Self::initialize) attempts every server concurrently and returns once each is connected or
///   has used its attempts, at the latest at its deadline. Servers that failed are retried in the background for as long
///   as the manager lives, one attempt at a time per server.
/// - **Calls** end at their deadline plus scheduling. A call to a server that is known to be down fails immediately with
///   [`ErrorKind::Unavailable`]. A call whose outcome is unknown is never repeated; its
///   error says [`Outcome::Unknown`](crate::Outcome::Unknown).
/// - **Tools** have unique names across servers, assigned by [`ToolNames`]. A tool or a server that breaks a limit of
///   [`McpGuards`] is left out with a warning, never the rest of the list.
/// - **Cancellation.** Dropping the future of [`call_tool`](Self::call_tool) notifies the server of the cancellation;
///   the connection stays usable.
/// - **Close** ([`Component::close`], Python: `cleanup`) ends every connection and child process by the deadline. Dropping
///   the last handle does the same without waiting.
#[doc(alias = "MCPServerManager")]
#[async_trait]
pub trait McpServerManager: Component {
    /// Whether servers are configured and enabled.
    fn is_enabled(&self) -> bool;

    /// Connects to every server; see the contract. Returns immediately when not enabled. Calling it again waits for
    /// nothing that is connected already. Dropping the future only ends the wait.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] naming the `required` servers that could not be
    /// connected. The manager keeps trying them.
    async fn initialize(&self, deadline: Deadline) -> Result<()>;

    /// The tools of all connected servers, from the lists fetched at connecting and refreshed on change. Waits for
    /// nothing.
    fn get_all_available_tools(&self) -> Vec<McpTool>;

    /// Calls a tool.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown server or a tool that the configuration excludes,
    /// [`ErrorKind::Unavailable`] while the server is down,
    /// [`ErrorKind::Timeout`] at the deadline,
    /// [`ErrorKind::Function`] when the server rejected the call, as it does for a tool that it does not have,
    /// [`ErrorKind::TooLarge`] for a result beyond the limits. A tool that ran and failed is
    /// not an error but a result with [`is_error`](McpToolResult::is_error).
    async fn call_tool(&self, call: McpCall) -> Result<McpToolResult>;

    /// Checks concurrently whether every server responds.
    async fn health_check(&self, deadline: Deadline) -> Vec<McpServerStatus>;

    /// The last known status of every server; sends nothing.
    fn servers(&self) -> Vec<McpServerStatus>;

    /// Drops the connection to a server and connects anew, waiting until the deadline. Dropping the future only ends the
    /// wait.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown name; the error of the attempt otherwise.
    async fn reconnect(&self, server: &str, deadline: Deadline) -> Result<()>;

    /// Replaces the servers while calls are in flight. Unchanged servers keep their connections. New and changed servers
    /// are connected first; once each is connected or has used its attempts, at the latest at the deadline, all of them
    /// replace the old ones at the same moment. Calls to servers that were removed or changed may then complete until the
    /// deadline, and a child process that does not end by itself is given half a second more. New servers become components of the runtime, removed ones are unregistered. Concurrent replacements run
    /// one after the other.
    ///
    /// Dropping the future before the new servers are in use changes nothing; dropping it later ends the old ones
    /// immediately.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for invalid servers; nothing has changed then.
    /// [`ErrorKind::Closed`] after closing,
    /// [`ErrorKind::Unsupported`] where the implementation cannot.
    async fn set_servers(&self, servers: Vec<McpServerConfig>, deadline: Deadline) -> Result<()> {
        let _ = (servers, deadline);
        Err(unsupported("replacing the servers"))
    }

    /// Accepts the present definition of a tool that [has changed](McpServerStatus::changed_tools), by its name on the
    /// server. A tool that was refused is offered again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown server or a tool that has not changed,
    /// [`ErrorKind::Unsupported`] where the implementation takes no fingerprints.
    fn accept_tool(&self, server: &str, tool: &str) -> Result<()> {
        let _ = (server, tool);
        Err(unsupported("comparing definitions of tools"))
    }

    /// Which tools [`functions`] offers directly. Default: all.
    fn tool_budget(&self) -> ToolBudget {
        ToolBudget::default()
    }

    /// Starts the authorization of a server by a user, and returns the URL to open in the user's browser. The
    /// authorization server then redirects to `redirect_url` with parameters; pass the whole URL to
    /// [`complete_authorization`](Self::complete_authorization). Starting again replaces what was started before.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where no such authorization is configured,
    /// [`ErrorKind::NotFound`] for an unknown server,
    /// [`ErrorKind::Authentication`] where the authorization server refuses the client.
    async fn begin_authorization(
        &self,
        server: &str,
        redirect_url: &str,
        deadline: Deadline,
    ) -> Result<String> {
        let _ = (server, redirect_url, deadline);
        Err(unsupported("authorization by a user"))
    }

    /// Ends an authorization with the URL that the browser was redirected to, keeps the credentials, and reconnects.
    /// Dropping the future does not stop an exchange that has begun.
    ///
    /// # Errors
    /// As [`begin_authorization`](Self::begin_authorization) and [`reconnect`](Self::reconnect);
    /// [`ErrorKind::InvalidInput`] where none was begun. A URL that does not belong to
    /// it is an error and changes nothing.
    async fn complete_authorization(
        &self,
        server: &str,
        callback_url: &str,
        deadline: Deadline,
    ) -> Result<()> {
        let _ = (server, callback_url, deadline);
        Err(unsupported("authorization by a user"))
    }

    /// Names of the servers that are connected and did not fail their last check.
    fn connected_servers(&self) -> Vec<String> {
        let connected = self.servers().into_iter().filter(|server| server.health == McpServerHealth::Healthy);
        connected.map(|server| server.name).collect()
    }

    /// Servers that are not connected or failed their last check, with their last error.
    fn failed_servers(&self) -> Vec<McpServerStatus> {
        self.servers().into_iter().filter(|server| server.health != McpServerHealth::Healthy).collect()
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "mcp", format!("{what} is not supported by this manager")).not_sent()
}

/// The tools of all connected servers as functions of the task executor, under their exposed names. The list is a
/// snapshot: call this for each turn, so that servers that have connected or changed are included. An agent that has the
/// manager as its [`FunctionProvider`] does so by itself.
///
/// If all definitions together are larger than the manager's [budget](McpServerManager::tool_budget), only the tools that
/// are always offered and the function `search_tools` are offered. It finds tools by words, returns their definitions and
/// offers them from the next request on. Every tool can be called, found or not.
#[must_use]
pub fn functions(manager: &Arc<dyn McpServerManager>) -> Functions {
    search::offer(manager, manager.get_all_available_tools())
}

/// The [functions](functions()) of the moment.
impl FunctionProvider for Arc<dyn McpServerManager> {
    fn functions(&self) -> Functions {
        functions(self)
    }
}
