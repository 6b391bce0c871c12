//! TLS settings of both transports.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::errors::error;
use crate::config::HttpConfig;
use crate::{ErrorKind, Result};

/// Trusted authorities and client identity of connections.
///
/// They trust the system's certificates and those of `http.ca_file`; where there are none at all, as in a container
/// without the package `ca-certificates`, Mozilla's.
pub(super) struct Tls {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<Identity>,
    /// Made for the first connection that needs it: it reads the system's certificates.
    config: OnceLock<Arc<ClientConfig>>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read or used, naming its key.
    pub(super) fn new(http: &HttpConfig) -> Result<Self> {
        let authorities =
            http.ca_file.as_deref().map(|path| certificates("http.ca_file", path)).transpose()?;
        let client = match (&http.client_cert, &http.client_key) {
            (None, None) => None,
            (Some(chain), Some(key)) => Some(Identity::read(chain, key)?),
            (Some(_), None) => return Err(config_error("http.client_cert needs http.client_key")),
            (None, Some(_)) => return Err(config_error("http.client_key needs http.client_cert")),
        };
        Ok(Self { authorities: authorities.unwrap_or_default(), client, config: OnceLock::new() })
    }

    /// The configuration, if it was made already.
    #[cfg(feature = "hyper")]
    pub(super) fn loaded(&self) -> Option<Arc<ClientConfig>> {
        self.config.get().cloned()
    }

    /// The configuration. The first call reads the system's certificates, which blocks.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.config.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots.add_parsable_certificates(self.authorities.iter().cloned());
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            let client = self.client.as_ref();
            Arc::new(client_config(roots, client).expect("the identity was accepted when it was read"))
        }))
    }
}

impl Identity {
    fn read(chain_path: &str, key_path: &str) -> Result<Self> {
        let chain = certificates("http.client_cert", chain_path)?;
        let key = PrivateKeyDer::from_pem_file(key_path).map_err(|cause| {
            file_error("http.client_key", key_path, "a private key (PEM)").with_source(cause)
        })?;
        let identity = Self { chain, key };
        client_config(RootCertStore::empty(), Some(&identity)).map_err(|cause| {
            config_error("http.client_key is not the key of http.client_cert, or of an unsupported kind")
                .with_source(cause)
        })?;
        Ok(identity)
    }
}

fn client_config(
    roots: RootCertStore,
    client: Option<&Identity>,
) -> std::result::Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match client {
        Some(client) => builder.with_client_auth_cert(client.chain.clone(), client.key.clone_key()),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The certificates of a file: at least one, each valid.
fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let expected = "a file of certificates (PEM)";
    let read =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = read.map_err(|cause| file_error(key, path, expected).with_source(cause))?;
    let (valid, invalid) = RootCertStore::empty().add_parsable_certificates(certificates.iter().cloned());
    if valid == 0 || invalid > 0 {
        let cause = io::Error::other(format!("{valid} valid and {invalid} invalid certificates"));
        return Err(file_error(key, path, expected).with_source(cause));
    }
    Ok(certificates)
}

fn file_error(key: &'static str, path: &str, expected: &str) -> crate::Error {
    config_error(format!("{key}: {path} is not {expected}"))
}

fn config_error(message: impl Into<std::borrow::Cow<'static, str>>) -> crate::Error {
    error(ErrorKind::Config, message)
}
