//! JSON-RPC with a child process: a line for each message, one request at a time.

use std::collections::BTreeMap;
use std::process::Stdio;

use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::config::McpServerConfig;
use crate::{Error, ErrorKind, Result};

/// A child process. Dropping it kills the process.
pub(super) struct StdioSession {
    component: String,
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _child: Child,
}

impl StdioSession {
    pub(super) fn spawn(config: &McpServerConfig, inherited: &BTreeMap<String, String>) -> Result<Self> {
        let component = format!("mcp:{}", config.name);
        let program = config.command.as_deref().unwrap_or_default();
        let spawned = Command::new(program)
            .args(&config.args)
            .env_clear()
            .envs(inherited)
            .envs(config.env.iter().map(|(name, value)| (name, value.expose_secret())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = spawned.map_err(|error| {
            Error::new(ErrorKind::Unavailable, component.clone(), format!("failed to start {program:?}"))
                .with_source(error)
                .not_sent()
        })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(ErrorKind::Internal, component, "child process without pipes"));
        };
        Ok(Self { component, pipes: Mutex::new((stdin, BufReader::new(stdout).lines())), _child: child })
    }

    /// Sends a message; the answer, where it has an id. Answers to requests that were given up are passed over.
    pub(super) async fn request(&self, message: &Value) -> Result<Option<Value>> {
        let mut pipes = self.pipes.lock().await;
        let (stdin, lines) = &mut *pipes;
        let lost = |error| {
            Error::new(ErrorKind::Unavailable, self.component.clone(), "connection lost").with_source(error)
        };
        stdin.write_all(format!("{message}\n").as_bytes()).await.map_err(lost)?;
        let Some(id) = message.get("id") else { return Ok(None) };
        while let Some(line) = lines.next_line().await.map_err(lost)? {
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if answer.get("id") == Some(id) && answer.get("method").is_none() {
                return Ok(Some(answer));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, self.component.clone(), "the server has ended"))
    }
}
