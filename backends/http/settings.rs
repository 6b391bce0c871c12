//! Settings of both transports.

use std::time::Duration;

use ::http::{Request, Uri};
use secrecy::SecretString;

use super::errors::{COMPONENT, error};
use super::tls::Tls;
use crate::config::Config;
use crate::http::{HostPatterns, checked_origin, is_loopback};
#[cfg(feature = "ureq")]
use crate::support::ResizableSemaphore;
use crate::{ErrorKind, Result};

/// Maximum size of a response's headers in all, and of each request header.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;

/// The `user-agent` of requests that set none.
pub(super) const USER_AGENT: &str = concat!("arshai/", env!("CARGO_PKG_VERSION"));

pub(super) struct Settings {
    pub(super) max_connections: usize,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_waiting: usize,
    pub(super) pool_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) first_byte_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) max_body_bytes: u64,
    pub(super) proxy: Option<SecretString>,
    pub(super) tls: Tls,
    insecure_hosts: Vec<String>,
    no_proxy: HostPatterns,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (http, pool) = (&config.http, &config.pool);
        HostPatterns::parse("http.insecure_hosts", &http.insecure_hosts)?;
        Ok(Self {
            max_connections: pool.max_connections,
            max_idle: pool.max_idle,
            idle_timeout: pool.idle_timeout,
            max_waiting: http.max_waiting,
            pool_timeout: http.pool_timeout,
            connect_timeout: http.connect_timeout,
            write_timeout: http.write_timeout,
            first_byte_timeout: http.first_byte_timeout,
            read_timeout: http.read_timeout,
            total_timeout: http.total_timeout,
            max_body_bytes: http.max_body_bytes,
            proxy: http.proxy.clone(),
            tls: Tls::new(http)?,
            insecure_hosts: http.insecure_hosts.clone(),
            no_proxy: HostPatterns::parse("http.no_proxy", &http.no_proxy)?,
        })
    }

    /// With the queue of Python arshai: unlimited, both in length and in time.
    #[cfg(feature = "ureq")]
    pub(super) fn with_unlimited_queue(self) -> Self {
        Self { max_waiting: ResizableSemaphore::MAX, pool_timeout: Duration::MAX, ..self }
    }

    /// The origin of a request that can be sent.
    pub(super) fn checked_origin<T>(&self, request: &Request<T>) -> Result<String> {
        let longest_header =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).max();
        let url = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        // ureq writes each line of the head into the output buffer as a whole.
        let limit = MAX_HEAD_BYTES - 100;
        if url.max(longest_header.unwrap_or_default()) > limit {
            let message = "URL or header exceeds the size limit";
            return Err(error(ErrorKind::TooLarge, message).with_context("limit", limit).not_sent());
        }
        checked_origin(COMPONENT, request.uri(), &self.insecure_hosts)
    }

    /// Whether this URL is requested through the proxy.
    pub(super) fn is_proxied(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default();
        self.proxy.is_some() && !is_loopback(host) && !self.no_proxy.matches(host, port(uri))
    }

    #[cfg(feature = "ureq")]
    pub(super) fn has_proxy_credentials(&self) -> bool {
        use secrecy::ExposeSecret as _;

        self.proxy.as_ref().is_some_and(|url| url.expose_secret().contains('@'))
    }
}

/// The invalid proxy, without its cause: that could repeat the URL, which may hold a password.
pub(super) fn invalid_proxy() -> crate::Error {
    error(ErrorKind::Config, "invalid http.proxy URL; expected e.g. http://proxy.internal:3128")
}

/// The port of a URL.
pub(super) fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}
