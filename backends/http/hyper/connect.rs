//! Connecting: name lookup, TCP, the proxy, TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use ::http::{HeaderValue, Method, Request, Uri};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::errors::from_hyper;
use crate::backends::http::errors::{
    COMPONENT, RequestPhase, connect_timeout, dns_error, error, io_error, proxy_error,
};
use crate::backends::http::settings::{self, Settings, invalid_proxy, port};
use crate::http::check_public_addresses;
use crate::{Deadline, ErrorKind, Result};

/// A socket, or TLS over one.
pub(super) type Io = Box<dyn Stream>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a server is reached.
pub(super) struct Route {
    pub(super) proxy: Option<Arc<Proxy>>,
    /// Whether private addresses are refused.
    pub(super) deny_private: bool,
}

/// The proxy of `http.proxy`.
pub(super) struct Proxy {
    uri: Uri,
    /// The value of `proxy-authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    pub(super) fn parse(url: &SecretString) -> Result<Self> {
        let uri: Uri = url.expose_secret().parse().map_err(|_| invalid_proxy())?;
        let authority = uri.authority().ok_or_else(invalid_proxy)?.as_str();
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid_proxy());
        }
        let authorization =
            authority.rsplit_once('@').map(|(credentials, _)| basic(credentials)).transpose()?;
        Ok(Self { uri, authorization })
    }

    fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// The error of a response of the proxy itself to a plain request.
    pub(super) fn rejection(&self, status: ::http::StatusCode) -> crate::Error {
        proxy_error(status.as_u16(), self.has_credentials())
    }
}

fn basic(credentials: &str) -> Result<HeaderValue> {
    let decoded = |text| percent_decode_str(text).decode_utf8().map_err(|_| invalid_proxy());
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let credentials = format!("{}:{}", decoded(user)?, decoded(password)?);
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).map_err(|_| invalid_proxy())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Connects to the server of `uri`, or to the proxy that leads there, within `http.connect_timeout`.
///
/// # Errors
/// As [`HttpTransport::send`](crate::http::HttpTransport::send), each of them not sent.
pub(super) async fn connect(uri: &Uri, route: &Route, settings: &Settings) -> Result<Io> {
    let deadline = Deadline::after(settings.connect_timeout);
    let connecting = async {
        let Some(proxy) = route.proxy.as_deref() else {
            return secured(tcp(uri, route.deny_private, deadline).await?, uri, settings).await;
        };
        // The proxy resolves the name by itself.
        let io = tcp(&proxy.uri, false, deadline).await?;
        let io = secured(io, &proxy.uri, settings).await?;
        if uri.scheme_str() != Some("https") {
            return Ok(io);
        }
        secured(tunnel(io, uri, proxy).await?, uri, settings).await
    };
    let connected = tokio::time::timeout_at(deadline.instant(), connecting).await;
    connected.unwrap_or_else(|_| Err(connect_timeout())).map_err(crate::Error::not_sent)
}

async fn tcp(uri: &Uri, deny_private: bool, deadline: Deadline) -> Result<Io> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, port(uri))).await.map_err(|_| dns_error())?;
    let addresses: Vec<SocketAddr> = found.collect();
    if deny_private {
        check_public_addresses(COMPONENT, addresses.iter().map(SocketAddr::ip))?;
    }
    let stream = connect_to_any(&addresses, deadline).await?;
    // Not worth failing for.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

/// Tries the addresses of a host in turn. Each but the last gets half of the time that is left.
async fn connect_to_any(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpStream> {
    let mut failed = dns_error();
    for (n, address) in addresses.iter().enumerate() {
        let is_last = n + 1 == addresses.len();
        let budget = if is_last { deadline.remaining() } else { deadline.remaining() / 2 };
        match tokio::time::timeout(budget, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(cause)) => failed = io_error(cause, RequestPhase::Connecting),
            Err(_) => failed = connect_timeout(),
        }
    }
    Err(failed)
}

/// TLS, where the URL asks for it.
async fn secured(io: Io, uri: &Uri, settings: &Settings) -> Result<Io> {
    if uri.scheme_str() != Some("https") {
        return Ok(io);
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|_| dns_error())?;
    let tls = TlsConnector::from(tls_config(settings).await);
    let stream = tls.connect(name, io).await.map_err(|cause| io_error(cause, RequestPhase::Connecting))?;
    Ok(Box::new(stream))
}

async fn tls_config(settings: &Settings) -> Arc<rustls::ClientConfig> {
    match settings.tls.loaded() {
        Some(config) => config,
        // Reads files: once, and so briefly that no thread is set aside for it.
        None => settings.tls.config(),
    }
}

/// Has the proxy open a tunnel to the server.
async fn tunnel(io: Io, uri: &Uri, proxy: &Proxy) -> Result<Io> {
    let target = format!("{}:{}", uri.host().unwrap_or_default(), port(uri));
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(HOST, &target)
        .header(USER_AGENT, settings::USER_AGENT)
        .body(Empty::<Bytes>::new())
        .map_err(|_| error(ErrorKind::InvalidInput, "invalid URL"))?;
    if let Some(authorization) = &proxy.authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    let lost = |cause| from_hyper(cause, RequestPhase::Connecting);
    let (mut sender, mut connection) = http1::handshake(TokioIo::new(io)).await.map_err(lost)?;
    let sending = sender.send_request(request);
    tokio::pin!(sending);
    let answered = tokio::select! {
        biased;
        response = &mut sending => response,
        // It has ended, and with it the request.
        _ = &mut connection => sending.await,
    };
    let status = answered.map_err(lost)?.status();
    if !status.is_success() {
        return Err(proxy_error(status.as_u16(), proxy.has_credentials()));
    }
    let parts = connection.without_shutdown().await.map_err(lost)?;
    if !parts.read_buf.is_empty() {
        return Err(error(ErrorKind::Protocol, "the proxy sent data before the tunnel was used"));
    }
    Ok(parts.io.into_inner())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_addresses_of_a_host_are_tried_in_turn() {
        let refused = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let refused_address = refused.local_addr().expect("bound");
        drop(refused);
        let server = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = server.local_addr().expect("bound");
        let deadline = Deadline::after(Duration::from_secs(20));
        let stream = connect_to_any(&[refused_address, address], deadline).await.expect("the second address");
        assert_eq!(stream.peer_addr().expect("connected"), address);
        let error = connect_to_any(&[refused_address; 2], deadline).await.expect_err("both are refused");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn credentials_are_decoded_and_an_invalid_proxy_does_not_repeat_them() {
        let proxy = Proxy::parse(&"http://us%40er:p%23ss@proxy:3128".into()).expect("a proxy");
        // us@er:p#ss
        assert_eq!(proxy.authorization.expect("credentials"), "Basic dXNAZXI6cCNzcw==");
        let error = Proxy::parse(&"gopher://user:hunter2@proxy".into()).err().expect("not a proxy");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
