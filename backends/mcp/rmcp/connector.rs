//! Connecting: the handshake of either era, over HTTP or with a child process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rmcp::model::{ProtocolVersion, SubscriptionFilter};
use rmcp::service::Subscription;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, Peer, RoleClient, serve_client_with_lifecycle};
use secrecy::ExposeSecret;

use super::connection::{Connection, Service, version};
use super::errors::{connect_error, is_final};
use super::handler::Handler;
use super::http_client::TransportClient;
use super::input::Input;
use super::stdio::ServerProcess;
use crate::config::{McpProtocol, McpServerConfig};
use crate::http::HttpTransport;
use crate::mcp::{McpClientHandler, McpGuards};
use crate::{Deadline, Error, ErrorKind, Result};

/// Longest wait for the listening stream of a session: a server may leave it unanswered.
const MAX_LISTEN_WAIT: Duration = Duration::from_secs(1);

/// The inputs of connecting besides the server's configuration.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) http: Option<Arc<dyn HttpTransport>>,
    /// The variables that child processes inherit.
    pub(super) inherited: Arc<BTreeMap<String, String>>,
    pub(super) guards: McpGuards,
    /// Answers what servers ask of the application.
    pub(super) handler: Option<Arc<dyn McpClientHandler>>,
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
        let handler = Handler::new(Input::new(config, self.handler.clone()));
        let (served, process) = match &config.url {
            Some(url) => {
                let client = self.http_client(config)?;
                let transport = self.http_transport(config, url, client.clone())?;
                let serving = serve_client_with_lifecycle(handler, transport, lifecycle);
                let served = deadline.run("mcp", "connecting", serving).await;
                let _ = deadline.capped(MAX_LISTEN_WAIT).run("mcp", "listening", client.listening()).await;
                (served, None)
            }
            None => {
                // A longer line would be dropped, and the call that it answers would wait for its deadline: the
                // connection ends instead. A result may be there twice, as text and structured, with escapes.
                let max_line = self.guards.max_result_bytes.saturating_mul(4);
                let (process, stdout, stdin) = ServerProcess::spawn(config, &self.inherited, max_line)?;
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
        Ok(Connection::new(service, process, subscription))
    }

    fn http_client(&self, config: &McpServerConfig) -> Result<TransportClient> {
        let Some(http) = &self.http else {
            let message =
                "no HTTP transport: enable the cargo feature \"ureq\" or pass a transport to the builder";
            return Err(
                Error::new(ErrorKind::Unsupported, format!("mcp:{}", config.name), message).not_sent()
            );
        };
        Ok(TransportClient::new(Arc::clone(http), config.timeout))
    }

    fn http_transport(
        &self,
        config: &McpServerConfig,
        url: &str,
        client: TransportClient,
    ) -> Result<StreamableHttpClientTransport<TransportClient>> {
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
fn check_version(server: &str, service: &Service) -> Result<()> {
    let Some(version) = version(service) else { return Ok(()) };
    if ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version) {
        return Ok(());
    }
    let message = format!("unsupported protocol version {version:?}");
    Err(Error::new(ErrorKind::Protocol, format!("mcp:{server}"), message))
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
