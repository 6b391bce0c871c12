//! From the configuration to what the library is told.

use std::time::Duration;

use fred::socket2::TcpKeepalive;
use fred::types::config::{Config as FredConfig, ConnectionConfig, PerformanceConfig, TcpConfig};
use fred::types::{Builder, RespVersion};
use secrecy::ExposeSecret;
use url::Url;

use super::COMPONENT;
use crate::config::RedisConfig;
use crate::{Config, Error, ErrorKind, Result};

/// How long a connection may be silent before the system probes the other side.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What each connection is made with.
pub(super) struct Settings {
    config: FredConfig,
    connect_timeout: Duration,
    command_timeout: Duration,
}

impl Settings {
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that cannot be used. The URL is never repeated: it may hold a password.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let redis = &config.redis;
        let url = Url::parse(redis.url.expose_secret()).map_err(|_| refused("it is not a URL"))?;
        if url.scheme().starts_with("rediss") && !cfg!(feature = "redis-tls") {
            return Err(refused(
                "rediss:// needs the cargo feature \"redis-tls\" of arshai; without it the \
                                connection would not be encrypted",
            ));
        }
        // The cause is left out: it could repeat a part of the URL.
        let mut fred = FredConfig::from_url(url.as_str()).map_err(|error| refused(what(error.details())))?;
        if fred.database.is_none() {
            fred.database = database_in_query(&url)?;
        }
        fred.fail_fast = true;
        encrypt(&mut fred, redis)?;
        Ok(Self {
            config: fred,
            connect_timeout: redis.connect_timeout,
            command_timeout: redis.command_timeout,
        })
    }

    /// Lets Redis send more than answers (RESP3).
    pub(super) fn with_pushes(mut self) -> Self {
        self.config.version = RespVersion::RESP3;
        self
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.config.server.is_clustered()
    }

    /// A client that is not connected. It never reconnects or sends a command twice by itself: a connection
    /// that breaks is replaced whole, by those who own it.
    pub(super) fn client(&self) -> fred::clients::Client {
        let mut performance = PerformanceConfig::default();
        performance.default_command_timeout = self.command_timeout;
        performance.broadcast_channel_capacity = 4_096;
        let mut connection = ConnectionConfig::default();
        connection.connection_timeout = self.connect_timeout;
        connection.internal_command_timeout = self.command_timeout.min(self.connect_timeout);
        // Following a cluster's redirections takes attempts. What was under way on a connection that broke is
        // never sent again: without a policy for reconnecting the library answers it with an error.
        connection.max_command_attempts = connection.max_redirections + 1;
        connection.tcp = TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(KEEPALIVE)),
            ..TcpConfig::default()
        };
        let mut builder = Builder::from_config(self.config.clone());
        builder.set_performance_config(performance).set_connection_config(connection);
        builder.build().expect("a configuration is all that a client needs")
    }
}

/// Which part of the URL is wrong, from the library's error, in words that hold no part of it.
fn what(details: &str) -> &'static str {
    if details.contains("database") {
        "its path is not a database number"
    } else if details.contains("service name") || details.contains("ervice") {
        "a sentinel's URL needs ?sentinelServiceName=NAME"
    } else if details.contains("node") {
        "each ?node= must be HOST:PORT"
    } else {
        "its host, port or credentials are malformed"
    }
}

/// Python's client takes the database as `?db=1` as well.
fn database_in_query(url: &Url) -> Result<Option<u8>> {
    match url.query_pairs().find(|(name, _)| name == "db") {
        None => Ok(None),
        Some((_, number)) => number.parse().map(Some).map_err(|_| refused("?db= is not a database number")),
    }
}

fn refused(why: &str) -> Error {
    let message = format!(
        "redis.url (REDIS_URL) cannot be used: {why}; expected for example redis://user:password@host:6379/1"
    );
    Error::new(ErrorKind::Config, COMPONENT, message)
}

#[cfg(not(feature = "redis-tls"))]
fn encrypt(_: &mut FredConfig, _: &RedisConfig) -> Result<()> {
    Ok(())
}

/// TLS with the certificates of `redis.ca_file`, or else the system's.
#[cfg(feature = "redis-tls")]
fn encrypt(fred: &mut FredConfig, redis: &RedisConfig) -> Result<()> {
    use std::sync::Arc;

    use fred::types::config::TlsConnector;
    use rustls::{
        ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject,
    };

    if fred.tls.is_none() {
        return Ok(());
    }
    let bad_file = |path: &str, cause: Box<dyn std::error::Error + Send + Sync>| {
        let message =
            format!("redis.ca_file = {path:?} holds no certificates that can be read; expected PEM");
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
        let message =
            "no trusted certificates were found for rediss://; name a file of them in redis.ca_file";
        return Err(Error::new(ErrorKind::Config, COMPONENT, message));
    }
    // The provider is named, for nobody has installed one for the process.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| Error::new(ErrorKind::Config, COMPONENT, "TLS cannot be set up").with_source(cause))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    fred.tls = Some(TlsConnector::from(tls).into());
    Ok(())
}

/// Shows nothing of the URL.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("command_timeout", &self.command_timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        let mut config = Config::default();
        config.redis.url = url.into();
        Settings::new(&config)
    }

    #[test]
    fn every_kind_of_url_is_understood() {
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
        assert_eq!(settings("redis://localhost?db=3").expect("it is valid").config.database, Some(3));
    }

    #[test]
    fn a_bad_url_is_refused_without_repeating_it() {
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
        assert!(!format!("{:?}", settings("redis://u:hunter2@h").expect("it is valid")).contains("hunter2"));
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_without_its_feature_is_refused() {
        let error = settings("rediss://localhost").expect_err("it would be plaintext");
        assert!(error.message().contains("redis-tls"), "{error}");
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn a_file_without_certificates_is_refused() {
        let mut config = Config::default();
        config.redis.url = "rediss://localhost".into();
        config.redis.ca_file = Some("/dev/null".into());
        let error = Settings::new(&config).expect_err("it is empty");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
