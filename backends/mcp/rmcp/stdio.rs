//! Servers that are child processes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::config::McpServerConfig;
use crate::{Error, ErrorKind, Result};

/// How long a child may take to end by itself once its input is closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// Lines of stderr longer than this are split.
const MAX_LOG_LINE: u64 = 2_000;

/// A child process with a process group of its own. Dropping it kills the whole group.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    group: Option<Pid>,
}

impl ServerProcess {
    /// Starts the server's program.
    pub(super) fn spawn(
        config: &McpServerConfig,
        inherited: &BTreeMap<String, String>,
    ) -> Result<(Self, ChildStdout, ChildStdin)> {
        let component = || format!("mcp:{}", config.name);
        let program = config.command.as_deref().unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(&config.args)
            .env_clear()
            .envs(inherited)
            .envs(config.env.iter().map(|(name, value)| (name, value.expose_secret())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            Error::new(ErrorKind::Unavailable, component(), format!("failed to start {program:?}"))
                .with_source(error)
                .not_sent()
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (Some(stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(Error::new(ErrorKind::Internal, component(), "child process without pipes"));
        };
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log_stderr(config.name.clone(), BufReader::new(stderr)));
        }
        Ok((Self { child, group }, stdout, stdin))
    }

    /// Whether the program has ended. Its children may live on, and hold its output open.
    pub(super) fn has_exited(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the child, whose input is closed, to end; then SIGTERM, then SIGKILL for its whole group.
    pub(super) async fn stop(mut self) {
        for signal in [None, Some(Signal::TERM)] {
            self.signal(signal);
            if tokio::time::timeout(GRACE, self.child.wait()).await.is_ok() {
                // Its children may live on: the drop below ends the group.
                return;
            }
        }
        self.signal(Some(Signal::KILL));
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
    }

    fn signal(&self, signal: Option<Signal>) {
        if let (Some(group), Some(signal)) = (self.group, signal) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.signal(Some(Signal::KILL));
    }
}

/// Fails once a line is longer than `max` bytes.
pub(super) struct LineLimit<R> {
    inner: R,
    max: usize,
    line: usize,
}

impl<R> LineLimit<R> {
    pub(super) fn new(inner: R, max: usize) -> Self {
        Self { inner, max, line: 0 }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for LineLimit<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        self.line = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => read.len() - end - 1,
            None => self.line + read.len(),
        };
        if self.line > self.max {
            let message = format!("line longer than {} bytes", self.max);
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message)));
        }
        Poll::Ready(Ok(()))
    }
}

async fn log_stderr(server: String, mut stderr: BufReader<tokio::process::ChildStderr>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(MAX_LOG_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                tracing::debug!(mcp.server = server, "stderr: {}", String::from_utf8_lossy(&line).trim_end());
            }
        }
    }
}
