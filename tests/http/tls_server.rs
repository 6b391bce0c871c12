//! Servers with certificates of an authority of the tests' own, and a proxy.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// An authority, and files of what it issued.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), folder }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `name.pem` and `name.key`, valid for `host`.
    pub(crate) fn issue(&self, name: &str, host: &str) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    /// A server that responds `hello`, with a certificate for `host`.
    pub(crate) fn serve(&self, host: &str, wants_client_certificate: bool) -> Listener {
        self.issue("server", host);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them");
        let builder = if wants_client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("roots"))
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(self.path("server.pem")).expect("just written")];
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).expect("just written");
        let config = Arc::new(builder.with_single_cert(chain, key).expect("its key"));
        Listener::start(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            while read_head(&mut stream)?.is_some() {
                stream.write_all(HELLO)?;
            }
            Ok(())
        })
    }
}

/// A thread that accepts connections, and one for each of them.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn start(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (stop, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                // An error means that the client is gone, or was refused.
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, stop }
    }

    /// A server without TLS that responds `hello`.
    pub(crate) fn plain() -> Self {
        Self::start(|mut stream| {
            while read_head(&mut stream)?.is_some() {
                stream.write_all(HELLO)?;
            }
            Ok(())
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

/// A proxy that leads every host to one server.
pub(crate) struct ProxyServer {
    pub(crate) listener: Listener,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ProxyServer {
    /// With `authorization`, it rejects requests without this header value.
    pub(crate) fn start(target: SocketAddr, authorization: Option<&'static str>) -> Self {
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        let listener = Listener::start(move |mut client| {
            let Some(head) = read_head(&mut client)? else { return Ok(()) };
            let is_authorized = authorization.is_none_or(|value| {
                head.to_ascii_lowercase().contains("\r\nproxy-authorization: ") && head.contains(value)
            });
            let is_tunnel = head.starts_with("CONNECT ");
            seen.lock().push(head);
            if !is_authorized {
                let status = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                return client.write_all(status);
            }
            if !is_tunnel {
                return client.write_all(HELLO);
            }
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            let server = TcpStream::connect(target)?;
            let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
            std::thread::spawn(move || {
                let _ = io::copy(&mut up_from, &mut up_to);
                let _ = up_to.shutdown(Shutdown::Both);
            });
            io::copy(&mut { server }, &mut client)?;
            client.shutdown(Shutdown::Both)
        });
        Self { listener, heads }
    }

    pub(crate) fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}{}", self.listener.address)
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

/// The head of a request without a body; `None` at the end of the connection.
fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
