//! Certificates: what connections trust, and how they identify themselves.

use std::error::Error as StdError;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::COMPONENT;
use crate::config::MilvusConfig;
use crate::{Error, ErrorKind, Result};

/// The files of certificates and keys. They are read for each connection, so that renewed ones are used.
pub(super) struct Tls {
    ca_file: Option<String>,
    /// A certificate chain and its key.
    client: Option<(String, String)>,
}

impl Tls {
    /// # Errors
    /// [`ErrorKind::Config`] for a client certificate without a key or without TLS, and for a key without a certificate.
    pub(super) fn new(milvus: &MilvusConfig) -> Result<Option<Self>> {
        let client = match (&milvus.client_cert, &milvus.client_key) {
            (None, None) => None,
            (Some(_), Some(_)) if !milvus.tls => {
                return Err(config_error("milvus.client_cert needs milvus.tls = true"));
            }
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(_), None) => return Err(config_error("milvus.client_cert needs milvus.client_key")),
            (None, Some(_)) => return Err(config_error("milvus.client_key needs milvus.client_cert")),
        };
        Ok(milvus.tls.then(|| Self { ca_file: milvus.ca_file.clone(), client }))
    }

    /// The endpoint with these certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a file that cannot be read or used, naming its key.
    pub(super) fn apply(&self, endpoint: Endpoint) -> Result<Endpoint> {
        let trusting = self.authorities()?;
        let anonymous = endpoint.clone().tls_config(trusting.clone()).map_err(|cause| {
            let message = match &self.ca_file {
                Some(path) => format!("milvus.ca_file: {path} is not a file of certificates (PEM)"),
                None => "no root certificates found; set milvus.ca_file to a PEM file".to_owned(),
            };
            config_error(message).with_source(cause)
        })?;
        let Some((certificate, key)) = &self.client else { return Ok(anonymous) };
        let certificate =
            read("milvus.client_cert", certificate, "a file of certificates (PEM)", "CERTIFICATE")?;
        let key = read("milvus.client_key", key, "a private key (PEM)", "PRIVATE KEY")?;
        endpoint.tls_config(trusting.identity(Identity::from_pem(certificate, key))).map_err(|cause| {
            config_error("milvus.client_key is not the key of milvus.client_cert, or of an unsupported kind")
                .with_source(cause)
        })
    }

    fn authorities(&self) -> Result<ClientTlsConfig> {
        let Some(path) = &self.ca_file else { return Ok(ClientTlsConfig::new().with_native_roots()) };
        let pem = read("milvus.ca_file", path, "a file of certificates (PEM)", "CERTIFICATE")?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }
}

/// A PEM file with a block of that label: one without any would be taken for an empty list.
fn read(setting: &str, path: &str, expected: &str, label: &str) -> Result<String> {
    let error = |cause: Box<dyn StdError + Send + Sync>| {
        config_error(format!("{setting}: {path} is not {expected}")).with_source(cause)
    };
    let pem = std::fs::read_to_string(path).map_err(|cause| error(cause.into()))?;
    let has_block = pem.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
    if has_block { Ok(pem) } else { Err(error(format!("it has no block of the label {label}").into())) }
}

fn config_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, COMPONENT, message).not_sent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(change: impl FnOnce(&mut MilvusConfig)) -> Result<Option<Tls>> {
        let mut config = crate::Config::default().milvus;
        config.tls = true;
        change(&mut config);
        Tls::new(&config)
    }

    #[test]
    fn a_client_certificate_needs_a_key_and_tls() {
        for (change, message) in [
            ((|c| c.client_cert = Some("c".into())) as fn(&mut MilvusConfig), "needs milvus.client_key"),
            (|c| c.client_key = Some("k".into()), "needs milvus.client_cert"),
            (
                |c| (c.client_cert, c.client_key, c.tls) = (Some("c".into()), Some("k".into()), false),
                "needs milvus.tls",
            ),
        ] {
            let error = tls(change).err().expect(message);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(message), "{error}");
        }
        assert!(tls(|config| config.tls = false).expect("valid").is_none());
    }

    #[test]
    fn a_file_that_cannot_be_used_names_its_setting() {
        let endpoint = || Endpoint::from_static("https://localhost:19530");
        for path in ["/dev/null", "/nonexistent.pem"] {
            let authority = tls(|config| config.ca_file = Some(path.into()));
            let authority = authority.expect("read when it connects").expect("TLS");
            let client = tls(|config| {
                (config.client_cert, config.client_key) =
                    (Some(path.into()), Some("/nonexistent.key".into()));
            });
            let client = client.expect("read when it connects").expect("TLS");
            for (tls, setting) in [(authority, "milvus.ca_file"), (client, "milvus.client_cert")] {
                let error = tls.apply(endpoint()).expect_err(path);
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.message().contains(&format!("{setting}: {path}")), "{error}");
            }
        }
    }
}
