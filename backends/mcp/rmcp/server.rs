//! One server of the configuration: a component of its own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::connector::Connector;
use super::state::State;
use crate::config::McpServerConfig;
use crate::mcp::{McpCall, McpServerHealth, McpServerStatus, McpTool, McpToolResult, ToolNames};
use crate::support::{LazyTask, ResizableSemaphore};
use crate::{
    CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// How often the supervisor looks whether the connection still lives, and the shortest time between two listings.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// A server of the configuration. The supervisor task holds it and ends with `stop`.
pub(super) struct Server {
    pub(super) config: McpServerConfig,
    pub(super) connector: Connector,
    pub(super) connect_timeout: Duration,
    pub(super) names: Arc<Mutex<ToolNames>>,
    calls: ResizableSemaphore,
    pub(super) state: watch::Sender<State>,
    /// Wakes the supervisor to drop the connection and reconnect.
    pub(super) reconnect: Notify,
    pub(super) stop: CancellationToken,
    supervisor: LazyTask,
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
        self.state.borrow().status(&self.config.name)
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
