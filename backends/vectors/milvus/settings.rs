//! The settings of the connection.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::COMPONENT;
use crate::support::opaque_debug;
use crate::{Config, Error, ErrorKind, Result};

/// Silence of a connection with running requests after which the server is probed, and how long it may take to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Settings {
    endpoint: Endpoint,
    tls: bool,
    ca_file: Option<String>,
    headers: Headers,
    pub(super) request_timeout: Duration,
    pub(super) load_timeout: Duration,
    pub(super) batch_size: usize,
    pub(super) max_pending_requests: usize,
    pub(super) max_response_bytes: usize,
    pub(super) python_floats: bool,
}

impl Settings {
    /// # Errors
    /// [`ErrorKind::Config`] for an invalid host, database or token. A token is never echoed.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let milvus = &config.milvus;
        let scheme = if milvus.tls { "https" } else { "http" };
        // The address of IPv6 in a URL has brackets.
        let host = match milvus.host.as_str() {
            host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
            host => host.to_owned(),
        };
        let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#']);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{}", milvus.port)).ok();
        let endpoint = endpoint.filter(|_| is_host).ok_or_else(|| {
            let message =
                format!("invalid milvus.host (MILVUS_HOST) = {host:?}; expected e.g. milvus.internal");
            Error::new(ErrorKind::Config, COMPONENT, message)
        })?;
        let endpoint = endpoint
            .connect_timeout(milvus.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        Ok(Self {
            endpoint,
            tls: milvus.tls,
            ca_file: milvus.ca_file.clone(),
            headers: Headers::new(config)?,
            request_timeout: milvus.request_timeout,
            load_timeout: milvus.load_timeout,
            batch_size: milvus.batch_size,
            max_pending_requests: milvus.max_pending_requests,
            max_response_bytes: milvus.max_response_bytes,
            python_floats: milvus.python_floats,
        })
    }

    pub(super) fn headers(&self) -> Headers {
        self.headers.clone()
    }

    /// The endpoint, with the certificates that it trusts.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for certificates that cannot be read.
    pub(super) fn endpoint(&self) -> Result<Endpoint> {
        if !self.tls {
            return Ok(self.endpoint.clone());
        }
        let bad_certificates = |cause: Box<dyn std::error::Error + Send + Sync>| {
            let message = match &self.ca_file {
                Some(path) => format!("no readable PEM certificates in milvus.ca_file = {path:?}"),
                None => "no root certificates found; set milvus.ca_file to a PEM file".to_owned(),
            };
            Error::new(ErrorKind::Config, COMPONENT, message).with_source(cause).not_sent()
        };
        let tls = match &self.ca_file {
            Some(path) => {
                let pem = std::fs::read(path).map_err(|cause| bad_certificates(cause.into()))?;
                if !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") {
                    return Err(bad_certificates("no certificate in it".into()));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        self.endpoint.clone().tls_config(tls).map_err(|cause| bad_certificates(cause.into()))
    }
}

// Without the token.
opaque_debug!(Settings(self) { uri: self.endpoint.uri() });

/// The headers of every request: database and token.
#[derive(Clone)]
pub(super) struct Headers {
    database: MetadataValue<Ascii>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Headers {
    fn new(config: &Config) -> Result<Self> {
        let database = config.milvus.db_name.parse().map_err(|_| {
            let message = "invalid milvus.db_name (MILVUS_DB_NAME): expected the name of a database";
            Error::new(ErrorKind::Config, COMPONENT, message)
        })?;
        let authorization = config.milvus.token.as_ref().map(|token| {
            let mut value: MetadataValue<Ascii> =
                BASE64_STANDARD.encode(token.expose_secret()).parse().expect("base64 is valid in a header");
            value.set_sensitive(true);
            value
        });
        Ok(Self { database, authorization })
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("dbname", self.database.clone());
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut crate::config::MilvusConfig)) -> Result<Settings> {
        let mut config = Config::default();
        change(&mut config.milvus);
        Settings::new(&config)
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        for host in ["localhost", "milvus.internal", "10.0.0.1", "::1", "[::1]"] {
            settings(|milvus| milvus.host = host.into()).expect(host);
        }
        for host in ["", "http://localhost", "user:hunter2@host", "a b", "a/b"] {
            let error = settings(|milvus| milvus.host = host.into()).expect_err(host);
            assert_eq!(error.kind(), ErrorKind::Config, "{host}");
        }
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let settings = settings(|milvus| milvus.token = Some("root:hunter2".into())).expect("valid");
        assert!(!format!("{settings:?}").contains("hunter2"));
        let request = settings.headers().call(Request::new(())).expect("headers");
        let header = request.metadata().get("authorization").expect("a token");
        assert_eq!(header.to_str().expect("ascii"), "cm9vdDpodW50ZXIy");
        assert!(!format!("{request:?}").contains("cm9vdDpodW50ZXIy"));
    }

    #[test]
    fn a_file_without_certificates_is_rejected() {
        for path in ["/dev/null", "/nonexistent.pem"] {
            let settings = settings(|milvus| {
                milvus.tls = true;
                milvus.ca_file = Some(path.into());
            });
            let error = settings.expect("read when it connects").endpoint().expect_err(path);
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }
}
