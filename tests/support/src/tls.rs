//! A certificate authority of the test's own.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Where an authority and the certificates it gave a server and a client lie, in PEM.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_certificate: PathBuf,
    pub(crate) client_key: PathBuf,
}

impl Certificates {
    /// Makes a new authority, a certificate for `localhost` and `127.0.0.1`, and one for a client.
    pub(crate) fn make(folder: &Path) -> Self {
        Self::try_make(folder).expect("certificates can be made")
    }

    fn try_make(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let made = Self {
            authority: folder.join("authority.pem"),
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            client_certificate: folder.join("client.pem"),
            client_key: folder.join("client.key"),
        };
        let (params, key) = (authority()?, KeyPair::generate()?);
        fs::write(&made.authority, params.self_signed(&key)?.pem())?;
        let authority = Issuer::new(params, key);

        let key = KeyPair::generate()?;
        fs::write(&made.certificate, server()?.signed_by(&key, &authority)?.pem())?;
        fs::write(&made.key, key.serialize_pem())?;

        let key = KeyPair::generate()?;
        fs::write(&made.client_certificate, client()?.signed_by(&key, &authority)?.pem())?;
        fs::write(&made.client_key, key.serialize_pem())?;
        Ok(made)
    }
}

fn authority() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "arshai test authority");
    Ok(params)
}

fn server() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, "arshai test server");
    Ok(params)
}

fn client() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["client.internal".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, "arshai test client");
    Ok(params)
}
