//! Checks of MCP servers that code has set.

use super::mcp_servers::{McpServerConfig, finalize};
use super::mcp_tool_changes::is_fingerprint;
use super::setting::Setting;
use super::spec::Spec;
use super::{McpConfig, mcp_guards};
use crate::error::{Error, ErrorKind};

impl McpServerConfig {
    /// What is wrong with a server that code has set.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let http = Spec { schemes: &["http", "https"], ..Spec::NEW };
        match self {
            Self { name, .. } if name.trim().is_empty() => Some("the name is empty"),
            Self { url: Some(_), command: Some(_), .. } | Self { url: None, command: None, .. } => {
                Some("set exactly one of `url` and `command`")
            }
            Self { url: Some(url), .. } if !url.is_valid(&http) => Some("the url is none of http or https"),
            Self { max_concurrency: 0, .. } => Some("max_concurrency must be at least 1"),
            Self { guards, .. } if !mcp_guards::are_valid(guards) => {
                Some("guards: unknown name, or a number outside its range")
            }
            Self { pins, .. } if !pins.values().all(|pin| is_fingerprint(pin)) => {
                Some("pins: expected `sha256:` and 64 hexadecimal digits")
            }
            _ => None,
        }
    }
}

impl McpConfig {
    /// These servers, checked as at loading, with what they leave to this section filled in.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the first server that is invalid or has the name of another.
    pub fn validated_servers(&self, servers: Vec<McpServerConfig>) -> Result<Vec<McpServerConfig>, Error> {
        let invalid = |problem: String| Error::new(ErrorKind::Config, "mcp", problem);
        for server in &servers {
            if let Some(problem) = server.problem() {
                return Err(invalid(format!("MCP server {:?}: {problem}", server.name)));
            }
        }
        let mut section = Self { servers, enabled: false, ..self.clone() };
        finalize(&mut section).map_err(invalid)?;
        Ok(section.servers)
    }
}
