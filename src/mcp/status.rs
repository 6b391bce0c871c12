//! The state of a server.

use std::time::Duration;

use serde::Serialize;

use crate::config::McpProtocol;

/// The status of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct McpServerStatus {
    /// Its name.
    pub name: String,
    /// Whether it is usable.
    pub health: McpServerHealth,
    /// The last error, if the server is not usable.
    pub error: Option<String>,
    /// The last error, even if it was overcome.
    pub last_error: Option<String>,
    /// What the server asks for (`WWW-Authenticate`) while it [needs authorization](McpServerHealth::NeedsAuthorization).
    pub challenge: Option<String>,
    /// Time until the next attempt to connect, where one is scheduled.
    pub next_attempt: Option<Duration>,
    /// The protocol revision that was agreed on.
    pub protocol_version: Option<String>,
    /// Its purpose, as the configuration describes it.
    pub description: Option<String>,
    /// The era that it is known to speak: `Stateless` or `Initialize`.
    pub era: Option<McpProtocol>,
    /// Number of tools it offers.
    pub tools: usize,
    /// Tools whose definitions differ from those they had first, or that were accepted since.
    pub changed_tools: Vec<McpToolChange>,
    /// Attempts to connect.
    pub attempts: u64,
    /// Times it was connected.
    pub connects: u64,
    /// Sessions that were opened: none in the stateless era.
    pub sessions: u64,
}

impl McpServerStatus {
    /// A server of this name and health, with nothing else known.
    #[must_use]
    pub fn new(name: impl Into<String>, health: McpServerHealth) -> Self {
        Self {
            name: name.into(),
            health,
            error: None,
            last_error: None,
            challenge: None,
            next_attempt: None,
            protocol_version: None,
            description: None,
            era: None,
            tools: 0,
            changed_tools: Vec::new(),
            attempts: 0,
            connects: 0,
            sessions: 0,
        }
    }
}

/// A tool that a server changed under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct McpToolChange {
    /// Its name on the server.
    pub tool: String,
    /// The fingerprint that was accepted.
    pub accepted: String,
    /// The present fingerprint.
    pub fingerprint: String,
    /// Whether it is neither offered nor called until the change is accepted.
    pub refused: bool,
}

impl McpToolChange {
    /// The tool `tool` had the fingerprint `accepted`, and now has another.
    #[must_use]
    pub fn new(
        tool: impl Into<String>,
        accepted: impl Into<String>,
        fingerprint: impl Into<String>,
        refused: bool,
    ) -> Self {
        let (tool, accepted, fingerprint) = (tool.into(), accepted.into(), fingerprint.into());
        Self { tool, accepted, fingerprint, refused }
    }
}

/// Whether a server is usable; the names are Python arshai's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum McpServerHealth {
    /// Connected, and it answered.
    Healthy,
    /// Connected, but it did not answer in time.
    Unhealthy,
    /// Not connected.
    Disconnected,
    /// The last attempt to connect failed.
    Error,
    /// It requires authorization, which is missing or was rejected. It is not contacted again before a
    /// [reconnect](super::McpServerManager::reconnect).
    NeedsAuthorization,
}
