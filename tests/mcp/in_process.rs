//! Servers without a network: scripts behind a transport of the runtime, so that a test can pause the time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arshai::config::McpServerConfig;
use arshai::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use arshai::mcp::McpServerManager;
use arshai::{
    Arshai, CloseReport, Component, Config, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase,
};
use async_trait::async_trait;
use axum::response::Response;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::scripted::{Reply, Request, Script};
use crate::support::builder;

/// A transport that takes each request to the script of its host.
#[derive(Default)]
pub(crate) struct InProcess(BTreeMap<String, Arc<Script>>);

impl InProcess {
    /// Adds a server, `https://NAME/mcp`.
    pub(crate) fn with(
        mut self,
        name: &str,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(name.to_owned(), Script::new(answer));
        self
    }

    /// A runtime of all servers, with more of the configuration.
    pub(crate) fn runtime(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Config),
    ) -> (Arshai, Arc<dyn McpServerManager>) {
        let runtime =
            builder(self.configs(), change).http(Arc::clone(self) as Arc<dyn HttpTransport>).build();
        let runtime = runtime.expect("the configuration is valid");
        let manager = Arc::clone(runtime.mcp().expect("compiled in"));
        (runtime, manager)
    }

    pub(crate) fn configs(&self) -> Vec<McpServerConfig> {
        self.0.keys().map(|name| McpServerConfig::http(name, format!("https://{name}/mcp"))).collect()
    }

    pub(crate) fn script(&self, name: &str) -> &Script {
        &self.0[name]
    }
}

#[async_trait]
impl HttpTransport for InProcess {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let deadline = request.deadline.unwrap_or_else(|| Deadline::after(std::time::Duration::MAX));
        let host = request.request.uri().host().unwrap_or_default().to_owned();
        let (parts, body) = request.request.into_parts();
        let answering = self.0[&host].answer(Request::new(parts, &body));
        let response = deadline.run("http", "waiting for the response", answering).await?;
        Ok(with_deadline(response, deadline))
    }

    fn stats(&self) -> HttpStats {
        HttpStats::default()
    }
}

fn with_deadline(response: Response, deadline: Deadline) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let broken = |error: axum::Error| Error::new(ErrorKind::Transport, "http", error.to_string());
    let late = Box::pin(tokio::time::sleep_until(deadline.instant()));
    let chunks = body.into_data_stream().map_err(broken).take_until(late);
    HttpResponse { status: parts.status, headers: parts.headers, body: HttpBody::new(chunks.boxed()) }
}

#[async_trait]
impl Component for InProcess {
    fn name(&self) -> Cow<'_, str> {
        "in_process".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
