//! Settings of the transport.

use std::time::Duration;

use ::http::Request;
use ::ureq::Proxy;
use secrecy::ExposeSecret;

use super::COMPONENT;
use super::errors::error;
use crate::config::Config;
use crate::http::checked_origin;
use crate::support::ResizableSemaphore;
use crate::{ErrorKind, Result};

/// Size of ureq's input and of its output buffer, which each connection keeps. By default 128 KiB each.
const BUFFER_BYTES: usize = 16 << 10;

pub(super) struct Settings {
    pub(super) max_connections: usize,
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_waiting: usize,
    pub(super) pool_timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) max_body_bytes: u64,
    insecure_hosts: Vec<String>,
    agent: ::ureq::config::Config,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (http, pool) = (&config.http, &config.pool);
        let proxy = http.proxy.as_ref().map(|url| Proxy::new(url.expose_secret())).transpose();
        // The cause is left out: it could repeat the URL, which may hold a password.
        let proxy = proxy.map_err(|_| {
            let message = "invalid http.proxy URL; expected e.g. http://proxy.internal:3128";
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
            .max_idle_age(pool.idle_timeout)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            // A full input buffer without the end of the headers would read as a lost connection.
            .max_response_header_size(BUFFER_BYTES - 1)
            .build();
        Ok(Self {
            max_connections: pool.max_connections,
            max_idle: pool.max_idle,
            idle_timeout: pool.idle_timeout,
            max_waiting: http.max_waiting,
            pool_timeout: http.pool_timeout,
            total_timeout: http.total_timeout,
            max_body_bytes: http.max_body_bytes,
            insecure_hosts: http.insecure_hosts.clone(),
            agent,
        })
    }

    /// With the queue of Python arshai: unlimited, both in length and in time.
    pub(super) fn with_unlimited_queue(self) -> Self {
        Self { max_waiting: ResizableSemaphore::MAX, pool_timeout: Duration::MAX, ..self }
    }

    /// The configuration of each agent.
    pub(super) fn agent(&self) -> ::ureq::config::Config {
        self.agent.clone()
    }

    /// The origin of a request that can be sent.
    pub(super) fn checked_origin<T>(&self, request: &Request<T>) -> Result<String> {
        let longest_header =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).max();
        let url = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        // ureq writes each line of the head into the output buffer as a whole.
        if url.max(longest_header.unwrap_or_default()) > BUFFER_BYTES - 100 {
            let message = "URL or header exceeds the size limit";
            return Err(error(ErrorKind::TooLarge, message)
                .with_context("limit", BUFFER_BYTES - 100)
                .not_sent());
        }
        checked_origin(COMPONENT, request.uri(), &self.insecure_hosts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_proxy_is_named_without_its_password() {
        let mut config = Config::default();
        config.http.proxy = Some("gopher://user:hunter2@proxy".into());
        let error = Settings::new(&config).err().expect("not a proxy");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
