//! What servers ask of the application, in either era: by requests of their own, or in the result of a call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rmcp::model::{
    ClientCapabilities, ElicitationCapability, FormElicitationCapability, InputResponses, RootsCapabilities,
    SamplingCapability, UrlElicitationCapability,
};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::config::McpServerConfig;
use crate::mcp::{McpClientCapabilities, McpClientHandler, McpElicitation};
use crate::{Deadline, Error, ErrorKind, Result};

/// Answers one server through the application's handler.
#[derive(Debug)]
pub(super) struct Input {
    server: String,
    handler: Option<Arc<dyn McpClientHandler>>,
    timeout: Duration,
    max_concurrency: usize,
    /// A server must not make the application answer without bound.
    permits: Semaphore,
}

impl Input {
    pub(super) fn new(config: &McpServerConfig, handler: Option<Arc<dyn McpClientHandler>>) -> Self {
        Self {
            server: config.name.clone(),
            handler,
            timeout: config.timeout,
            max_concurrency: config.max_concurrency,
            permits: Semaphore::new(config.max_concurrency),
        }
    }

    fn supported(&self) -> McpClientCapabilities {
        self.handler.as_ref().map(|handler| handler.capabilities()).unwrap_or_default()
    }

    /// The handler's capabilities as the protocol announces them.
    pub(super) fn capabilities(&self) -> ClientCapabilities {
        let supported = self.supported();
        let mut elicitation = ElicitationCapability::new();
        elicitation.form = supported.elicitation_form.then(FormElicitationCapability::default);
        elicitation.url = supported.elicitation_url.then(UrlElicitationCapability::default);
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation =
            (supported.elicitation_form || supported.elicitation_url).then_some(elicitation);
        capabilities.sampling = supported.sampling.then(SamplingCapability::default);
        capabilities.roots = supported.roots.then(RootsCapabilities::default);
        capabilities
    }

    /// Answers the requests in the result of a call, concurrently.
    pub(super) async fn answer_all(&self, requests: Map<String, Value>) -> Result<InputResponses> {
        let answers = requests.into_iter().map(|(key, request)| async move {
            let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
            let params = request.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
            Ok((key, self.ask(method, params).await?))
        });
        stream::iter(answers).buffer_unordered(self.max_concurrency).try_collect().await
    }

    /// Answers a request of the server's own, within the timeout of a call.
    pub(super) async fn answer(&self, method: &str, params: Map<String, Value>) -> Result<Value> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let message = format!("the server has {} requests unanswered already", self.max_concurrency);
            return Err(Error::new(ErrorKind::RateLimited, format!("mcp:{}", self.server), message));
        };
        let answer = self.ask(method, params);
        Deadline::after(self.timeout).run("mcp", "answering the server's request", answer).await?
    }

    async fn ask(&self, method: &str, params: Map<String, Value>) -> Result<Value> {
        let supported = self.supported();
        let Some(handler) = &self.handler else { return Err(self.unsupported(method)) };
        match method {
            "elicitation/create" => {
                let request = McpElicitation::from_json(&self.server, &params)?;
                let is_supported = match matches!(request, McpElicitation::Url { .. }) {
                    true => supported.elicitation_url,
                    false => supported.elicitation_form,
                };
                if !is_supported {
                    return Err(self.unsupported(method));
                }
                handler.elicit(&self.server, request).await.map(|result| result.into_json())
            }
            "sampling/createMessage" if supported.sampling => {
                handler.create_message(&self.server, params).await.map(Value::Object)
            }
            "roots/list" if supported.roots => {
                handler.list_roots(&self.server).await.map(|roots| json!({ "roots": roots }))
            }
            _ => Err(self.unsupported(method)),
        }
    }

    fn unsupported(&self, method: &str) -> Error {
        let method: String = method.chars().take(100).collect();
        let message = format!("the server asks for {method:?}, which no handler of the application answers");
        Error::new(ErrorKind::Unsupported, format!("mcp:{}", self.server), message)
    }
}
