//! Malformed responses, large heads, and TLS.

use arshai::http::HttpRequest;
use arshai::{ErrorKind, Outcome};
use http::HeaderValue;

use crate::server::{Reply, Server};
use crate::support::*;

const SENTINEL: &str = "sentinel-5f1d";

/// A request with the sentinel wherever a secret can be.
fn secret(url: &str) -> HttpRequest {
    let mut request = post(&format!("{url}?key={SENTINEL}"), "{\"key\":\"sentinel-5f1d\"}");
    let value = HeaderValue::from_static("Bearer sentinel-5f1d");
    request.request.headers_mut().insert("authorization", value);
    request
}

over_each_transport! {

#[tokio::test]
async fn a_response_that_is_not_http_is_a_protocol_error() {
    let server = Server::start(|_| Reply::Last(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()));
    let error = fetch(&*transport(|_| ()), get(&server.url("/"))).await.expect_err("not HTTP");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn invalid_gzip_is_a_protocol_error_without_secrets() {
    let server = Server::start(|_| Reply::status("200 OK", "content-encoding: gzip\r\n", b"not gzip"));
    let error = fetch(&*transport(|_| ()), secret(&server.url("/"))).await.expect_err("not gzip");
    assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Transport), "{error:?}");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[tokio::test]
async fn heads_have_a_size_limit() {
    let server = Server::start(|request| {
        let bytes: usize = if request.head.contains("get /large ") { 17_000 } else { 15_000 };
        Reply::status("200 OK", &format!("x-large: {}\r\n", "x".repeat(bytes)), b"hello")
    });
    let transport = transport(|_| ());
    assert_eq!(fetch(&*transport, get(&server.url("/"))).await.expect("within the limit"), "hello");
    let error = fetch(&*transport, get(&server.url("/large"))).await.expect_err("17 kB of headers");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");

    let mut request = get(&server.url("/"));
    let value = HeaderValue::from_str(&"x".repeat(17_000)).expect("a value");
    request.request.headers_mut().insert("x-large", value);
    let error = fetch(&*transport, request).await.expect_err("a header of 17 kB");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TooLarge, Outcome::NotSent), "{error:?}");
}

#[tokio::test]
async fn tls_to_a_server_without_tls_fails_and_is_not_retryable() {
    let server = Server::start(|_| Reply::ok("plain"));
    let url = server.url("/").replace("http://", "https://");
    let error = fetch(&*transport(|_| ()), within(secret(&url), LONG)).await.expect_err("no TLS");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Unavailable), "{error:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_without_a_trusted_certificate() {
    let server = arshai_test_support::TlsServer::start();
    let transport = transport(|_| ());
    let error = fetch(&*transport, within(secret(&server.url()), LONG)).await.expect_err("no trust");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::NotSent), "{error}");
    assert!(!error.is_retryable(), "the certificate stays the same");
    assert!(error.message().contains("unknown authority"), "{error}");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
    assert_eq!((connections(&*transport).0, server.told()), (0, 0));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_not_sent() {
    // Too long for a label: no resolver is asked.
    let url = format!("https://{}.invalid/", "a".repeat(64));
    let transport = transport(|_| ());
    let error = fetch(&*transport, within(get(&url), LONG)).await.expect_err("no such host");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
    assert_eq!(connections(&*transport).0, 0);
}

}
