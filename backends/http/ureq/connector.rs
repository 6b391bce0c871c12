//! ureq's connector and resolver, recording the phase of the request.

use std::fmt;
use std::sync::Arc;

use ::ureq::Error;
use ::ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::{
    ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

use super::COMPONENT;
use super::dns_cache::DnsCache;
use super::errors::{AtomicRequestPhase, RequestPhase};
use crate::http::check_public_addresses;

/// Connects an agent.
pub(super) struct PhaseTrackingConnector {
    pub(super) connector: Arc<DefaultConnector>,
    pub(super) dns: Arc<DnsCache>,
    pub(super) phase: Arc<AtomicRequestPhase>,
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
        if self.deny_private && details.config.proxy().is_none() {
            check_public_addresses(COMPONENT, details.addrs.iter().map(|address| address.ip()))
                .map_err(|error| Error::Other(Box::new(error)))?;
        }
        let connected = self.connector.connect(details, chained);
        match connected {
            Ok(_) => self.phase.set(RequestPhase::Response),
            Err(_) => self.dns.remove(details.uri),
        }
        connected
    }
}

impl fmt::Debug for PhaseTrackingConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhaseTrackingConnector")
    }
}

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
