//! What the transport was told, and which URLs it accepts.

use std::net::IpAddr;
use std::time::Duration;

use ::http::Uri;
use ::ureq::Proxy;
use secrecy::ExposeSecret;

use super::errors::error;
use crate::config::Config;
use crate::support::ResizableSemaphore;
use crate::{ErrorKind, Result};

/// What the transport was told.
pub(super) struct Settings {
    pub(super) max_connections: usize,
    pub(super) max_idle: usize,
    pub(super) max_waiting: usize,
    pub(super) pool_timeout: Option<Duration>,
    pub(super) total_timeout: Duration,
    pub(super) max_body_bytes: u64,
    insecure_hosts: Vec<String>,
    agent: ::ureq::config::Config,
    idle_timeout: Duration,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (http, pool) = (&config.http, &config.pool);
        let proxy = http.proxy.as_ref().map(|url| Proxy::new(url.expose_secret())).transpose();
        // The cause is left out: it could repeat the URL, which may hold a password.
        let proxy = proxy.map_err(|_| {
            let message = "http.proxy is not a proxy's URL; expected for example http://proxy.internal:3128";
            error(ErrorKind::Config, message)
        })?;
        let agent = ::ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .timeout_connect(Some(http.connect_timeout))
            .timeout_per_read(Some(http.read_timeout))
            .timeout_per_write(Some(http.write_timeout))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .build();
        Ok(Self {
            max_connections: pool.max_connections,
            max_idle: pool.max_idle,
            max_waiting: http.max_waiting,
            pool_timeout: Some(http.pool_timeout),
            total_timeout: http.total_timeout,
            max_body_bytes: http.max_body_bytes,
            insecure_hosts: http.insecure_hosts.clone(),
            agent,
            idle_timeout: pool.idle_timeout,
        })
    }

    /// Without a limit of waiting requests or of their wait, as in Python arshai.
    pub(super) fn legacy(self) -> Self {
        Self { max_waiting: ResizableSemaphore::MAX, pool_timeout: None, ..self }
    }

    /// Whether this is the pool that Python arshai has.
    pub(super) fn is_legacy(&self) -> bool {
        self.pool_timeout.is_none()
    }

    /// How long a connection may be idle and still be used again.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// The configuration of each agent.
    pub(super) fn agent(&self) -> ::ureq::config::Config {
        self.agent.clone()
    }

    /// Scheme, host and port of a URL that may be asked.
    pub(super) fn origin_of(&self, uri: &Uri) -> Result<String> {
        let invalid = |message: String| Err(error(ErrorKind::InvalidInput, message));
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return invalid("the URL has no scheme or host; expected for example https://host/path".into());
        };
        if authority.as_str().contains('@') {
            return invalid("the URL holds credentials; send them in a header".into());
        }
        let host = authority.host();
        match scheme {
            "https" => {}
            "http" if is_loopback(host) || self.is_insecure(host) => {}
            "http" => {
                return invalid(format!(
                    "plain http to {host} is refused; use https, or add the host to http.insecure_hosts"
                ));
            }
            _ => return invalid(format!("the scheme {scheme:?} is not http or https")),
        }
        Ok(format!("{scheme}://{authority}"))
    }

    fn is_insecure(&self, host: &str) -> bool {
        self.insecure_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &'static str) -> Result<String> {
        let mut config = Config::default();
        config.http.insecure_hosts = vec!["model.internal".into()];
        Settings::new(&config)?.origin_of(&Uri::from_static(url))
    }

    #[test]
    fn plain_http_goes_to_loopback_and_to_allowed_hosts_only() {
        for url in
            ["http://localhost:1/v1", "http://127.9.9.9/", "http://[::1]:80/", "http://Model.Internal/"]
        {
            assert!(origin(url).is_ok(), "{url}");
        }
        for url in
            ["http://example.com/", "http://localhost.evil.com/", "http://10.0.0.1/", "ftp://localhost/"]
        {
            assert_eq!(origin(url).expect_err(url).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_repeating_it() {
        let error = origin("https://user:hunter2@example.com/").expect_err("credentials");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_password() {
        let mut config = Config::default();
        config.http.proxy = Some("gopher://user:hunter2@proxy".into());
        let error = Settings::new(&config).err().expect("not a proxy");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
