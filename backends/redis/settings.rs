//! The fred configuration.

use std::time::Duration;

use fred::socket2::TcpKeepalive;
use fred::types::Builder;
use fred::types::config::{Config as FredConfig, ConnectionConfig, TcpConfig};
use secrecy::ExposeSecret;
use url::Url;

use super::COMPONENT;
use crate::config::RedisConfig;
use crate::support::opaque_debug;
use crate::{Config, Error, ErrorKind, Result};

/// Idle time before the operating system probes the peer.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The settings of every connection.
pub(super) struct Settings {
    config: FredConfig,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Settings {
    /// # Errors
    /// [`ErrorKind::Config`] for an invalid URL. The URL is never echoed: it may hold a password.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let redis = &config.redis;
        let url = Url::parse(redis.url.expose_secret()).map_err(|_| invalid_url_error("not a URL"))?;
        if url.scheme().starts_with("rediss") && !cfg!(feature = "redis-tls") {
            return Err(invalid_url_error(
                "rediss:// needs the cargo feature \"redis-tls\" of arshai; without it the connection would not be \
                 encrypted",
            ));
        }
        let query = |key: &str| url.query_pairs().find(|(name, _)| name == key).map(|(_, value)| value);
        if url.scheme().ends_with("-sentinel") && query("sentinelServiceName").is_none() {
            return Err(invalid_url_error("?sentinelServiceName=NAME is missing"));
        }
        // The cause is dropped: it could repeat a part of the URL.
        let mut fred = FredConfig::from_url(url.as_str()).map_err(|_| {
            invalid_url_error("malformed host, port, credentials, database or ?node=HOST:PORT")
        })?;
        // As in Python's client, ?db=1 wins over the path.
        if let Some(number) = query("db") {
            let number = number.parse().map_err(|_| invalid_url_error("?db= is not a database number"))?;
            fred.database = Some(number);
        }
        fred.fail_fast = true;
        configure_tls(&mut fred, redis)?;
        let connect_timeout = redis.connect_timeout.min(redis.command_timeout);
        Ok(Self { config: fred, connect_timeout, command_timeout: redis.command_timeout })
    }

    /// A client that is not connected.
    pub(super) fn client(&self) -> fred::clients::Client {
        // fred's own command timeout stays off: it would also end blocking commands on dedicated connections. Every
        // command has a deadline of its caller instead.
        let mut connection = ConnectionConfig::default();
        connection.connection_timeout = self.connect_timeout;
        connection.internal_command_timeout = self.connect_timeout;
        // Redirections in a cluster use up attempts. Without a reconnect policy, commands in flight on a connection
        // that breaks fail instead of being sent again.
        connection.max_command_attempts = connection.max_redirections + 1;
        connection.tcp = TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(KEEPALIVE)),
            ..TcpConfig::default()
        };
        // Where fred has it. Sent bytes that the server's host does not acknowledge break the connection, as keep-alive
        // breaks an idle one.
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        {
            connection.tcp.user_timeout = Some(self.command_timeout);
        }
        let mut builder = Builder::from_config(self.config.clone());
        builder.set_connection_config(connection);
        builder.build().expect("fred builds a client from any configuration")
    }
}

fn invalid_url_error(reason: &str) -> Error {
    let message =
        format!("invalid redis.url (REDIS_URL): {reason}; expected e.g. redis://user:password@host:6379/1");
    Error::new(ErrorKind::Config, COMPONENT, message)
}

#[cfg(not(feature = "redis-tls"))]
fn configure_tls(_: &mut FredConfig, _: &RedisConfig) -> Result<()> {
    Ok(())
}

/// Trusts the certificates of `redis.ca_file`, or those of the system.
#[cfg(feature = "redis-tls")]
fn configure_tls(fred: &mut FredConfig, redis: &RedisConfig) -> Result<()> {
    use std::sync::Arc;

    use fred::types::config::TlsConnector;
    use rustls::{
        ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject,
    };

    if fred.tls.is_none() {
        return Ok(());
    }
    let bad_file = |path: &str, cause: Box<dyn std::error::Error + Send + Sync>| {
        let message = format!("no readable PEM certificates in redis.ca_file = {path:?}");
        Error::new(ErrorKind::Config, COMPONENT, message).with_source(cause)
    };
    let mut roots = RootCertStore::empty();
    match &redis.ca_file {
        Some(path) => {
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|cause| bad_file(path, cause.into()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|cause| bad_file(path, cause.into()))?;
                roots.add(certificate).map_err(|cause| bad_file(path, cause.into()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let message = "no root certificates found; set redis.ca_file to a PEM file";
        return Err(Error::new(ErrorKind::Config, COMPONENT, message));
    }
    // Explicit, because no default provider is installed in the process.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| {
            Error::new(ErrorKind::Config, COMPONENT, "failed to configure TLS").with_source(cause)
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    fred.tls = Some(TlsConnector::from(tls).into());
    Ok(())
}

// Without the URL, which may hold a password.
opaque_debug!(Settings { connect_timeout });

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        let mut config = Config::default();
        config.redis.url = url.into();
        Settings::new(&config)
    }

    #[test]
    fn every_kind_of_url_is_accepted() {
        for url in [
            "redis://localhost:6379/1",
            "redis://:p%40ss@localhost",
            "redis://user:pass@[::1]:6380/2",
            "redis://localhost?db=3",
            "redis-cluster://a:1?node=b:2&node=c:3",
            "redis-sentinel://a:26379/1?node=b:26380&sentinelServiceName=mymaster",
        ] {
            assert!(settings(url).is_ok(), "{url}");
        }
        let database = |url| settings(url).expect("valid").config.database;
        assert_eq!(database("redis://localhost?db=3"), Some(3));
        assert_eq!(database("redis://localhost/4?db=5"), Some(5), "the query's, as in Python");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bytes_that_the_servers_host_does_not_acknowledge_break_the_connection() {
        use fred::interfaces::ClientLike as _;

        let client = settings("redis://localhost").expect("valid").client();
        let timeout = client.connection_config().tcp.user_timeout;
        assert_eq!(timeout, Some(Config::default().redis.command_timeout));
    }

    #[test]
    fn an_invalid_url_is_rejected_and_not_echoed() {
        for url in [
            "hunter2",
            "redis://u:hunter2@h/x",
            "redis://u:hunter2@h?db=hunter2",
            "redis-sentinel://u:hunter2@h",
        ] {
            let error = settings(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            let mut shown = format!("{error} {error:?}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                shown.push_str(&format!("{error} {error:?}"));
                cause = error.source();
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(!format!("{:?}", settings("redis://u:hunter2@h").expect("valid")).contains("hunter2"));
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_without_its_feature_is_rejected() {
        let error = settings("rediss://localhost").expect_err("plaintext");
        assert!(error.message().contains("redis-tls"), "{error}");
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn a_file_without_certificates_is_rejected() {
        let mut config = Config::default();
        config.redis.url = "rediss://localhost".into();
        config.redis.ca_file = Some("/dev/null".into());
        let error = Settings::new(&config).expect_err("empty");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
