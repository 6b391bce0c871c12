//! A ureq agent with at most one connection.

use std::sync::Arc;

use ::ureq::{Agent, Proxy};
use secrecy::ExposeSecret;

use super::connector::{CachingResolver, ConnectorChain, PhaseTrackingConnector, connector_chain};
use super::dns_cache::DnsCache;
use crate::backends::http::connection_pool::PooledConnection;
use crate::backends::http::errors::{AtomicRequestPhase, RequestPhase};
use crate::backends::http::settings::{MAX_HEAD_BYTES, Settings, USER_AGENT, invalid_proxy};
use crate::{Clock, Result};

/// An agent for one origin.
pub(in crate::backends::http) struct PooledAgent {
    pub(super) agent: Agent,
    phase: Arc<AtomicRequestPhase>,
}

impl PooledConnection for PooledAgent {
    type Abort = Box<dyn Fn() + Send + Sync>;

    fn abort_handle(&self) -> Self::Abort {
        let agent = self.agent.clone();
        Box::new(move || agent.clone().shutdown())
    }

    fn phase(&self) -> &Arc<AtomicRequestPhase> {
        &self.phase
    }
}

/// Makes agents.
pub(super) struct AgentFactory {
    settings: Arc<Settings>,
    direct: ::ureq::config::Config,
    proxied: ::ureq::config::Config,
    connector: Arc<ConnectorChain>,
    dns: Arc<DnsCache>,
}

impl AgentFactory {
    /// # Errors
    /// `Config` for an invalid `http.proxy`.
    pub(super) fn new(settings: &Arc<Settings>, clock: Arc<dyn Clock>) -> Result<Self> {
        let proxy = settings.proxy.as_ref().map(|url| Proxy::new(url.expose_secret()));
        let proxy = proxy.transpose().map_err(|_| invalid_proxy())?;
        let config = |proxy| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(USER_AGENT)
                .proxy(proxy)
                .timeout_connect(Some(settings.connect_timeout))
                .timeout_per_read(Some(settings.read_timeout))
                .timeout_per_write(Some(settings.write_timeout))
                .max_idle_connections(1)
                .max_idle_connections_per_host(1)
                .max_idle_age(settings.idle_timeout)
                // Each connection keeps both, by default of 128 KiB.
                .input_buffer_size(MAX_HEAD_BYTES)
                .output_buffer_size(MAX_HEAD_BYTES)
                // A full input buffer without the end of the headers would read as a lost connection.
                .max_response_header_size(MAX_HEAD_BYTES - 1)
                .build()
        };
        Ok(Self {
            settings: Arc::clone(settings),
            direct: config(None),
            proxied: config(proxy),
            connector: connector_chain(Arc::clone(settings)),
            dns: Arc::new(DnsCache::new(clock)),
        })
    }

    pub(super) fn agent(&self, uri: &::http::Uri, deny_private: bool) -> PooledAgent {
        let is_proxied = self.settings.is_proxied(uri);
        let phase = Arc::new(AtomicRequestPhase::new(RequestPhase::Connecting));
        let connector = PhaseTrackingConnector {
            chain: Arc::clone(&self.connector),
            dns: Arc::clone(&self.dns),
            phase: Arc::clone(&phase),
            first_byte_timeout: self.settings.first_byte_timeout,
            is_proxied,
            deny_private,
        };
        let resolver = CachingResolver { dns: Arc::clone(&self.dns), phase: Arc::clone(&phase) };
        let config = if is_proxied { &self.proxied } else { &self.direct };
        PooledAgent { agent: Agent::with_parts(config.clone(), connector, resolver), phase }
    }
}
