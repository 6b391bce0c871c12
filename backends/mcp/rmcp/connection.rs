//! One established connection to a server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientConfig, ClientRequest, Implementation, ListToolsRequest,
    PaginatedRequestParams, PingRequest, ProgressNotificationParam, ProgressToken, ProtocolVersion,
    RequestMetaObject, ServerResult, SubscriptionFilter,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RequestHandle, RunningService, Subscription};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, Peer, RoleClient, serve_client_with_lifecycle};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::errors::{call_error, connect_error, is_final, is_session_lost};
use super::http_client::TransportClient;
use super::stdio::{LineLimit, ServerProcess};
use crate::config::{McpProtocol, McpServerConfig};
use crate::http::HttpTransport;
use crate::mcp::{McpCall, McpGuards, McpTool, McpToolResult, ProgressListener};
use crate::{Deadline, Error, ErrorKind, Result};

/// The inputs of connecting besides the server's configuration.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) http: Option<Arc<dyn HttpTransport>>,
    /// The variables that child processes inherit.
    pub(super) inherited: Arc<BTreeMap<String, String>>,
    pub(super) guards: McpGuards,
}

/// A connection whose handshake is done. Dropping it ends its tasks and kills its child process.
pub(super) struct Connection {
    service: RunningService<RoleClient, Handler>,
    process: Option<ServerProcess>,
    /// The server no longer knows the session: every further call would fail.
    session_lost: AtomicBool,
    /// Keeps notifications of a changed list coming, in the stateless era.
    subscription: tokio::sync::Mutex<Option<Subscription>>,
}

impl Connector {
    /// Connects in the era that `protocol` names; `Auto` probes the stateless era first and falls back to the handshake
    /// of earlier revisions on a connection of its own, because servers answer the probe in every way: with an error, an
    /// empty result, HTTP 500, silence, or by exiting.
    pub(super) async fn connect(
        &self,
        config: &McpServerConfig,
        protocol: McpProtocol,
        deadline: Deadline,
    ) -> Result<Connection> {
        if protocol == McpProtocol::Stateless {
            return self.attempt(config, stateless(), deadline).await;
        }
        if protocol == McpProtocol::Auto {
            // The probe may take a third of the time: a server that ignores it must still be reached.
            let probe = deadline.capped(deadline.remaining() / 3);
            match self.attempt(config, stateless(), probe).await {
                Err(error) if !is_final(&error) => {
                    tracing::debug!(mcp.server = config.name, %error, "server/discover failed; trying initialize");
                }
                connected_or_final => return connected_or_final,
            }
        }
        self.attempt(config, ClientLifecycleMode::Initialize, deadline).await
    }

    async fn attempt(
        &self,
        config: &McpServerConfig,
        lifecycle: ClientLifecycleMode,
        deadline: Deadline,
    ) -> Result<Connection> {
        let is_stateless = lifecycle != ClientLifecycleMode::Initialize;
        let handler = Handler::default();
        let (served, process) = match &config.url {
            Some(url) => {
                let transport = self.http_transport(config, url)?;
                let serving = serve_client_with_lifecycle(handler, transport, lifecycle);
                (deadline.run("mcp", "connecting", serving).await, None)
            }
            None => {
                let (process, stdout, stdin) = ServerProcess::spawn(config, &self.inherited)?;
                // A longer line would be dropped, and the call that it answers would wait for its deadline: the
                // connection ends instead. A result may be there twice, as text and structured, with escapes.
                let stdout = LineLimit::new(stdout, self.guards.max_result_bytes.saturating_mul(4));
                let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(usize::MAX);
                let serving = serve_client_with_lifecycle(handler, transport, lifecycle);
                (deadline.run("mcp", "connecting", serving).await, Some(process))
            }
        };
        let service = served
            .and_then(|served| served.map_err(|error| connect_error(&config.name, error)))
            .map_err(|error| error.with_context("server", &config.name))?;
        check_version(&config.name, &service)?;
        let subscription = match is_stateless {
            true => subscribe(service.peer(), deadline).await,
            false => None,
        };
        Ok(Connection { service, process, session_lost: false.into(), subscription: subscription.into() })
    }

    fn http_transport(
        &self,
        config: &McpServerConfig,
        url: &str,
    ) -> Result<StreamableHttpClientTransport<TransportClient>> {
        let Some(http) = &self.http else {
            let message =
                "no HTTP transport: enable the cargo feature \"ureq\" or pass a transport to the builder";
            return Err(
                Error::new(ErrorKind::Unsupported, format!("mcp:{}", config.name), message).not_sent()
            );
        };
        let client = TransportClient::new(Arc::clone(http), config.timeout);
        let mut settings = StreamableHttpClientTransportConfig::with_uri(url)
            .max_json_response_size(self.guards.max_result_bytes.saturating_mul(4))
            .max_sse_event_size(self.guards.max_result_bytes.saturating_mul(4))
            .max_concurrent_requests(config.max_concurrency)
            // A call that may have been executed must not be sent again; the supervisor reconnects instead.
            .reinit_on_expired_session(false);
        settings.custom_headers = http_headers(config)?;
        settings.auth_header = config.token.as_ref().map(|token| token.expose_secret().to_owned());
        Ok(StreamableHttpClientTransport::with_client(client, settings))
    }
}

/// The headers that every request to the server carries.
pub(super) fn http_headers(config: &McpServerConfig) -> Result<HashMap<HeaderName, HeaderValue>> {
    let headers = config.headers.iter().map(|(name, value)| {
        let invalid = |what| {
            let message = format!("invalid {what} for HTTP header {name:?}");
            Error::new(ErrorKind::Config, format!("mcp:{}", config.name), message)
        };
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| invalid("value"))?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| invalid("name"))?, value))
    });
    headers.collect()
}

fn stateless() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

/// rmcp accepts any version that a server names.
fn check_version(server: &str, service: &RunningService<RoleClient, Handler>) -> Result<()> {
    let Some(version) = version(service) else { return Ok(()) };
    if ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version) {
        return Ok(());
    }
    let message = format!("unsupported protocol version {version:?}");
    Err(Error::new(ErrorKind::Protocol, format!("mcp:{server}"), message))
}

fn version(service: &RunningService<RoleClient, Handler>) -> Option<String> {
    service.peer().peer_info().map(|info| info.protocol_version.to_string())
}

/// Subscribes to changes of the tool list, where the server supports it.
async fn subscribe(peer: &Peer<RoleClient>, deadline: Deadline) -> Option<Subscription> {
    let supported = peer.peer_info().is_some_and(|info| {
        info.capabilities.tools.as_ref().is_some_and(|tools| tools.list_changed == Some(true))
    });
    if !supported {
        return None;
    }
    let mut filter = SubscriptionFilter::new();
    filter.tools_list_changed = Some(true);
    deadline.run("mcp", "subscribing", peer.listen(filter)).await.ok()?.ok()
}

impl Connection {
    pub(super) fn protocol_version(&self) -> Option<String> {
        version(&self.service)
    }

    /// Whether the server speaks the stateless era.
    pub(super) fn is_stateless(&self) -> bool {
        self.protocol_version().as_deref() == Some(ProtocolVersion::V_2026_07_28.as_str())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.session_lost.load(Ordering::Acquire)
            || self.service.is_closed()
            || self.service.peer().is_transport_closed()
    }

    /// Waits until the server says that its tools changed.
    pub(super) async fn tools_changed(&self) {
        let mut subscription = self.subscription.lock().await;
        if let Some(active) = subscription.as_mut()
            && let Ok(Some(_)) = active.next().await
        {
            return;
        }
        *subscription = None;
        drop(subscription);
        self.service.service().tools_changed.notified().await;
    }

    /// Fetches the tool list page by page. A tool that breaks a limit is left out with a warning.
    pub(super) async fn list_tools(&self, server: &str, guards: &McpGuards) -> Result<Vec<McpTool>> {
        let (mut tools, mut names, mut cursors) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut cursor: Option<String> = None;
        for _ in 0..guards.max_pages {
            let (page, next) = self.list_page(server, cursor).await?;
            for tool in page {
                if tools.len() == guards.max_tools {
                    tracing::warn!(
                        mcp.server = server,
                        limit = guards.max_tools,
                        "too many tools; the rest is ignored"
                    );
                    return Ok(tools);
                }
                match guards.check_tool(server, &tool) {
                    Ok(tool) if names.insert(tool.original_name.clone()) => tools.push(tool),
                    Ok(tool) => tracing::warn!(
                        mcp.server = server,
                        tool = tool.original_name,
                        "duplicate tool ignored"
                    ),
                    Err(error) => tracing::warn!(mcp.server = server, %error, "tool ignored"),
                }
            }
            match next.filter(|next| !next.is_empty()) {
                None => return Ok(tools),
                Some(next) if !cursors.insert(next.clone()) => {
                    tracing::warn!(
                        mcp.server = server,
                        "repeated cursor; the rest of the tool list is ignored"
                    );
                    return Ok(tools);
                }
                next => cursor = next,
            }
        }
        tracing::warn!(mcp.server = server, limit = guards.max_pages, "too many pages; the rest is ignored");
        Ok(tools)
    }

    /// One page as raw JSON, so that one odd tool does not lose the others.
    async fn list_page(&self, server: &str, cursor: Option<String>) -> Result<(Vec<Value>, Option<String>)> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let request = ClientRequest::ListToolsRequest(ListToolsRequest::with_param(params));
        let result =
            self.service.peer().send_request(request).await.map_err(|error| call_error(server, error))?;
        let mut result = result_json(server, &result)?;
        let Some(Value::Array(page)) = result.remove("tools") else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("mcp:{server}"),
                "tools/list result without tools",
            ));
        };
        let next = result.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
        Ok((page, next))
    }

    /// Calls a tool; see [`McpServerManager::call_tool`](crate::mcp::McpServerManager::call_tool).
    pub(super) async fn call_tool(
        &self,
        call: McpCall,
        deadline: Deadline,
        guards: &McpGuards,
    ) -> Result<McpToolResult> {
        let McpCall { server, tool, arguments, idle_timeout, meta, progress, .. } = call;
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let mut options = PeerRequestOptions::no_options().with_max_total_timeout(deadline.remaining());
        if let Some(idle) = idle_timeout {
            options.timeout = Some(idle);
            options.reset_timeout_on_progress = true;
        }
        if !meta.is_empty() {
            let mut object = RequestMetaObject::default();
            object.0.0.extend(meta);
            options.meta = Some(object);
        }
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let peer = self.service.peer();
        let handle = peer
            .send_cancellable_request(request, options)
            .await
            .map_err(|error| call_error(&server, error))?;
        let _listening =
            progress.map(|listener| self.service.service().listen(handle.progress_token.clone(), listener));
        let cancel = CancelOnDrop::new(&handle);
        let answered = handle.await_response().await;
        cancel.disarm();
        if answered.as_ref().is_err_and(is_session_lost) {
            self.session_lost.store(true, Ordering::Release);
        }
        let result = answered.map_err(|error| call_error(&server, error))?;
        let json = result_json(&server, &result)?;
        let bytes = serde_json::to_vec(&json).map_or(0, |json| json.len());
        if bytes > guards.max_result_bytes {
            let message = format!("result of {bytes} bytes exceeds {}", guards.max_result_bytes);
            return Err(Error::new(ErrorKind::TooLarge, format!("mcp:{server}"), message));
        }
        if json.contains_key("inputRequests") {
            let message = "the tool asks for input, which this client does not provide";
            return Err(Error::new(ErrorKind::Unsupported, format!("mcp:{server}"), message));
        }
        Ok(McpToolResult::from_json(json))
    }

    /// Checks whether the server responds.
    pub(super) async fn ping(&self, server: &str) -> Result<()> {
        if self.is_stateless() {
            return self.list_page(server, None).await.map(drop);
        }
        let request = ClientRequest::PingRequest(PingRequest::default());
        self.service.peer().send_request(request).await.map(drop).map_err(|error| call_error(server, error))
    }

    /// Ends the connection by `deadline`: the session, then the child process.
    pub(super) async fn close(mut self, deadline: Deadline) {
        let _ = self.service.close_with_timeout(deadline.remaining()).await;
        if let Some(process) = self.process.take() {
            // Dropping the stopping future kills the group.
            let _ = deadline.run("mcp", "stopping the child process", process.stop()).await;
        }
    }
}

fn result_json(server: &str, result: &ServerResult) -> Result<Map<String, Value>> {
    match serde_json::to_value(result) {
        Ok(Value::Object(result)) => Ok(result),
        _ => Err(Error::new(ErrorKind::Protocol, format!("mcp:{server}"), "the result is not an object")),
    }
}

/// Sends a cancellation to the server when the caller drops the call.
struct CancelOnDrop(Option<(Peer<RoleClient>, rmcp::model::RequestId)>);

impl CancelOnDrop {
    fn new(handle: &RequestHandle<RoleClient>) -> Self {
        Self(Some((handle.peer.clone(), handle.id.clone())))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some((peer, id)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let params =
            rmcp::model::CancelledNotificationParam::new(Some(id), Some("the caller gave up".into()));
        runtime.spawn(async move {
            let _ = peer.send_notification(rmcp::model::CancelledNotification::new(params).into()).await;
        });
    }
}

/// Receives what the server sends by itself.
#[derive(Default)]
pub(super) struct Handler {
    tools_changed: Notify,
    listeners: Arc<Mutex<HashMap<ProgressToken, ProgressListener>>>,
}

impl Handler {
    fn listen(&self, token: ProgressToken, listener: ProgressListener) -> Listening {
        self.listeners.lock().insert(token.clone(), listener);
        Listening { listeners: Arc::clone(&self.listeners), token }
    }
}

/// Removes a call's progress listener.
struct Listening {
    listeners: Arc<Mutex<HashMap<ProgressToken, ProgressListener>>>,
    token: ProgressToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.listeners.lock().remove(&self.token);
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.client_info = Implementation::new("arshai", env!("CARGO_PKG_VERSION"));
        config
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let listener = self.listeners.lock().get(&params.progress_token).cloned();
        if let Some(listener) = listener {
            listener(params.progress, params.total, params.message.as_deref());
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tools_changed.notify_one();
    }
}
