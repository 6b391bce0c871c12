//! HTTP: the trait that model clients send their requests through.

mod hosts;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

use crate::component::Component;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::support::opaque_debug;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
pub use bytes::Bytes;
pub use hosts::{HostPatterns, is_loopback};

/// Sends requests over a bounded number of connections.
///
/// # Contract
/// - **Limits.** At most `pool.max_connections` requests are active concurrently, counted from connecting to the end
///   of the body; at most `http.max_waiting` wait for a connection, and further requests fail immediately with
///   [`ErrorKind::Capacity`]. Response bodies are limited to `http.max_body_bytes` decoded bytes. Both limits of
///   connections are reported by [`Component::limits`] under these keys; an unlimited queue reports no limit.
/// - **Deadlines.** Waiting for a connection, connecting, the silence before the response, the silence within its body
///   (so that long streams live) and the whole call have timeouts. A request with a deadline waits for a connection until that deadline; one without waits
///   for `http.pool_timeout`. The error names the step, and for the wait the setting to raise.
/// - **Any status is a response**, not an error. Redirects are not followed. Nothing is retried.
/// - **Bodies.** A body that ends early is an error; what arrived before the error is delivered first.
/// - **Cancellation.** Dropping the future, or the body before its end, closes the connection and releases its permit.
/// - **Safety.** Plain `http` is rejected unless the host is loopback or in `http.insecure_hosts`; URLs with
///   credentials are rejected ([`checked_origin`]). Header values, query strings and bodies appear in no error and in
///   no log record of arshai.
/// - **Private addresses.** A request that [denies them](HttpRequest::deny_private_addresses) fails with
///   [`ErrorKind::InvalidInput`], unsent, where its URL's host is [one](is_private_address) or has one among the addresses
///   that it resolves to when it is connected. Through a proxy, which resolves the name, only the URL is checked.
/// - **Outcome.** An error raised before anything was sent (an invalid URL, a full queue, no connection) is
///   [`NotSent`](crate::Outcome::NotSent). Later ones are [`Unknown`](crate::Outcome::Unknown).
/// - **Closing** as for every [`Component`]: a request that is aborted at the deadline fails with
///   [`ErrorKind::Closed`], as do requests sent afterwards.
#[async_trait]
pub trait HttpTransport: Component {
    /// Sends a request and waits for the response's head; the body is read from the response.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid or rejected URL, `Capacity` when the queue is full, `Timeout` naming the step,
    /// `Unavailable` when the host cannot be reached, `Transport` when bytes could not be sent or received, `Protocol`
    /// for a malformed response, `TooLarge` for response headers that exceed the transport's limit, `Closed`.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse>;

    /// A snapshot of the counters.
    fn stats(&self) -> HttpStats;
}

/// Scheme, host and port of a URL that may be requested: `https`, or `http` to loopback and to `insecure_hosts`
/// ([`HostPatterns`]). For transport implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], not repeating credentials that the URL holds; [`ErrorKind::Config`] for an entry of
/// `insecure_hosts` that is not a host.
pub fn checked_origin(component: &'static str, uri: &Uri, insecure_hosts: &[String]) -> Result<String> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, component, message).not_sent());
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return invalid("URL without scheme or host; expected e.g. https://host/path".into());
    };
    if authority.as_str().contains('@') {
        return invalid("URL must not contain credentials; send them in a header".into());
    }
    let host = authority.host();
    match scheme {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => {
            let allowed = HostPatterns::parse("http.insecure_hosts", insecure_hosts)?;
            if !allowed.matches(host, authority.port_u16().unwrap_or(80)) {
                return invalid(format!(
                    "plain HTTP to {host} is not allowed; use https, or add the host to http.insecure_hosts"
                ));
            }
        }
        _ => return invalid(format!("unsupported URL scheme {scheme:?}; expected http or https")),
    }
    Ok(format!("{scheme}://{authority}"))
}

/// Whether an address is not one of the public internet: private, loopback, link-local, unique-local, shared (carrier-grade
/// NAT), multicast or otherwise reserved, also inside an IPv6 address that stands for an IPv4 one.
#[must_use]
pub fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || matches!((a, b, c), (0 | 240.., _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let low = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        // Mapped, compatible (with :: and ::1), NAT64 and 6to4 addresses stand for IPv4 ones.
        [0, 0, 0, 0, 0, 0xffff | 0, g, h] | [0x64, 0xff9b, 0, 0, 0, 0, g, h] => is_private_v4(low(g, h)),
        [0x2002, b, c, ..] => is_private_v4(low(b, c)),
        // Local NAT64, Teredo, documentation, discard.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0 | 0xdb8, ..] | [0x100, 0, 0, 0, ..] => true,
        // Unique-local, link-local, site-local, multicast.
        [first, ..] => matches!(first & 0xffc0, 0xfe80 | 0xfec0) || matches!(first >> 8, 0xfc | 0xfd | 0xff),
    }
}

/// Rejects a URL whose host is a private address or `localhost`, before a request that
/// [denies them](HttpRequest::deny_private_addresses) resolves its name. For transport implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_public_host(component: &'static str, uri: &Uri) -> Result<()> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    match host.parse::<IpAddr>() {
        Ok(address) => check_public_addresses(component, [address]),
        Err(_) if is_local => Err(private_address_error(component)),
        Err(_) => Ok(()),
    }
}

/// Rejects the addresses that a name was resolved to if one of them is private. For transport implementations.
///
/// # Errors
/// [`ErrorKind::InvalidInput`].
pub fn check_public_addresses(
    component: &'static str,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<()> {
    match addresses.into_iter().any(is_private_address) {
        true => Err(private_address_error(component)),
        false => Ok(()),
    }
}

fn private_address_error(component: &'static str) -> Error {
    let message = "the host is a private address, which this request denies";
    Error::new(ErrorKind::InvalidInput, component, message).not_sent()
}

/// A request: method, URL, headers and a complete body, with an optional deadline.
pub struct HttpRequest {
    /// Method, URL, headers and body.
    pub request: Request<Bytes>,
    /// Deadline of the call, body included; in addition to the transport's total timeout.
    pub deadline: Option<Deadline>,
    /// Whether it must not reach a [private address](is_private_address): for URLs that come from others.
    pub deny_private_addresses: bool,
}

impl HttpRequest {
    /// A request without a deadline.
    #[must_use]
    pub fn new(request: Request<Bytes>) -> Self {
        Self { request, deadline: None, deny_private_addresses: false }
    }

    /// A `GET` of `url`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is not a URL.
    pub fn get(url: &str) -> Result<Self> {
        Self::build(Method::GET, url, Bytes::new())
    }

    /// A `POST` of `body` as JSON to `url`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `url` is not a URL or `body` cannot be serialised.
    pub fn post_json(url: &str, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|cause| invalid_request("body is not JSON", cause))?;
        let mut request = Self::build(Method::POST, url, body.into())?;
        let json = HeaderValue::from_static("application/json");
        request.request.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok(request)
    }

    fn build(method: Method, url: &str, body: Bytes) -> Result<Self> {
        let request = Request::builder().method(method).uri(url).body(body);
        request
            .map(Self::new)
            .map_err(|cause| invalid_request("invalid URL; expected e.g. https://host/path", cause))
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets whether private addresses are denied.
    #[must_use]
    pub fn with_deny_private_addresses(mut self, deny: bool) -> Self {
        self.deny_private_addresses = deny;
        self
    }
}

fn invalid_request(message: &'static str, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::InvalidInput, "http", message).with_source(cause).not_sent()
}

/// Shows the method, host and path; never the query, headers or body.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.request.uri();
        write!(f, "HttpRequest({} {}{})", self.request.method(), uri.host().unwrap_or_default(), uri.path())
    }
}

/// A response: status and headers, and the body as a stream.
#[derive(Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: HttpBody,
}

/// A response's body: a stream of chunks as they arrive.
///
/// The connection waits while the body is not read, until the call's deadline. After an error the body has ended.
/// Dropping the body before its end closes the connection.
pub struct HttpBody(Option<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>>);

impl HttpBody {
    /// A body that reads `chunks`. The stream is dropped at its end, at its first error, or with the body: that is when
    /// a transport closes or reuses the connection.
    #[must_use]
    pub fn new(chunks: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(Some(Box::pin(chunks)))
    }

    /// A body that has arrived completely: for test doubles.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(stream::iter([Ok(bytes.into())]))
    }

    /// The next chunk; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`HttpTransport::send`]; after an error the body has ended.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.next().await.transpose()
    }

    /// The rest of the body, limited by the transport's `http.max_body_bytes`. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    pub async fn bytes(mut self) -> Result<Bytes> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = Vec::from(first);
        all.extend_from_slice(&second);
        while let Some(more) = self.chunk().await? {
            all.extend_from_slice(&more);
        }
        Ok(all.into())
    }
}

impl Stream for HttpBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(chunks) = &mut self.0 else { return Poll::Ready(None) };
        let next = chunks.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            // The connection is closed or reused now, however long this value lives.
            self.0 = None;
        }
        next
    }
}

opaque_debug!(HttpBody {});

/// Counters of a transport. Its limits are in [`Component::limits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HttpStats {
    /// Requests that got a response, of any status.
    pub responses: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Requests rejected because the queue was full.
    pub rejected: u64,
    /// Bytes of request bodies sent.
    pub bytes_sent: u64,
    /// Decoded bytes of response bodies received.
    pub bytes_received: u64,
    /// Longest time from sending a request to the response's head.
    pub slowest_response: Duration,
    /// Connections open and not in use.
    pub idle_connections: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &'static str) -> Result<String> {
        checked_origin("test", &Uri::from_static(url), &["model.internal".into()])
    }

    #[test]
    fn plain_http_goes_to_loopback_and_to_allowed_hosts_only() {
        for url in
            ["http://localhost:1/v1", "http://127.9.9.9/", "http://[::1]:80/", "http://Model.Internal/"]
        {
            assert!(origin(url).is_ok(), "{url}");
        }
        for url in
            ["http://example.com/", "http://localhost.evil.com/", "http://10.0.0.1/", "ftp://localhost/"]
        {
            assert_eq!(origin(url).expect_err(url).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_url_with_a_password_is_rejected_without_repeating_it() {
        let error = origin("https://user:hunter2@example.com/").expect_err("credentials");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn private_addresses_are_known_in_every_form() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(is_private_address(private.parse().expect(private)), "{private}");
        }
        for public in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(!is_private_address(public.parse().expect(public)), "{public}");
        }
        let check = |url: &'static str| check_public_host("test", &Uri::from_static(url));
        for url in [
            "https://localhost/",
            "https://a.LOCALHOST./",
            "https://[::ffff:10.0.0.1]:8/",
            "http://127.1.1.1/",
        ] {
            assert_eq!(check(url).expect_err(url).kind(), ErrorKind::InvalidInput);
        }
        assert!(check("https://example.com/").is_ok());
    }

    #[tokio::test]
    async fn a_body_ends_at_its_first_error() {
        let error = || Error::new(ErrorKind::Transport, "test", "connection lost");
        let mut body =
            HttpBody::new(stream::iter([Ok(Bytes::from("a")), Err(error()), Ok(Bytes::from("b"))]));
        assert_eq!(body.chunk().await.expect("one chunk").expect("not the end"), "a");
        assert_eq!(body.chunk().await.expect_err("it fails").kind(), ErrorKind::Transport);
        assert_eq!(body.chunk().await.expect("it has ended"), None);
    }
}
