//! The supervisor of one server: connects, reconnects and refreshes in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::server::{Server, TICK};
use super::state::LastError;
use crate::config::{McpProtocol, McpServerConfig};
use crate::mcp::McpTool;
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

/// Delays between attempts to connect.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

impl Server {
    pub(super) async fn supervise(&self) {
        let mut failed = 0;
        loop {
            let delay = match self.connect_once().await {
                Ok(connection) => {
                    failed = 0;
                    let lost = self.watch(&connection).await;
                    self.state.send_modify(|state| {
                        state.connection = None;
                        state.error = Some(LastError::from(&lost));
                    });
                    connection_end(connection).await;
                    Duration::ZERO
                }
                Err(error) => {
                    failed += 1;
                    RECONNECT.delay_at_least(failed, error.retry_after)
                }
            };
            // Authorization does not come by asking again.
            let needs_authorization = self.error_kind() == Some(ErrorKind::Authentication);
            let next = (!needs_authorization).then(|| Instant::now() + delay);
            self.state.send_modify(|state| state.next_attempt = next);
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.reconnect.notified() => {}
            }
        }
    }

    async fn connect_once(&self) -> Result<Arc<Connection>, LastError> {
        let deadline = Deadline::after(self.connect_timeout);
        let protocol = self.state.borrow().protocol.unwrap_or(self.config.protocol);
        let connected = async {
            let connection = self.connector.connect(&self.config, protocol, deadline).await?;
            let tools = deadline.run("mcp", "listing tools", self.list(&connection)).await??;
            Ok::<_, Error>((Arc::new(connection), tools))
        };
        match connected.await {
            Ok((connection, tools)) => {
                tracing::info!(mcp.server = self.config.name, tools = tools.len(), "connected");
                self.state.send_modify(|state| {
                    state.protocol = Some(match connection.is_stateless() {
                        true => McpProtocol::Stateless,
                        false => McpProtocol::Initialize,
                    });
                    state.connection = Some(Arc::clone(&connection));
                    state.tools = tools;
                    state.error = None;
                    state.next_attempt = None;
                    state.attempts += 1;
                    state.connects += 1;
                });
                Ok(connection)
            }
            Err(error) => {
                tracing::warn!(mcp.server = self.config.name, %error, "failed to connect");
                let error = LastError::from(&error);
                self.state.send_modify(|state| {
                    state.attempts += 1;
                    state.error = Some(error.clone());
                    // A server that was replaced by one of another era is probed anew.
                    state.protocol = None;
                });
                Err(error)
            }
        }
    }

    async fn list(&self, connection: &Connection) -> Result<Arc<[McpTool]>> {
        let tools = connection.list_tools(&self.config.name, &self.connector.guards).await?;
        let mut names = self.names.lock();
        let allowed = tools.into_iter().filter(|tool| is_allowed(&self.config, &tool.original_name));
        let named = allowed.map(|mut tool| {
            tool.name = names.assign(&self.config.name, self.config.prefix.as_deref(), &tool.original_name);
            tool.server_url.clone_from(&self.config.url);
            tool
        });
        Ok(named.collect())
    }

    /// Refreshes the tool list as it changes, until the connection ends; the error says why it ended.
    async fn watch(&self, connection: &Connection) -> Error {
        let component = format!("mcp:{}", self.config.name);
        loop {
            tokio::select! {
                () = self.reconnect.notified() => {
                    return Error::new(ErrorKind::Unavailable, component, "reconnecting");
                }
                () = connection.tools_changed() => self.refresh(connection).await,
                () = tokio::time::sleep(TICK) => {}
            }
            if connection.is_closed() {
                return Error::new(ErrorKind::Unavailable, component, "connection lost");
            }
        }
    }

    async fn refresh(&self, connection: &Connection) {
        let deadline = Deadline::after(self.connect_timeout);
        match deadline.run("mcp", "listing tools", self.list(connection)).await.and_then(|tools| tools) {
            Ok(tools) => self.state.send_modify(|state| state.tools = tools),
            Err(error) => {
                tracing::warn!(mcp.server = self.config.name, %error, "failed to refresh the tool list")
            }
        }
        // A storm of notifications costs at most two listings a second.
        tokio::time::sleep(TICK).await;
    }

    fn error_kind(&self) -> Option<ErrorKind> {
        self.state.borrow().error.as_ref().map(|error| error.kind)
    }
}

fn is_allowed(config: &McpServerConfig, tool: &str) -> bool {
    let listed = |list: &[String]| list.iter().any(|name| name == tool);
    config.allow_tools.as_deref().is_none_or(listed) && !listed(&config.deny_tools)
}

/// Closes a connection that calls may still hold: the last of them drops it.
async fn connection_end(connection: Arc<Connection>) {
    if let Some(connection) = Arc::into_inner(connection) {
        connection.close(Deadline::after(Duration::from_secs(3))).await;
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
