//! Servers that are child processes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use crate::config::McpServerConfig;
use crate::{Error, ErrorKind, Result};

/// How long a child may take to end by itself once its input is closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);
/// Lines of stderr longer than this are split.
const MAX_LOG_LINE: u64 = 2_000;

/// A child process with a process group of its own, kept by a task. Dropping it kills the whole group.
#[derive(Debug)]
pub(super) struct ServerProcess {
    stopping: CancellationToken,
    keeper: JoinHandle<()>,
}

impl ServerProcess {
    /// Starts the server's program. Its output fails once a line is longer than `max_line` bytes. `ended` is cancelled
    /// when the program has ended, or its output is no longer read.
    pub(super) fn spawn(
        config: &McpServerConfig,
        inherited: &BTreeMap<String, String>,
        max_line: usize,
        ended: CancellationToken,
    ) -> Result<(Self, ServerOutput, ChildStdin)> {
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
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let group = Group { child, id };
        let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
            return Err(Error::new(ErrorKind::Internal, component(), "child process without pipes"));
        };
        let stopping = CancellationToken::new();
        let output = ServerOutput::new(stdout, max_line, ended.clone());
        let log = log_stderr(config.name.clone(), BufReader::new(stderr));
        let keeper = tokio::spawn(keep(group, log, stopping.clone(), ended.drop_guard()));
        Ok((Self { stopping, keeper }, output, stdin))
    }

    /// Waits for the child, whose input is closed, to end; then SIGTERM, then SIGKILL for its whole group.
    pub(super) async fn stop(mut self) {
        self.stopping.cancel();
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Keeps a child until it ends or has to; then ends its group, whose members may hold its pipes.
async fn keep(
    mut group: Group,
    log: impl Future<Output = ()> + Send + 'static,
    stopping: CancellationToken,
    ended: DropGuard,
) {
    let mut logs = JoinSet::new();
    logs.spawn(log);
    if stopping.run_until_cancelled(group.child.wait()).await.is_none() {
        group.end().await;
    }
    drop((group, ended));
    // What it said last is read; a process that left the group may hold the pipe for good.
    let _ = tokio::time::timeout(GRACE, logs.join_next()).await;
}

/// A child and the processes it started. Dropping it kills them all.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    async fn end(&mut self) {
        for signal in [None, Some(Signal::TERM)] {
            self.signal(signal);
            if tokio::time::timeout(GRACE, self.child.wait()).await.is_ok() {
                return;
            }
        }
        self.signal(Some(Signal::KILL));
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
    }

    fn signal(&self, signal: Option<Signal>) {
        if let (Some(group), Some(signal)) = (self.id, signal) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Some(Signal::KILL));
        if let (Some(id), Some(_)) = (self.id, self.child.id()) {
            // No async runtime may be left to do it. The child was killed, so the thread ends.
            let reap = move || {
                let _ = waitpid(Some(id), WaitOptions::empty());
            };
            let _ = std::thread::Builder::new().name("mcp-reaper".into()).spawn(reap);
        }
    }
}

/// The output of a child. Ends with the child, even where another process holds the pipe, and fails once a line is too
/// long.
pub(super) struct ServerOutput {
    stdout: ChildStdout,
    max_line: usize,
    line: usize,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _unread: DropGuard,
}

impl ServerOutput {
    fn new(stdout: ChildStdout, max_line: usize, ended: CancellationToken) -> Self {
        let unread = ended.clone().drop_guard();
        Self { stdout, max_line, line: 0, ended: Box::pin(ended.cancelled_owned()), _unread: unread }
    }
}

impl AsyncRead for ServerOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stdout).poll_read(cx, buf) {
            Poll::Ready(read) => read?,
            // Nothing is left to read: once the child has ended, this is the end.
            Poll::Pending => return self.ended.as_mut().poll(cx).map(Ok),
        }
        let read = &buf.filled()[before..];
        self.line = match read.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => read.len() - end - 1,
            None => self.line + read.len(),
        };
        if self.line > self.max_line {
            let message = format!("line longer than {} bytes", self.max_line);
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
