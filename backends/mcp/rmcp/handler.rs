//! What the server sends by itself: progress, changes of its tools, and requests.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::{
    ClientConfig, ElicitRequestParams, ElicitResult, ErrorCode, Implementation, ProgressNotificationParam,
    ProgressToken, ProtocolVersion,
};
#[expect(deprecated, reason = "sampling and roots are deprecated and still in use")]
use rmcp::model::{CreateMessageRequestParams, CreateMessageResult, ListRootsResult};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::input::Input;
use crate::ErrorKind;
use crate::mcp::ProgressListener;

/// Receives what the server sends by itself. Cloning returns another handle to the same one.
#[derive(Clone)]
pub(super) struct Handler(Arc<Inner>);

struct Inner {
    input: Input,
    tools_changed: Notify,
    listeners: Mutex<HashMap<ProgressToken, ProgressListener>>,
}

impl Handler {
    pub(super) fn new(input: Input) -> Self {
        Self(Arc::new(Inner { input, tools_changed: Notify::new(), listeners: Mutex::default() }))
    }

    /// What the server asks of the application.
    pub(super) fn input(&self) -> &Input {
        &self.0.input
    }

    /// Waits for the notification that the tools changed. However many came meanwhile, it returns once.
    pub(super) async fn tools_changed(&self) {
        self.0.tools_changed.notified().await;
    }

    /// Calls `listener` for the progress of a call until the returned value is dropped.
    pub(super) fn listen(&self, token: ProgressToken, listener: ProgressListener) -> Listening {
        self.0.listeners.lock().insert(token.clone(), listener);
        Listening { inner: Arc::clone(&self.0), token }
    }
}

impl Handler {
    /// Answers a request of the server; given up when the server cancels it.
    async fn answer<A: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
        context: RequestContext<RoleClient>,
    ) -> Result<A, ErrorData> {
        let internal = |error: serde_json::Error| ErrorData::internal_error(error.to_string(), None);
        let params = match serde_json::to_value(params).map_err(internal)? {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let answered = context.ct.run_until_cancelled(self.input().answer(method, params)).await;
        match answered {
            Some(Ok(answer)) => serde_json::from_value(answer).map_err(internal),
            Some(Err(error)) if error.kind() == ErrorKind::Unsupported => {
                Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, error.message().to_owned(), None))
            }
            // The application's own words are not the server's business.
            Some(Err(error)) => {
                tracing::warn!(%error, method, "request of the server not answered");
                Err(ErrorData::internal_error("the client could not answer", None))
            }
            None => Err(ErrorData::internal_error("cancelled", None)),
        }
    }
}

/// Removes a call's progress listener.
pub(super) struct Listening {
    inner: Arc<Inner>,
    token: ProgressToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.inner.listeners.lock().remove(&self.token);
    }
}

#[expect(deprecated, reason = "sampling and roots are deprecated and still in use")]
impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        // For the handshake, which the stateless era does not have.
        config.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
        config.capabilities = self.input().capabilities();
        config.client_info = Implementation::new("arshai", env!("CARGO_PKG_VERSION"));
        config
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let listener = self.0.listeners.lock().get(&params.progress_token).cloned();
        if let Some(listener) = listener {
            listener(params.progress, params.total, params.message.as_deref());
        }
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.answer("sampling/createMessage", params, context).await
    }

    async fn list_roots(&self, context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        self.answer("roots/list", (), context).await
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.answer("elicitation/create", request, context).await
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.tools_changed.notify_one();
    }
}
