//! One established connection to a server: calls, checks, closing.

use std::sync::OnceLock;
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, PingRequest, ProtocolVersion, RequestMetaObject,
    ServerResult,
};
use rmcp::service::{PeerRequestOptions, RequestHandle, RunningService};
use rmcp::{Peer, RoleClient, ServiceError};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::catalog::Catalog;
use super::errors::{call_error, is_session_lost};
use super::handler::Handler;
use super::headers::CallHeaders;
use super::state::LastError;
use super::stdio::ServerProcess;
use super::subscription::Subscribed;
use crate::mcp::{McpCall, McpToolResult};
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

/// How often a tool may ask for input in one call.
const MAX_INPUT_ROUNDS: u32 = 10;
/// Delays before a call is sent again whose tool asks for nothing but that.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

pub(super) type Service = RunningService<RoleClient, Handler>;

/// Closing is given this long even when its deadline has passed.
const MIN_CLOSE: Duration = Duration::from_millis(500);

/// A connection whose handshake is done. Dropping it ends its tasks and kills its child process.
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    pub(super) handler: Handler,
    pub(super) subscribed: Mutex<Subscribed>,
    /// Why every further call would fail, once that is known: the session has expired, the token was rejected.
    failure: OnceLock<LastError>,
    /// Calls that hold the connection.
    calls: TaskTracker,
    ended: CancellationToken,
    ends: Mutex<Option<Ends>>,
}

/// The parts of a connection, in the order in which they are closed.
struct Ends {
    service: Service,
    process: Option<ServerProcess>,
    _requests: DropGuard,
}

/// The protocol revision that was agreed on.
pub(super) fn version(peer: &Peer<RoleClient>) -> Option<String> {
    peer.peer_info().map(|info| info.protocol_version.to_string())
}

impl Connection {
    pub(super) fn new(
        service: Service,
        handler: Handler,
        process: Option<ServerProcess>,
        requests: DropGuard,
        ended: CancellationToken,
    ) -> Self {
        Self {
            peer: service.peer().clone(),
            handler,
            subscribed: Mutex::default(),
            failure: OnceLock::new(),
            calls: TaskTracker::new(),
            ended,
            ends: Mutex::new(Some(Ends { service, process, _requests: requests })),
        }
    }

    pub(super) fn protocol_version(&self) -> Option<String> {
        version(&self.peer)
    }

    /// Whether the server speaks the stateless era.
    pub(super) fn is_stateless(&self) -> bool {
        self.protocol_version().as_deref() == Some(ProtocolVersion::V_2026_07_28.as_str())
    }

    /// Whether it cannot be used any longer.
    pub(super) fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it cannot be used any longer: rmcp has dropped the transport, the server's program has ended, or
    /// every further call would fail.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether the server was a child process whose output has ended: no call can get its answer any more.
    pub(super) fn has_exited(&self) -> bool {
        let Ok(ends) = self.ends.try_lock() else { return false };
        self.is_closed() && ends.as_ref().is_some_and(|ends| ends.process.is_some())
    }

    /// Why it cannot be used any longer.
    pub(super) fn failure(&self) -> Option<LastError> {
        self.failure.get().cloned()
    }

    /// Calls a tool; see [`McpServerManager::call_tool`](crate::mcp::McpServerManager::call_tool). A tool that asks for
    /// input is called again with it.
    pub(super) async fn call_tool(
        &self,
        call: McpCall,
        headers: CallHeaders,
        deadline: Deadline,
        catalog: &Catalog,
    ) -> Result<McpToolResult> {
        let _held = self.calls.token();
        let mut params = CallToolRequestParams::new(call.tool.clone()).with_arguments(call.arguments.clone());
        for round in 1..=MAX_INPUT_ROUNDS {
            let mut result =
                self.send_call(&call, params.clone(), headers.clone(), deadline, catalog).await?;
            if result.get("resultType").and_then(Value::as_str) != Some("input_required") {
                return Ok(McpToolResult::from_json(result));
            }
            params.request_state =
                result.remove("requestState").and_then(|state| state.as_str().map(str::to_owned));
            params.input_responses = match result.remove("inputRequests") {
                Some(Value::Object(requests)) if !requests.is_empty() => {
                    Some(self.handler.input().answer_all(requests).await?)
                }
                _ => {
                    // The server only wants to be asked again.
                    tokio::time::sleep(ASK_AGAIN.delay(round)).await;
                    None
                }
            };
        }
        let message = format!("the tool asked for input {MAX_INPUT_ROUNDS} times");
        Err(Error::new(ErrorKind::Protocol, format!("mcp:{}", call.server), message))
    }

    /// Sends one request of a call and returns its result in JSON.
    async fn send_call(
        &self,
        call: &McpCall,
        params: CallToolRequestParams,
        headers: CallHeaders,
        deadline: Deadline,
        catalog: &Catalog,
    ) -> Result<Map<String, Value>> {
        let server = call.server.as_str();
        let mut options = PeerRequestOptions::no_options().with_max_total_timeout(deadline.remaining());
        if let Some(idle) = call.idle_timeout {
            options.timeout = Some(idle);
            options.reset_timeout_on_progress = true;
        }
        if !call.meta.is_empty() {
            let mut object = RequestMetaObject::default();
            object.0.0.extend(call.meta.clone());
            options.meta = Some(object);
        }
        let has_credentials = headers.has_credentials();
        let mut request = CallToolRequest::new(params);
        request.extensions.insert(headers);
        let handle = self
            .peer
            .send_cancellable_request(ClientRequest::CallToolRequest(request), options)
            .await
            .map_err(|error| call_error(server, error))?;
        let listener = call.progress.clone();
        let _listening =
            listener.map(|listener| self.handler.listen(handle.progress_token.clone(), listener));
        let cancel = CancelOnDrop::new(&handle);
        let answered = handle.await_response().await;
        cancel.disarm();
        let result = answered.map_err(|error| self.failed(server, error, has_credentials))?;
        let json = result_json(server, &result)?;
        let bytes = serde_json::to_vec(&json).map_or(0, |json| json.len());
        catalog.check_result(bytes)?;
        Ok(json)
    }

    /// Sends a request that belongs to no call.
    pub(super) async fn request(&self, server: &str, request: ClientRequest) -> Result<ServerResult> {
        self.peer.send_request(request).await.map_err(|error| self.failed(server, error, false))
    }

    /// The error of a request; remembers what makes the whole connection useless. A token that a call brought itself
    /// concerns that call alone, as do scopes that only some tools need.
    fn failed(&self, server: &str, error: ServiceError, has_credentials: bool) -> Error {
        let (is_lost, is_forbidden) = (is_session_lost(&error), super::errors::is_forbidden(&error));
        let error = call_error(server, error);
        let is_rejected = error.kind() == ErrorKind::Authentication && !has_credentials && !is_forbidden;
        if is_lost || is_rejected {
            let _ = self.failure.set(LastError::from(&error));
            self.ended.cancel();
        }
        error
    }

    /// Checks whether the server responds.
    pub(super) async fn ping(&self, server: &str) -> Result<()> {
        if self.is_stateless() {
            return self.list_page(server, None).await.map(drop);
        }
        self.request(server, ClientRequest::PingRequest(PingRequest::default())).await.map(drop)
    }

    /// Lets calls that hold it end until `deadline`, then ends it: the session, then the child process. Both are given
    /// a moment even after the deadline. Closing it again waits for nothing.
    pub(super) async fn close(&self, deadline: Deadline) {
        self.calls.close();
        let _ = deadline.run("mcp", "waiting for running calls", self.calls.wait()).await;
        let Some(mut ends) = self.ends.lock().await.take() else { return };
        let deadline = deadline.max(Deadline::after(MIN_CLOSE));
        let _ = ends.service.close_with_timeout(deadline.remaining()).await;
        if let Some(process) = ends.process.take() {
            // Dropping the stopping future kills the group.
            let deadline = deadline.max(Deadline::after(MIN_CLOSE));
            let _ = deadline.run("mcp", "stopping the child process", process.stop()).await;
        }
    }
}

/// The result as raw JSON, so that one odd part does not lose the others.
pub(super) fn result_json(server: &str, result: &ServerResult) -> Result<Map<String, Value>> {
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
