//! One server of the configuration: a component of its own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authorization::{authorization, not_configured};
use super::catalog::Catalog;
use super::connection::Connection;
use super::connector::Connector;
use super::errors::CHALLENGE;
use super::headers::{CallHeaders, server_headers};
use super::state::{LastError, State};
use crate::config::McpServerConfig;
use crate::mcp::{McpCall, McpCredentialStore, McpServerHealth, McpServerStatus, McpTool, McpToolResult};
use crate::support::{LazyTask, OwnedPermit, ResizableSemaphore, opaque_debug};
use crate::{
    CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase,
    unsupported_limit_error,
};

/// Keys of `_meta` that the protocol sets: a call must not claim another revision or another call's progress.
const RESERVED_META: [&str; 2] = ["progressToken", "io.modelcontextprotocol/"];

/// How long after its deadline a call may take to notify the server.
const NOTIFYING: Duration = Duration::from_millis(50);

/// A server of the configuration. The supervisor task holds it and ends with `stop`.
pub(super) struct Server {
    pub(super) config: McpServerConfig,
    pub(super) connector: Connector,
    pub(super) connect_timeout: Duration,
    pub(super) catalog: Catalog,
    calls: ResizableSemaphore,
    pub(super) state: watch::Sender<State>,
    /// Wakes the supervisor to drop the connection and reconnect.
    pub(super) reconnect: Notify,
    /// Wakes the supervisor to fetch the tool list.
    pub(super) relist: Notify,
    pub(super) stop: CancellationToken,
    supervisor: LazyTask,
}

/// A call that may be sent.
pub(super) struct Admission {
    connection: Arc<Connection>,
    headers: CallHeaders,
    deadline: Deadline,
    _permit: OwnedPermit,
}

impl Server {
    pub(super) fn new(
        config: McpServerConfig,
        mut connector: Connector,
        connect_timeout: Duration,
        catalog: Catalog,
        credentials: &Arc<dyn McpCredentialStore>,
    ) -> Result<Self> {
        server_headers(&config)?;
        let stop = CancellationToken::new();
        if let Some(http) = &mut connector.http {
            http.call_timeout = config.timeout;
            http.deny_private_addresses =
                config.deny_private_addresses.unwrap_or(http.deny_private_addresses);
            http.authorization = authorization(&config, http, credentials, &stop)?;
        }
        Ok(Self {
            calls: ResizableSemaphore::new("mcp.max_concurrency", "calls", config.max_concurrency),
            config,
            connector,
            connect_timeout,
            catalog,
            state: watch::Sender::new(State::default()),
            reconnect: Notify::new(),
            relist: Notify::new(),
            stop,
            supervisor: LazyTask::default(),
        })
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
            state.connection.is_some() || state.attempts >= attempts || state.needs_authorization()
        };
        // The sender lives as long as `self`.
        let _ = state.wait_for(settled).await;
    }

    /// Drops the connection and waits for the next attempt.
    pub(super) async fn reconnect(&self, deadline: Deadline) -> Result<()> {
        let wanted = self.request_attempt();
        let mut state = self.state.subscribe();
        let attempted = async {
            let _ = state.wait_for(|state| state.attempts >= wanted).await;
        };
        deadline.run("mcp", "reconnecting", attempted).await?;
        self.connection().map(drop)
    }

    /// Asks the supervisor for an attempt to connect and returns its number. All who ask before it ends share it.
    fn request_attempt(&self) -> u64 {
        let mut wanted = 0;
        self.state.send_modify(|state| {
            wanted = state.attempts + 1;
            state.wanted_attempt = wanted;
        });
        self.reconnect.notify_one();
        wanted
    }

    /// Waits until an attempt is wanted that has not been made.
    pub(super) async fn attempt_requested(&self) {
        loop {
            self.reconnect.notified().await;
            let state = self.state.borrow();
            if state.wanted_attempt > state.attempts {
                return;
            }
        }
    }

    /// Starts an authorization by a user; see
    /// [`McpServerManager::begin_authorization`](crate::mcp::McpServerManager::begin_authorization).
    pub(super) async fn begin_authorization(&self, redirect_url: &str, deadline: Deadline) -> Result<String> {
        let authorization = self.connector.http.as_ref().and_then(|http| http.authorization.as_ref());
        let authorization = authorization.ok_or_else(|| not_configured(&self.config.name))?;
        let challenge = self.state.borrow().challenge.clone();
        authorization.begin(redirect_url, challenge.as_deref(), deadline).await
    }

    pub(super) async fn complete_authorization(&self, callback_url: &str, deadline: Deadline) -> Result<()> {
        let authorization = self.connector.http.as_ref().and_then(|http| http.authorization.as_ref());
        let authorization = authorization.ok_or_else(|| not_configured(&self.config.name))?;
        authorization.complete(callback_url, deadline).await?;
        self.reconnect(deadline).await
    }

    pub(super) fn tools(&self) -> Arc<[McpTool]> {
        let state = self.state.borrow();
        match state.connection {
            Some(_) => Arc::clone(&state.tools),
            None => Arc::default(),
        }
    }

    /// The connection, or why there is none.
    fn connection(&self) -> Result<Arc<Connection>> {
        let state = self.state.borrow();
        if self.stop.is_cancelled() {
            return Err(self.error(ErrorKind::Closed, "closed").not_sent());
        }
        state.connection.clone().ok_or_else(|| {
            let kind = match &state.error {
                Some(error) if error.kind == ErrorKind::Authentication => ErrorKind::Authentication,
                _ => ErrorKind::Unavailable,
            };
            let reason = state.error.as_ref().map_or("not connected yet", |error| error.message.as_str());
            let next = state.next_attempt.map(|next| next.saturating_duration_since(Instant::now()));
            let error =
                self.error(kind, format!("not connected: {reason}")).with_retry_after(next).not_sent();
            match state.error.as_ref().and_then(|error| error.challenge.clone()) {
                Some(challenge) => error.with_context(CHALLENGE, challenge),
                None => error,
            }
        })
    }

    /// The connection, if a call may be sent over it now.
    async fn ready(&self, headers: &CallHeaders, deadline: Deadline) -> Result<Arc<Connection>> {
        let connection = self.recovered(deadline).await?;
        if deadline.has_passed() {
            return Err(self.error(ErrorKind::Timeout, "timed out: before the call was sent").not_sent());
        }
        let now = Instant::now();
        let throttled = self.state.borrow().throttled_until.filter(|until| *until > now);
        match throttled.filter(|_| !headers.has_credentials()) {
            Some(until) => {
                let message = "the server asked for no calls before that time (Retry-After)";
                let error = self.error(ErrorKind::RateLimited, message);
                Err(error.with_retry_after(Some(until - now)).not_sent())
            }
            None => Ok(connection),
        }
    }

    pub(super) fn error(&self, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(kind, format!("mcp:{}", self.config.name), message)
    }

    /// The connection. One that was lost just now is waited for, so that one recovery serves all callers.
    async fn recovered(&self, deadline: Deadline) -> Result<Arc<Connection>> {
        if self.state.borrow().is_recovering() && !self.stop.is_cancelled() {
            let mut state = self.state.subscribe();
            let recovered = async {
                let _ = state.wait_for(|state| !state.is_recovering()).await;
            };
            let waited = deadline.run("mcp", "reconnecting", recovered).await;
            waited.map_err(|error| error.with_context("server", &self.config.name).not_sent())?;
        }
        self.connection()
    }

    /// Ends the supervisor. What it holds is dropped with it.
    pub(super) fn stop(&self) {
        self.stop.cancel();
        self.state.send_replace(State::default());
    }

    /// Waits until `call` may be sent. A server that is known to be down fails the call before it waits for a permit.
    /// Dropping the future leaves the queue.
    pub(super) async fn admit(&self, call: &McpCall) -> Result<Admission> {
        let headers = self.check_call(call)?;
        let own = Deadline::after(self.config.timeout);
        let deadline = call.deadline.map_or(own, |deadline| deadline.min(own));
        self.ready(&headers, deadline).await?;
        let waiting = deadline.run("mcp", "waiting for a call permit", self.calls.acquire_owned()).await;
        let permit =
            waiting.map_err(|error| error.with_context("setting", "mcp.max_concurrency").not_sent())??;
        let connection = self.ready(&headers, deadline).await?;
        Ok(Admission { connection, headers, deadline, _permit: permit })
    }

    pub(super) async fn call_tool(&self, call: McpCall, admission: Admission) -> Result<McpToolResult> {
        let Admission { connection, headers, deadline, _permit } = admission;
        tracing::Span::current().record("mcp.protocol.version", connection.protocol_version());
        // rmcp ends the call at the deadline and notifies the server, unless the connection hangs.
        let hard = Deadline::after(deadline.remaining() + NOTIFYING);
        let has_credentials = headers.has_credentials();
        let called = connection.call_tool(call, headers, deadline, &self.catalog);
        let result = hard.run("mcp", "calling the tool", called).await.and_then(|result| result);
        match &result {
            Ok(_) => self.answered(),
            Err(error) => {
                if let Some((_, challenge)) = error.context().find(|(name, _)| *name == CHALLENGE) {
                    self.state.send_modify(|state| state.challenge = Some(challenge.to_owned()));
                }
                // What a call's own credentials may do says nothing of the others.
                if let Some(patience) = error.retry_after().filter(|_| !has_credentials) {
                    let until = Instant::now().checked_add(patience);
                    self.state.send_modify(|state| state.throttled_until = state.throttled_until.max(until));
                }
            }
        }
        result
    }

    /// The headers of a call; an error if it sets headers or `_meta` keys of the protocol.
    fn check_call(&self, call: &McpCall) -> Result<CallHeaders> {
        self.catalog.check_call(&call.tool)?;
        let invalid = |message: String| Err(self.error(ErrorKind::InvalidInput, message).not_sent());
        let is_reserved = |key: &&String| RESERVED_META.iter().any(|reserved| key.starts_with(reserved));
        if let Some(key) = call.meta.keys().find(is_reserved) {
            return invalid(format!("_meta key {key:?} belongs to the protocol and cannot be set"));
        }
        let headers = CallHeaders::new(call)?;
        if self.config.url.is_none() && !headers.is_empty() {
            return invalid("a server that is a child process has no HTTP headers; use _meta".to_owned());
        }
        Ok(headers)
    }

    pub(super) fn status(&self) -> McpServerStatus {
        let mut status = self.state.borrow().status(&self.config.name);
        status.description.clone_from(&self.config.description);
        status.changed_tools = self.catalog.changed();
        status
    }

    /// Accepts the present definition of a tool that has changed.
    pub(super) fn accept(&self, tool: &str) -> Result<()> {
        let accepted = self.catalog.accept(tool)?;
        self.state.send_modify(|state| {
            let others = state.tools.iter().filter(|tool| tool.original_name != accepted.original_name);
            state.tools = others.cloned().chain([accepted.clone()]).collect();
        });
        Ok(())
    }

    /// Checks whether the server responds.
    pub(super) async fn check(&self, deadline: Deadline) -> McpServerStatus {
        let Ok(connection) = self.connection() else { return self.status() };
        let answered = deadline.run("mcp", "health check", connection.ping(&self.config.name)).await;
        match answered.and_then(|answered| answered) {
            Ok(()) => self.answered(),
            // If the connection was lost meanwhile, the supervisor knows more.
            Err(error) => {
                _ = self.state.send_if_modified(|state| {
                    let is_current =
                        state.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, &connection));
                    if is_current {
                        state.fail(LastError::from(&error));
                    }
                    is_current
                })
            }
        }
        self.status()
    }

    /// The server has answered: an error of a health check is overcome.
    fn answered(&self) {
        self.state.send_if_modified(|state| state.connection.is_some() && state.error.take().is_some());
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
        let calls = self.calls.usage();
        [calls].into_iter().chain(self.catalog.limits()).collect()
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
        if self.catalog.set_guard(key, max) {
            self.relist.notify_one();
            return Ok(());
        }
        if key != self.calls.key() {
            return Err(unsupported_limit_error(self.name().into_owned(), key));
        }
        self.calls.set_max(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Calls that run may end by the deadline; only then is the connection closed under them.
    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.calls.close();
        let before = self.calls.used();
        let _ = deadline.run("mcp", "waiting for running calls", self.calls.wait_idle()).await;
        let aborted = self.calls.used();
        self.stop.cancel();
        let connection = self.state.send_replace(State::default()).connection;
        if let Some(connection) = connection {
            connection.close(deadline).await;
        }
        CloseReport::new(before.saturating_sub(aborted), aborted, Vec::new())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

opaque_debug!(Server(self) { name: self.config.name });
