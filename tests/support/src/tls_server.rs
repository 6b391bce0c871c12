//! A server that speaks TLS and that nobody has a reason to trust.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::tls::Certificates;

/// A server on loopback whose certificate, for `localhost` and `127.0.0.1`, comes from an authority that no system
/// knows. It answers nothing, and counts the bytes that clients tell it all the same.
#[derive(Debug)]
pub struct TlsServer {
    address: SocketAddr,
    told: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl TlsServer {
    /// Starts the server.
    ///
    /// # Panics
    ///
    /// When no certificate can be made.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = Arc::new(config(&Certificates::make(folder.path())));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let (told, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&told), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let connection =
                    ServerConnection::new(Arc::clone(&config)).expect("the configuration is valid");
                count.fetch_add(listen(connection, stream), Ordering::SeqCst);
            }
        });
        Self { address, told, stop }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://{}/", self.address)
    }

    /// The bytes that clients have told it within TLS.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

/// The bytes that a client tells until it hangs up.
fn listen(connection: ServerConnection, stream: TcpStream) -> usize {
    // No client of a test is silent for longer.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut tls = StreamOwned::new(connection, stream);
    let mut told = 0;
    let mut buffer = [0; 1024];
    // A client that does not trust the certificate ends this with an error.
    while let Ok(read @ 1..) = tls.read(&mut buffer) {
        told += read;
    }
    told
}

fn config(certificates: &Certificates) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(&certificates.certificate).expect("it was just made");
    let key = PrivateKeyDer::from_pem_file(&certificates.key).expect("it was just made");
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is the certificate's")
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}
