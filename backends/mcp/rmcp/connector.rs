//! Connecting: the handshake of either era, over HTTP or with a child process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::ProtocolVersion;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, serve_client_with_lifecycle};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Service, version};
use super::errors::{connect_error, is_final};
use super::handler::Handler;
use super::headers::server_headers;
use super::http_client::{HttpSettings, TransportClient};
use super::input::Input;
use super::resume::UntilClosed;
use super::stdio::ServerProcess;
use crate::config::{McpProtocol, McpServerConfig};
use crate::mcp::{McpClientHandler, McpGuards};
use crate::{Deadline, Error, ErrorKind, Result};

/// POSTs beside the calls: lists, pings, subscriptions.
const OTHER_REQUESTS: usize = 8;

/// Longest wait for the listening stream of a session: a server may leave it unanswered.
const MAX_LISTEN_WAIT: Duration = Duration::from_secs(2);

/// Longest wait for a failed attempt to end, which may have a session to delete.
const MAX_CLEANUP_WAIT: Duration = Duration::from_millis(100);

/// The inputs of connecting besides the server's configuration.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) http: Option<HttpSettings>,
    /// The variables that child processes inherit.
    pub(super) inherited: Arc<BTreeMap<String, String>>,
    pub(super) guards: McpGuards,
    /// Answers what servers ask of the application.
    pub(super) handler: Option<Arc<dyn McpClientHandler>>,
}

impl Connector {
    /// The same within these limits.
    pub(super) fn with_guards(&self, guards: McpGuards) -> Self {
        let mut connector = Self { guards, ..self.clone() };
        if let Some(http) = &mut connector.http {
            http.max_bytes = connector.guards.max_result_bytes.saturating_mul(4);
        }
        connector
    }

    /// Connects in the era that `protocol` names; `Auto` probes the stateless era first and falls back to the handshake
    /// of earlier revisions on a connection of its own, because servers answer the probe in every way: with an error, an
    /// empty result, HTTP 500, silence, or by exiting.
    pub(super) async fn connect(
        &self,
        config: &McpServerConfig,
        protocol: McpProtocol,
        deadline: Deadline,
    ) -> Result<Connection> {
        // It is not entered: rmcp's tasks would keep it open for as long as the connection lives.
        let span = tracing::info_span!(
            "mcp.connect",
            mcp.server = config.name,
            mcp.protocol.version = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        let connected = self.connect_in(config, protocol, deadline).await;
        match &connected {
            Ok(connection) => {
                span.record("mcp.protocol.version", connection.protocol_version());
            }
            Err(error) => {
                span.record("error.type", tracing::field::debug(error.kind()));
            }
        }
        connected
    }

    async fn connect_in(
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
        let input = Input::new(config, self.handler.clone());
        let (handler, closed) = (Handler::new(input), CancellationToken::new());
        // Cancelled when rmcp drops the transport, which is how it ends a connection.
        let ended = CancellationToken::new();
        // What a failed handshake leaves running ends with this.
        let close = closed.clone().drop_guard();
        let mut client = None;
        let (served, process) = match &config.url {
            Some(url) => {
                let http =
                    client.insert(self.http_client(config, deadline, closed.clone(), ended.clone())?);
                let transport = self.http_transport(config, url, http.clone(), closed)?;
                let serving = serve_client_with_lifecycle(handler.clone(), transport, lifecycle);
                (deadline.run("mcp", "connecting", serving).await, None)
            }
            None => {
                // A longer line would be dropped, and the call that it answers would wait for its deadline: the
                // connection ends instead. A result may be there twice, as text and structured, with escapes.
                let max_line = self.guards.max_result_bytes.saturating_mul(4);
                let (process, stdout, stdin) =
                    ServerProcess::spawn(config, &self.inherited, max_line, ended.clone())?;
                let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(usize::MAX);
                let serving = serve_client_with_lifecycle(handler.clone(), transport, lifecycle);
                (deadline.run("mcp", "connecting", serving).await, Some(process))
            }
        };
        let served = served.and_then(|served| served.map_err(|error| connect_error(&config.name, error)));
        let service = match served {
            Ok(service) => service,
            Err(error) => {
                // What this attempt took is given back before the next one takes as much.
                drop((close, client));
                let _ = deadline.capped(MAX_CLEANUP_WAIT).run("mcp", "closing", ended.cancelled()).await;
                return Err(error.with_context("server", &config.name));
            }
        };
        check_version(&config.name, &service)?;
        if let Some(client) = client {
            client.connected();
            let _ = deadline.capped(MAX_LISTEN_WAIT).run("mcp", "listening", client.listening()).await;
        }
        Ok(Connection::new(service, handler, process, close, ended))
    }

    fn http_client(
        &self,
        config: &McpServerConfig,
        deadline: Deadline,
        closed: CancellationToken,
        ended: CancellationToken,
    ) -> Result<TransportClient> {
        let settings = self.http.clone().ok_or_else(|| {
            let message =
                "no HTTP transport: enable the cargo feature \"ureq\" or pass a transport to the builder";
            Error::new(ErrorKind::Unsupported, format!("mcp:{}", config.name), message).not_sent()
        })?;
        Ok(TransportClient::new(settings, deadline, closed, ended))
    }

    fn http_transport(
        &self,
        config: &McpServerConfig,
        url: &str,
        client: TransportClient,
        closed: CancellationToken,
    ) -> Result<StreamableHttpClientTransport<TransportClient>> {
        let mut settings = StreamableHttpClientTransportConfig::with_uri(url)
            .max_sse_event_size(self.guards.max_result_bytes.saturating_mul(4))
            .max_concurrent_requests(config.max_concurrency.saturating_add(OTHER_REQUESTS))
            // A call that may have been executed must not be sent again; the supervisor reconnects instead.
            .reinit_on_expired_session(false);
        settings.retry_config = Arc::new(UntilClosed(closed));
        settings.custom_headers = server_headers(config)?;
        settings.auth_header = config.token.as_ref().map(|token| token.expose_secret().to_owned());
        Ok(StreamableHttpClientTransport::with_client(client, settings))
    }
}

fn stateless() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

/// rmcp accepts any version that a server names.
fn check_version(server: &str, service: &Service) -> Result<()> {
    let Some(version) = version(service.peer()) else { return Ok(()) };
    if ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version) {
        return Ok(());
    }
    let message = format!("unsupported protocol version {:?}", crate::support::truncated(&version, 40));
    Err(Error::new(ErrorKind::Protocol, format!("mcp:{server}"), message))
}
