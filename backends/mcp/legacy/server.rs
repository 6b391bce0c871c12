//! One server of the legacy manager.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::http::HttpSession;
use super::stdio::StdioSession;
use crate::config::{McpConfig, McpProtocol, McpServerConfig};
use crate::http::HttpTransport;
use crate::mcp::{McpCall, McpGuards, McpServerHealth, McpServerStatus, McpTool, McpToolResult};
use crate::support::opaque_debug;
use crate::{Deadline, Error, ErrorKind, Outcome, Result};

/// The newest revision with the handshake.
const VERSION: &str = "2025-11-25";

/// A connection: JSON-RPC requests, one answer each.
pub(super) enum Session {
    Http(HttpSession),
    Stdio(StdioSession),
}

impl Session {
    async fn request(&self, message: &Value, call: Option<&McpCall>) -> Result<Option<Value>> {
        match self {
            Self::Http(session) => session.request(message, call).await,
            Self::Stdio(session) => session.request(message).await,
        }
    }
}

#[derive(Debug)]
pub(super) struct LegacyServer {
    pub(super) config: McpServerConfig,
    http: Option<Arc<dyn HttpTransport>>,
    deny_private_addresses: bool,
    /// Unlimited in the effective configuration.
    guards: McpGuards,
    inherited: Arc<BTreeMap<String, String>>,
    state: Mutex<State>,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    next_id: AtomicU64,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    version: Option<String>,
    tools: Vec<McpTool>,
    error: Option<(ErrorKind, String)>,
    attempts: u64,
    connects: u64,
}

opaque_debug!(State(self) { connected: self.session.is_some() });

impl LegacyServer {
    pub(super) fn new(
        config: McpServerConfig,
        http: Option<Arc<dyn HttpTransport>>,
        mcp: &McpConfig,
    ) -> Self {
        Self {
            config,
            http,
            deny_private_addresses: mcp.deny_private_addresses,
            guards: mcp.guards.clone(),
            inherited: Arc::new(mcp.inherited_env.clone()),
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.lock().session.is_some()
    }

    pub(super) fn tools(&self) -> Vec<McpTool> {
        let state = self.state.lock();
        if state.session.is_some() { state.tools.clone() } else { Vec::new() }
    }

    /// Connects once, unless it is connected.
    pub(super) async fn ensure_connected(&self) -> Result<()> {
        let _one_at_a_time = self.connecting.lock().await;
        if self.is_connected() {
            return Ok(());
        }
        self.check_open()?;
        self.state.lock().attempts += 1;
        let connected = self.connect().await;
        let mut state = self.state.lock();
        match connected {
            Ok((session, version, tools)) => {
                *state = State {
                    session: Some(Arc::new(session)),
                    version,
                    tools,
                    error: None,
                    attempts: state.attempts,
                    connects: state.connects + 1,
                };
                Ok(())
            }
            Err(error) => {
                state.error = Some((error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<(Session, Option<String>, Vec<McpTool>)> {
        if self.config.auth.is_some() {
            let message = "`auth` needs mcp.backend = \"rmcp\"; the legacy manager knows `token` only";
            return Err(self.error(ErrorKind::Unsupported, message).not_sent());
        }
        let session = match &self.config.url {
            Some(url) => {
                let (http, deny) = (self.http.clone(), self.deny_private_addresses);
                Session::Http(HttpSession::new(&self.config, url, http, deny)?)
            }
            None => Session::Stdio(StdioSession::spawn(&self.config, &self.inherited)?),
        };
        let client = json!({ "name": "arshai", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({ "protocolVersion": VERSION, "capabilities": {}, "clientInfo": client });
        let initialized = self.send(&session, "initialize", params, None).await?;
        let version = initialized.get("protocolVersion").and_then(Value::as_str).map(str::to_owned);
        if let (Session::Http(session), Some(version)) = (&session, &version) {
            session.set_version(version);
        }
        session.request(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), None).await?;
        let tools = self.list(&session).await?;
        Ok((session, version, tools))
    }

    async fn list(&self, session: &Session) -> Result<Vec<McpTool>> {
        let (mut tools, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let mut page = self.send(session, "tools/list", params, None).await?;
            let Some(Value::Array(listed)) = page.remove("tools") else {
                return Err(self.error(ErrorKind::Protocol, "tools/list result without tools"));
            };
            for tool in listed {
                match self.guards.check_tool(&self.config.name, &tool) {
                    Ok(mut tool) if self.is_allowed(&tool.original_name) => {
                        tool.server_url.clone_from(&self.config.url);
                        tools.push(tool);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(mcp.server = self.config.name, %error, "tool ignored"),
                }
            }
            cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.as_deref().is_none_or(str::is_empty) {
                return Ok(tools);
            }
        }
    }

    fn is_allowed(&self, tool: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| name == tool);
        self.config.allow_tools.as_deref().is_none_or(listed) && !listed(&self.config.deny_tools)
    }

    pub(super) async fn call(&self, call: McpCall) -> Result<McpToolResult> {
        let session = self.session()?;
        let mut params = json!({ "name": call.tool, "arguments": call.arguments });
        if !call.meta.is_empty() {
            params["_meta"] = Value::Object(call.meta.clone());
        }
        let result = self.send(&session, "tools/call", params, Some(&call)).await?;
        Ok(McpToolResult::from_json(result))
    }

    async fn send(
        &self,
        session: &Session,
        method: &str,
        params: Value,
        call: Option<&McpCall>,
    ) -> Result<Map<String, Value>> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let answer = session.request(&message, call).await?.unwrap_or_default();
        if let Some(error) = answer.get("error") {
            let text = error["message"].as_str().unwrap_or_default();
            let text = crate::support::truncated(text, 500);
            let message = format!("the server rejected the call: {text} ({})", error["code"]);
            return Err(self.error(ErrorKind::Function, message).with_outcome(Outcome::Rejected));
        }
        match answer {
            Value::Object(mut answer) => match answer.remove("result") {
                Some(Value::Object(result)) => Ok(result),
                _ => Err(self.error(ErrorKind::Protocol, "the result is not an object")),
            },
            _ => Err(self.error(ErrorKind::Protocol, "no answer")),
        }
    }

    fn session(&self) -> Result<Arc<Session>> {
        self.check_open()?;
        let state = self.state.lock();
        state.session.clone().ok_or_else(|| {
            let (kind, reason) = match &state.error {
                Some((ErrorKind::Authentication, reason)) => (ErrorKind::Authentication, reason.as_str()),
                Some((_, reason)) => (ErrorKind::Unavailable, reason.as_str()),
                None => (ErrorKind::Unavailable, "not connected yet"),
            };
            self.error(kind, format!("not connected: {reason}")).not_sent()
        })
    }

    fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(self.error(ErrorKind::Closed, "closed").not_sent()),
            false => Ok(()),
        }
    }

    /// Drops the connection; calls that hold it end first.
    pub(super) fn disconnect(&self) {
        self.state.lock().session = None;
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.disconnect();
    }

    pub(super) fn status(&self) -> McpServerStatus {
        let state = self.state.lock();
        let health = match (&state.session, &state.error) {
            (Some(_), _) => McpServerHealth::Healthy,
            (None, Some((ErrorKind::Authentication, _))) => McpServerHealth::NeedsAuthorization,
            (None, Some(_)) => McpServerHealth::Error,
            (None, None) => McpServerHealth::Disconnected,
        };
        let mut status = McpServerStatus::new(&self.config.name, health);
        status.error = state.error.as_ref().map(|(_, message)| message.clone());
        status.last_error.clone_from(&status.error);
        status.protocol_version.clone_from(&state.version);
        status.era = state.session.as_ref().map(|_| McpProtocol::Initialize);
        status.tools = if state.session.is_some() { state.tools.len() } else { 0 };
        (status.attempts, status.connects, status.sessions) =
            (state.attempts, state.connects, state.connects);
        status
    }

    pub(super) async fn check(&self, deadline: Deadline) -> McpServerStatus {
        let mut status = self.status();
        let Ok(session) = self.session() else { return status };
        let pinged = self.send(&session, "ping", json!({}), None);
        if let Err(error) = deadline.run("mcp", "health check", pinged).await.and_then(|pinged| pinged) {
            status.health = McpServerHealth::Unhealthy;
            status.error = Some(error.to_string());
        }
        status
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, format!("mcp:{}", self.config.name), message)
    }
}
