//! Host names, looked up once in a while instead of on every request.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use ::ureq::config::Config;
use ::ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::{NextTimeout, time};
use parking_lot::Mutex;

use crate::Clock;

/// How long an answer is used. Short, because the system does not tell the answer's own time to live.
const KEEP: Duration = Duration::from_secs(30);

/// The most names kept; a service talks to a handful.
const MAX_NAMES: usize = 64;

/// Addresses of hosts, by host and port.
pub(super) struct Names {
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, (Duration, ResolvedSocketAddrs)>>,
}

impl Names {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    pub(super) fn known(&self, uri: &Uri) -> Option<ResolvedSocketAddrs> {
        let now = self.clock.now();
        let known = self.known.lock();
        let (looked_up, addresses) = known.get(uri.authority()?.as_str())?;
        (now.saturating_sub(*looked_up) < KEEP).then(|| addresses.clone())
    }

    /// Asks the system, on this thread: with a timeout ureq would start a thread for each lookup.
    pub(super) fn look_up(&self, uri: &Uri, config: &Config) -> Result<ResolvedSocketAddrs, ::ureq::Error> {
        let no_timeout = NextTimeout { after: time::Duration::NotHappening, ..NextTimeout::default() };
        let addresses = DefaultResolver::default().resolve(uri, config, no_timeout)?;
        if let Some(authority) = uri.authority() {
            let now = self.clock.now();
            let mut known = self.known.lock();
            if known.len() >= MAX_NAMES {
                known.retain(|_, (looked_up, _)| now.saturating_sub(*looked_up) < KEEP);
            }
            if known.len() < MAX_NAMES {
                known.insert(authority.to_string(), (now, addresses.clone()));
            }
        }
        Ok(addresses)
    }

    /// Drops what is known of a host that could not be reached: it may have moved.
    pub(super) fn forget(&self, uri: &Uri) {
        if let Some(authority) = uri.authority() {
            self.known.lock().remove(authority.as_str());
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
