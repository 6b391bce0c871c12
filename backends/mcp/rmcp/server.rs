//! One supervised server: connected, reconnected and refreshed in the background.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Connector};
use crate::config::{McpProtocol, McpServerConfig};
use crate::mcp::{McpCall, McpServerHealth, McpServerStatus, McpTool, McpToolResult, ToolNames};
use crate::support::{Backoff, LazyTask, ResizableSemaphore};
use crate::{
    CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// Delays between attempts to connect.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How often the supervisor looks whether the connection still lives, and the shortest time between two listings.
const TICK: Duration = Duration::from_millis(500);

/// A server of the configuration. The supervisor task holds it and ends with `stop`.
pub(super) struct Server {
    pub(super) config: McpServerConfig,
    connector: Connector,
    connect_timeout: Duration,
    names: Arc<Mutex<ToolNames>>,
    calls: ResizableSemaphore,
    state: watch::Sender<State>,
    /// Wakes the supervisor to drop the connection and reconnect.
    reconnect: Notify,
    stop: CancellationToken,
    supervisor: LazyTask,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    tools: Arc<[McpTool]>,
    /// The last error, while not connected.
    error: Option<LastError>,
    next_attempt: Option<Instant>,
    attempts: u64,
    connects: u64,
    /// The era that worked, so that it is not probed again.
    protocol: Option<McpProtocol>,
}

#[derive(Clone)]
struct LastError {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
}

impl From<&Error> for LastError {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), message: error.to_string(), retry_after: error.retry_after() }
    }
}

impl Server {
    pub(super) fn new(
        config: McpServerConfig,
        connector: Connector,
        connect_timeout: Duration,
        names: Arc<Mutex<ToolNames>>,
    ) -> Self {
        Self {
            calls: ResizableSemaphore::new("mcp.max_concurrency", "calls", config.max_concurrency),
            config,
            connector,
            connect_timeout,
            names,
            state: watch::Sender::new(State::default()),
            reconnect: Notify::new(),
            stop: CancellationToken::new(),
            supervisor: LazyTask::default(),
        }
    }

    /// Ensures that the supervisor runs. Needs a tokio runtime.
    pub(super) fn start(self: &Arc<Self>) {
        self.supervisor.ensure(|| {
            // Weak between attempts would not help: the supervisor ends with `stop`, which dropping the manager cancels.
            let server = Arc::clone(self);
            async move { server.stop.run_until_cancelled(server.supervise()).await.unwrap_or(()) }
        });
    }

    async fn supervise(&self) {
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

    /// Waits until the server is connected or has made `attempts` attempts.
    pub(super) async fn settled(&self, attempts: u64) {
        let mut state = self.state.subscribe();
        let settled = |state: &State| {
            let stuck = state.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Authentication);
            state.connection.is_some() || state.attempts >= attempts || stuck
        };
        // The sender lives as long as `self`.
        let _ = state.wait_for(settled).await;
    }

    /// Drops the connection and waits for the next attempt.
    pub(super) async fn reconnect(&self, deadline: Deadline) -> Result<()> {
        let before = self.state.borrow().attempts;
        self.reconnect.notify_one();
        let mut state = self.state.subscribe();
        let attempted = async {
            let _ = state.wait_for(|state| state.attempts > before).await;
        };
        deadline.run("mcp", "reconnecting", attempted).await?;
        self.connection().map(drop)
    }

    pub(super) fn tools(&self) -> Arc<[McpTool]> {
        let state = self.state.borrow();
        match state.connection {
            Some(_) => Arc::clone(&state.tools),
            None => Arc::default(),
        }
    }

    fn connection(&self) -> Result<Arc<Connection>> {
        let state = self.state.borrow();
        let component = || format!("mcp:{}", self.config.name);
        if self.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, component(), "closed").not_sent());
        }
        state.connection.clone().ok_or_else(|| {
            let kind = match &state.error {
                Some(error) if error.kind == ErrorKind::Authentication => ErrorKind::Authentication,
                _ => ErrorKind::Unavailable,
            };
            let reason = state.error.as_ref().map_or("not connected yet", |error| error.message.as_str());
            let next = state.next_attempt.map(|next| next.saturating_duration_since(Instant::now()));
            Error::new(kind, component(), format!("not connected: {reason}"))
                .with_retry_after(next)
                .not_sent()
        })
    }

    /// Ends the supervisor. What it holds is dropped with it.
    pub(super) fn stop(&self) {
        self.stop.cancel();
        self.state.send_replace(State::default());
    }

    fn error_kind(&self) -> Option<ErrorKind> {
        self.state.borrow().error.as_ref().map(|error| error.kind)
    }

    pub(super) async fn call(&self, call: McpCall) -> Result<McpToolResult> {
        let own = Deadline::after(self.config.timeout);
        let deadline = call.deadline.map_or(own, |deadline| deadline.min(own));
        let connection = self.connection()?;
        let waiting = deadline.run("mcp", "waiting for a call permit", self.calls.acquire_owned()).await;
        let _permit =
            waiting.map_err(|error| error.with_context("setting", "mcp.max_concurrency").not_sent())??;
        // rmcp ends the call at the deadline and notifies the server; this limit is for a connection that hangs.
        let hard = Deadline::after(deadline.remaining() + Duration::from_millis(50));
        let called = connection.call_tool(call, deadline, &self.connector.guards);
        let result = hard.run("mcp", "calling the tool", called).await.and_then(|result| result);
        if result.is_err() && connection.is_closed() && self.is_current(&connection) {
            self.reconnect.notify_one();
        }
        result
    }

    fn is_current(&self, connection: &Arc<Connection>) -> bool {
        self.state.borrow().connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection))
    }

    pub(super) fn status(&self) -> McpServerStatus {
        let state = self.state.borrow();
        let health = match (&state.connection, &state.error) {
            (Some(_), _) => McpServerHealth::Healthy,
            (None, Some(error)) if error.kind == ErrorKind::Authentication => {
                McpServerHealth::NeedsAuthorization
            }
            (None, Some(_)) => McpServerHealth::Error,
            (None, None) => McpServerHealth::Disconnected,
        };
        let mut status = McpServerStatus::new(&self.config.name, health);
        status.error = state.error.as_ref().map(|error| error.message.clone());
        status.next_attempt = state.next_attempt.map(|next| next.saturating_duration_since(Instant::now()));
        status.protocol_version =
            state.connection.as_ref().and_then(|connection| connection.protocol_version());
        status.tools = state.connection.as_ref().map_or(0, |_| state.tools.len());
        status.connects = state.connects;
        status
    }

    /// Checks whether the server responds.
    pub(super) async fn check(&self, deadline: Deadline) -> McpServerStatus {
        let mut status = self.status();
        let Ok(connection) = self.connection() else { return status };
        let answered = deadline.run("mcp", "health check", connection.ping(&self.config.name)).await;
        if let Err(error) = answered.and_then(|answered| answered) {
            status.health = McpServerHealth::Unhealthy;
            status.error = Some(error.to_string());
        }
        status
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

#[async_trait]
impl Component for Server {
    fn name(&self) -> Cow<'_, str> {
        format!("mcp:{}", self.config.name).into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Clients
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![self.calls.usage()]
    }

    fn counters(&self) -> Value {
        json!(self.status())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        let status = self.check(deadline).await;
        match status.health {
            McpServerHealth::Healthy => Health::Healthy,
            McpServerHealth::Disconnected => Health::degraded("not connected yet"),
            _ if self.config.required => Health::unhealthy(status.error.unwrap_or_default()),
            _ => Health::degraded(status.error.unwrap_or_default()),
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != self.calls.key() {
            return Err(unsupported_limit_error(self.name().into_owned(), key));
        }
        self.calls.set_max(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.calls.close();
        let before = self.calls.used();
        let _ = deadline.run("mcp", "waiting for running calls", self.calls.wait_idle()).await;
        let aborted = self.calls.used();
        self.stop.cancel();
        let connection = self.state.send_replace(State::default()).connection;
        if let Some(connection) = connection.and_then(Arc::into_inner) {
            connection.close(Deadline::after(deadline.remaining().max(TICK))).await;
        }
        CloseReport::new(before.saturating_sub(aborted), aborted, Vec::new())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("name", &self.config.name).finish_non_exhaustive()
    }
}
