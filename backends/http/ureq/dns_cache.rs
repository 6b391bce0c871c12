//! A DNS cache, so that names are not resolved for every request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use ::ureq::config::Config;
use ::ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::{NextTimeout, time};
use parking_lot::Mutex;

use crate::Clock;
use crate::support::opaque_debug;

/// Short, because the system's resolver does not report the TTL of the record.
const TTL: Duration = Duration::from_secs(30);

/// A service talks to a handful of hosts.
const MAX_NAMES: usize = 64;

/// Addresses of hosts, by host and port.
pub(super) struct DnsCache {
    clock: Arc<dyn Clock>,
    resolved: Mutex<HashMap<String, (Duration, ResolvedSocketAddrs)>>,
}

impl DnsCache {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, resolved: Mutex::default() }
    }

    pub(super) fn get(&self, uri: &Uri) -> Option<ResolvedSocketAddrs> {
        let now = self.clock.now();
        let resolved = self.resolved.lock();
        let (at, addresses) = resolved.get(uri.authority()?.as_str())?;
        (now.saturating_sub(*at) < TTL).then(|| addresses.clone())
    }

    /// Calls the system's resolver on this thread: with a timeout, ureq would start a thread for each lookup.
    pub(super) fn resolve(&self, uri: &Uri, config: &Config) -> Result<ResolvedSocketAddrs, ::ureq::Error> {
        let no_timeout = NextTimeout { after: time::Duration::NotHappening, ..NextTimeout::default() };
        let addresses = DefaultResolver::default().resolve(uri, config, no_timeout)?;
        if let Some(authority) = uri.authority() {
            let now = self.clock.now();
            let mut resolved = self.resolved.lock();
            if resolved.len() >= MAX_NAMES {
                resolved.retain(|_, (at, _)| now.saturating_sub(*at) < TTL);
            }
            if resolved.len() < MAX_NAMES {
                resolved.insert(authority.to_string(), (now, addresses.clone()));
            }
        }
        Ok(addresses)
    }

    /// Removes a host that could not be reached: its address may have changed.
    pub(super) fn remove(&self, uri: &Uri) {
        if let Some(authority) = uri.authority() {
            self.resolved.lock().remove(authority.as_str());
        }
    }
}

opaque_debug!(DnsCache {});
