//! What is known of a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use crate::config::McpProtocol;
use crate::mcp::{McpServerHealth, McpServerStatus, McpTool};
use crate::{Error, ErrorKind};

#[derive(Default)]
pub(super) struct State {
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) tools: Arc<[McpTool]>,
    /// The last error, while not connected.
    pub(super) error: Option<LastError>,
    pub(super) next_attempt: Option<Instant>,
    pub(super) attempts: u64,
    pub(super) connects: u64,
    /// The era that worked, so that it is not probed again.
    pub(super) protocol: Option<McpProtocol>,
}

#[derive(Clone)]
pub(super) struct LastError {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl From<&Error> for LastError {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.to_string(), retry_after: error.retry_after() }
    }
}

impl State {
    pub(super) fn status(&self, name: &str) -> McpServerStatus {
        let health = match (&self.connection, &self.error) {
            (Some(_), _) => McpServerHealth::Healthy,
            (None, Some(error)) if error.kind == ErrorKind::Authentication => {
                McpServerHealth::NeedsAuthorization
            }
            (None, Some(_)) => McpServerHealth::Error,
            (None, None) => McpServerHealth::Disconnected,
        };
        let mut status = McpServerStatus::new(name, health);
        status.error = self.error.as_ref().map(|error| error.message.clone());
        status.next_attempt = self.next_attempt.map(|next| next.saturating_duration_since(Instant::now()));
        status.protocol_version =
            self.connection.as_ref().and_then(|connection| connection.protocol_version());
        status.tools = self.connection.as_ref().map_or(0, |_| self.tools.len());
        status.connects = self.connects;
        status
    }
}
