//! Requests: URLs, redirects, and secrets in errors.

use std::sync::Arc;

use http::HeaderValue;

use super::server::{Reply, Server};
use super::*;
use crate::{ErrorKind, Outcome};

const SENTINEL: &str = "sentinel-5f1d";

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    a_request_arrives_unchanged_and_any_status_is_a_response(&*maker.default().await).await;
    redirects_are_not_followed(&*maker.default().await).await;
    plain_http_is_rejected_unless_the_host_is_allowed(
        &*maker.default().await,
        &*maker.with(|config| config.http.insecure_hosts = vec![unresolvable_host()]).await,
    )
    .await;
    private_addresses_are_denied_to_requests_that_ask_for_it(&*maker.default().await).await;
    a_refused_connection_is_not_sent(&*maker.default().await).await;
    no_error_holds_a_secret(&*maker.with(|config| config.http.max_body_bytes = 10).await).await;
}

/// A request with the sentinel wherever a secret can be.
fn secret(url: &str) -> HttpRequest {
    let mut request = post(&format!("{url}?key={SENTINEL}"), "{\"key\":\"sentinel-5f1d\"}");
    let value = HeaderValue::from_static("Bearer sentinel-5f1d");
    request.request.headers_mut().insert("authorization", value);
    request
}

async fn private_addresses_are_denied_to_requests_that_ask_for_it(transport: &dyn HttpTransport) {
    let server = Server::start(|_| Reply::ok("fine")).await;
    let url = server.url("/");
    // An open connection to the same host is not used in its place.
    transport.send(get(&url)).await.expect("not denied").body.bytes().await.expect("a body");
    let port = url.rsplit(':').next().expect("a port");
    for url in [url.clone(), format!("http://localhost:{port}"), format!("http://[::ffff:127.0.0.1]:{port}")]
    {
        let denied = transport.send(get(&url).with_deny_private_addresses(true)).await.expect_err(&url);
        assert_eq!((denied.kind(), denied.outcome()), (ErrorKind::InvalidInput, Outcome::NotSent), "{url}");
    }
    assert_eq!(server.take_requests().len(), 1, "denied requests are not sent");
}

/// Its label is too long for any resolver to be asked.
fn unresolvable_host() -> String {
    format!("{}.invalid", "a".repeat(64))
}

async fn a_request_arrives_unchanged_and_any_status_is_a_response(transport: &dyn HttpTransport) {
    let server =
        Server::start(|_| Reply::status("503 Service Unavailable", "retry-after: 7\r\n", b"busy")).await;
    let mut request = post(&server.url("/v1/chat?a=b"), "{}");
    request.request.headers_mut().insert("x-custom", HeaderValue::from_static("1"));
    let response = transport.send(request).await.expect("any status is a response");
    assert_eq!(response.status.as_u16(), 503);
    assert_eq!(response.headers["retry-after"], "7", "headers are delivered");
    assert_eq!(response.body.bytes().await.expect("a complete body"), "busy");
    let requests = server.take_requests();
    assert_eq!(requests.len(), 1, "nothing is retried");
    assert!(requests[0].head.starts_with("post /v1/chat?a=b http/1.1\r\n"), "{}", requests[0].head);
    assert!(requests[0].head.contains("\r\nx-custom: 1\r\n"), "{}", requests[0].head);
    assert_eq!(requests[0].body, b"{}");
    let stats = transport.stats();
    assert_eq!((stats.responses, stats.failures), (1, 0), "responses are counted");
    assert_eq!((stats.bytes_sent, stats.bytes_received), (2, 4), "bytes of bodies are counted");
}

async fn redirects_are_not_followed(transport: &dyn HttpTransport) {
    let elsewhere = Server::start(|_| Reply::ok("stolen")).await;
    let location = format!("location: {}\r\n", elsewhere.url("/"));
    let server = Server::start(move |_| Reply::status("307 Temporary Redirect", &location, b"")).await;
    let response = transport.send(secret(&server.url("/"))).await.expect("a redirect is a response");
    assert_eq!(response.status.as_u16(), 307);
    assert!(elsewhere.take_requests().is_empty(), "redirects are not followed");
}

async fn plain_http_is_rejected_unless_the_host_is_allowed(
    default: &dyn HttpTransport,
    allowing: &dyn HttpTransport,
) {
    let url = format!("http://{}/v1", unresolvable_host());
    let error = default.send(secret(&url)).await.expect_err("plain HTTP to a remote host");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidInput, Outcome::NotSent), "{error}");
    assert_eq!(connections(default).peak, 0, "a rejected URL takes no connection");
    let error =
        default.send(get("http://user:hunter2@127.0.0.1/")).await.expect_err("credentials in the URL");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(!everything(&error).contains("hunter2"), "{error:?}");
    let error = allowing.send(within(secret(&url), LONG)).await.expect_err("the host does not exist");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
}

async fn a_refused_connection_is_not_sent(transport: &dyn HttpTransport) {
    let url = format!("http://{}/", refused_address().await);
    let error = fetch(transport, get(&url)).await.expect_err("the port is closed");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error:?}");
    assert!(error.is_retryable(), "another attempt can succeed");
    assert_eq!((connections(transport).used, transport.stats().failures), (0, 1));
}

async fn no_error_holds_a_secret(transport: &dyn HttpTransport) {
    let refused = refused_address().await;
    let stalls = Server::start(|_| Reply::Stall(Vec::new())).await;
    let garbage = Server::start(|request| Reply::Close(request.head.as_bytes().to_vec())).await;
    let large = Server::start(|_| Reply::ok("too large a body")).await;
    let remote = format!("http://{}/", unresolvable_host());
    for url in [format!("http://{refused}/"), stalls.url("/"), garbage.url("/"), large.url("/"), remote] {
        let request = secret(&url);
        assert!(!format!("{request:?}").contains(SENTINEL));
        let error = fetch(transport, within(request, SHORT)).await.expect_err(&url);
        assert!(!everything(&error).contains(SENTINEL), "{url}: {error:?}");
    }
    assert!(!format!("{transport:?} {:?}", transport.stats()).contains(SENTINEL));
}
