//! One established connection to a server: calls, checks, closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, PingRequest, ProtocolVersion, RequestMetaObject,
    ServerResult,
};
use rmcp::service::{PeerRequestOptions, RequestHandle, RunningService, Subscription};
use rmcp::{Peer, RoleClient};
use serde_json::{Map, Value};

use super::errors::{call_error, is_session_lost};
use super::handler::Handler;
use super::stdio::ServerProcess;
use crate::mcp::{McpCall, McpGuards, McpToolResult};
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

/// How often a tool may ask for input in one call.
const MAX_INPUT_ROUNDS: u32 = 10;
/// Delays before a call is sent again whose tool asks for nothing but that.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

pub(super) type Service = RunningService<RoleClient, Handler>;

/// A connection whose handshake is done. Dropping it ends its tasks and kills its child process.
pub(super) struct Connection {
    pub(super) service: Service,
    process: Option<ServerProcess>,
    /// The server no longer knows the session: every further call would fail.
    session_lost: AtomicBool,
    /// Keeps notifications of a changed list coming, in the stateless era.
    subscription: tokio::sync::Mutex<Option<Subscription>>,
}

/// The protocol revision that was agreed on.
pub(super) fn version(service: &Service) -> Option<String> {
    service.peer().peer_info().map(|info| info.protocol_version.to_string())
}

impl Connection {
    pub(super) fn new(
        service: Service,
        process: Option<ServerProcess>,
        subscription: Option<Subscription>,
    ) -> Self {
        Self { service, process, session_lost: false.into(), subscription: subscription.into() }
    }

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

    /// Calls a tool; see [`McpServerManager::call_tool`](crate::mcp::McpServerManager::call_tool). A tool that asks for
    /// input is called again with it.
    pub(super) async fn call_tool(
        &self,
        call: McpCall,
        deadline: Deadline,
        guards: &McpGuards,
    ) -> Result<McpToolResult> {
        let mut params = CallToolRequestParams::new(call.tool.clone()).with_arguments(call.arguments.clone());
        for round in 1..=MAX_INPUT_ROUNDS {
            let mut result = self.send_call(&call, params.clone(), deadline, guards).await?;
            if result.get("resultType").and_then(Value::as_str) != Some("input_required") {
                return Ok(McpToolResult::from_json(result));
            }
            params.request_state =
                result.remove("requestState").and_then(|state| state.as_str().map(str::to_owned));
            params.input_responses = match result.remove("inputRequests") {
                Some(Value::Object(requests)) if !requests.is_empty() => {
                    Some(self.service.service().input.answer_all(requests).await?)
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
        deadline: Deadline,
        guards: &McpGuards,
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
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let peer = self.service.peer();
        let handle = peer
            .send_cancellable_request(request, options)
            .await
            .map_err(|error| call_error(server, error))?;
        let _listening = call.progress.as_ref().map(|listener| {
            self.service.service().listen(handle.progress_token.clone(), Arc::clone(listener))
        });
        let cancel = CancelOnDrop::new(&handle);
        let answered = handle.await_response().await;
        cancel.disarm();
        if answered.as_ref().is_err_and(is_session_lost) {
            self.session_lost.store(true, Ordering::Release);
        }
        let result = answered.map_err(|error| call_error(server, error))?;
        let json = result_json(server, &result)?;
        let bytes = serde_json::to_vec(&json).map_or(0, |json| json.len());
        if bytes > guards.max_result_bytes {
            let message = format!("result of {bytes} bytes exceeds {}", guards.max_result_bytes);
            return Err(Error::new(ErrorKind::TooLarge, format!("mcp:{server}"), message));
        }
        Ok(json)
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
