//! ureq's connector and resolver, recording the phase of the request.

use std::sync::Arc;
use std::time::Duration;

use ::ureq::Error;
use ::ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};

use super::dns_cache::DnsCache;
use super::tls::TlsConnector;
use crate::backends::http::errors::{AtomicRequestPhase, COMPONENT, RequestPhase};
use crate::backends::http::settings::{MAX_HEAD_BYTES, Settings};
use crate::http::check_public_addresses;
use crate::support::opaque_debug;

/// Through the proxy if the agent has one, else directly; then TLS.
pub(super) type ConnectorChain = dyn Connector<(), Out = Box<dyn Transport>>;

pub(super) fn connector_chain(settings: Arc<Settings>) -> Arc<ConnectorChain> {
    let tcp = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    Arc::new(tcp.chain(TlsConnector(settings)))
}

/// Connects an agent.
pub(super) struct PhaseTrackingConnector {
    pub(super) chain: Arc<ConnectorChain>,
    pub(super) dns: Arc<DnsCache>,
    pub(super) phase: Arc<AtomicRequestPhase>,
    pub(super) first_byte_timeout: Duration,
    pub(super) is_proxied: bool,
    /// Whether private addresses are refused. A proxy resolves names by itself.
    pub(super) deny_private: bool,
}

impl Connector for PhaseTrackingConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        self.phase.set(RequestPhase::Connecting);
        if self.deny_private && !self.is_proxied {
            check_public_addresses(COMPONENT, details.addrs.iter().map(|address| address.ip()))
                .map_err(|error| Error::Other(Box::new(error)))?;
        }
        let connected = self.chain.connect(details, chained).inspect_err(|_| self.dns.remove(details.uri))?;
        // The connection to a proxy is only the first step to the server.
        if self.is_proxied && details.config.proxy().is_none() {
            return Ok(connected);
        }
        self.phase.set(RequestPhase::Response);
        let (phase, first_byte_timeout) = (Arc::clone(&self.phase), self.first_byte_timeout.into());
        Ok(connected
            .map(|inner| PhasedTransport { inner, phase, first_byte_timeout, pending: Vec::new() }.boxed()))
    }
}

opaque_debug!(PhaseTrackingConnector {});

/// Output up to this size waits for more: the head of a request is sent together with its body.
const SMALL_OUTPUT_BYTES: usize = 1 << 10;

/// A connection whose reads have another timeout before the response than within its body, and that sends small pieces of
/// output together.
struct PhasedTransport {
    inner: Box<dyn Transport>,
    phase: Arc<AtomicRequestPhase>,
    first_byte_timeout: ::ureq::unversioned::transport::time::Duration,
    /// Output that was not sent yet.
    pending: Vec<u8>,
}

impl PhasedTransport {
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        for piece in std::mem::take(&mut self.pending).chunks(MAX_HEAD_BYTES) {
            self.inner.buffers().output()[..piece.len()].copy_from_slice(piece);
            self.inner.transmit_output(piece.len(), timeout)?;
        }
        Ok(())
    }
}

impl Transport for PhasedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.pending.extend_from_slice(&self.inner.buffers().output()[..amount]);
        if self.pending.len() > SMALL_OUTPUT_BYTES { self.flush(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        self.flush(timeout)?;
        if self.phase.get() == RequestPhase::Response {
            timeout.per_read = Some(self.first_byte_timeout);
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        // At the end of a body nothing depends on it: it is asked again before the next request.
        self.phase.get() == RequestPhase::Body || self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

opaque_debug!(PhasedTransport {});

/// Resolves names for an agent.
#[derive(Debug)]
pub(super) struct CachingResolver {
    pub(super) dns: Arc<DnsCache>,
    pub(super) phase: Arc<AtomicRequestPhase>,
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &::http::Uri,
        config: &::ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if let Some(addresses) = self.dns.get(uri) {
            return Ok(addresses);
        }
        self.phase.set(RequestPhase::Connecting);
        let addresses = self.dns.resolve(uri, config)?;
        self.phase.set(RequestPhase::Response);
        Ok(addresses)
    }
}
