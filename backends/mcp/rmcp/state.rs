//! The state of a server: its connection, tools and last errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::errors::CHALLENGE;
use crate::config::McpProtocol;
use crate::mcp::{McpServerHealth, McpServerStatus, McpTool};
use crate::{Error, ErrorKind};

#[derive(Default)]
pub(super) struct State {
    pub(super) connection: Option<Arc<Connection>>,
    pub(super) tools: Arc<[McpTool]>,
    /// The last error of connecting, or of a health check, until it is overcome.
    pub(super) error: Option<LastError>,
    /// The last error, whether or not it was overcome.
    pub(super) last_error: Option<String>,
    /// The challenge of the last request whose authorization was rejected.
    pub(super) challenge: Option<String>,
    /// The connection was lost just now, and the first attempt to replace it runs: callers wait for it.
    pub(super) is_recovering: bool,
    pub(super) next_attempt: Option<Instant>,
    /// The server answered a call with `Retry-After`: the next one may be sent then.
    pub(super) throttled_until: Option<Instant>,
    pub(super) attempts: u64,
    /// The number of the last attempt that somebody waits for.
    pub(super) wanted_attempt: u64,
    pub(super) connects: u64,
    pub(super) sessions: u64,
    /// The era that worked, so that it is not probed again.
    pub(super) protocol: Option<McpProtocol>,
}

/// An error, kept.
#[derive(Debug, Clone)]
pub(super) struct LastError {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) challenge: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// The server answered, and the answer was no.
    pub(super) is_rejection: bool,
}

impl From<&Error> for LastError {
    fn from(error: &Error) -> Self {
        let challenge =
            error.context().find(|(name, _)| *name == CHALLENGE).map(|(_, value)| value.to_owned());
        Self {
            kind: error.kind(),
            message: error.to_string(),
            challenge,
            retry_after: error.retry_after(),
            is_rejection: error.outcome() == crate::Outcome::Rejected,
        }
    }
}

impl State {
    pub(super) fn fail(&mut self, error: LastError) {
        self.last_error = Some(error.message.clone());
        if let Some(challenge) = &error.challenge {
            self.challenge = Some(challenge.clone());
        }
        self.error = Some(error);
    }

    pub(super) fn needs_authorization(&self) -> bool {
        self.connection.is_none()
            && self.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Authentication)
    }

    /// Whether it is worth waiting for a connection.
    pub(super) fn is_recovering(&self) -> bool {
        match &self.connection {
            Some(connection) => connection.is_closed(),
            None => self.is_recovering,
        }
    }

    pub(super) fn status(&self, name: &str) -> McpServerStatus {
        let health = match (&self.connection, &self.error) {
            (Some(_), None) => McpServerHealth::Healthy,
            (Some(_), Some(_)) => McpServerHealth::Unhealthy,
            (None, Some(error)) if error.kind == ErrorKind::Authentication => {
                McpServerHealth::NeedsAuthorization
            }
            (None, Some(_)) => McpServerHealth::Error,
            (None, None) => McpServerHealth::Disconnected,
        };
        let mut status = McpServerStatus::new(name, health);
        status.error = self.error.as_ref().map(|error| error.message.clone());
        status.last_error.clone_from(&self.last_error);
        if self.needs_authorization() {
            status.challenge = self.error.as_ref().and_then(|error| error.challenge.clone());
        }
        status.next_attempt = self.next_attempt.map(|next| next.saturating_duration_since(Instant::now()));
        status.protocol_version =
            self.connection.as_ref().and_then(|connection| connection.protocol_version());
        status.era = self.protocol;
        status.tools = self.connection.as_ref().map_or(0, |_| self.tools.len());
        status.attempts = self.attempts;
        status.connects = self.connects;
        status.sessions = self.sessions;
        status
    }
}
