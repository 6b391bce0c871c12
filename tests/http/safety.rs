//! What goes where, and what is told about it.

use arshai::ErrorKind;
use arshai::http::{HttpRequest, HttpTransport};
use http::HeaderValue;

use crate::server::{Reply, Server};
use crate::support::*;

const SENTINEL: &str = "sentinel-5f1d";

/// A request that carries the sentinel wherever a secret can be.
fn secret(url: &str) -> HttpRequest {
    let mut request = post(&format!("{url}?key={SENTINEL}"), "{\"key\":\"sentinel-5f1d\"}");
    let value = HeaderValue::from_static("Bearer sentinel-5f1d");
    request.request.headers_mut().insert("authorization", value);
    request
}

#[tokio::test]
async fn a_request_arrives_as_it_was_given_and_any_status_is_an_answer() {
    let server = Server::start(|request| {
        assert!(request.head.starts_with("post /v1/chat?a=b http/1.1\r\n"), "{}", request.head);
        assert!(request.head.contains("\r\nx-mine: 1\r\n"), "{}", request.head);
        assert_eq!(request.body, b"{}");
        Reply::status("503 Service Unavailable", "retry-after: 7\r\n", b"busy")
    });
    for transport in both() {
        let mut request = post(&server.url("/v1/chat?a=b"), "{}");
        request.request.headers_mut().insert("x-mine", HeaderValue::from_static("1"));
        let response = transport.send(request).await.expect("an answer");
        assert_eq!((response.status.as_u16(), response.headers["retry-after"].as_bytes()), (503, &b"7"[..]));
        assert_eq!(response.body.bytes().await.expect("whole"), "busy");
        let stats = transport.stats();
        assert_eq!((stats.responses, stats.failures, stats.bytes_sent, stats.bytes_received), (1, 0, 2, 4));
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let elsewhere = Server::start(|_| Reply::ok("stolen"));
    let location = format!("location: {}\r\n", elsewhere.url("/"));
    let server = Server::start(move |_| Reply::status("307 Temporary Redirect", &location, b""));
    for transport in both() {
        let response = transport.send(secret(&server.url("/"))).await.expect("an answer");
        assert_eq!(response.status.as_u16(), 307);
    }
    assert_eq!(elsewhere.accepted(), 0);
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_before_anything_is_looked_up() {
    for transport in both() {
        // The name cannot be resolved; an error about that would mean that somebody tried.
        let error = transport.send(secret("http://model.invalid/v1")).await.expect_err("not encrypted");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("plain http to model.invalid is refused"), "{error}");
        assert_eq!(connections(&transport), (0, 0));
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    let server = Server::start(|_| Reply::Last(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()));
    let error = fetch(&transport(|_| ()), get(&server.url("/"))).await.expect_err("not HTTP");
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn tls_to_a_server_that_speaks_none_fails_and_is_not_worth_a_retry() {
    let server = Server::start(|_| Reply::ok("plain"));
    let url = server.url("/").replace("http://", "https://");
    let error = fetch(&transport(|_| ()), within(secret(&url), LONG)).await.expect_err("no TLS");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Unavailable), "{error:?}");
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_told_nothing() {
    let server = arshai_test_support::TlsServer::start();
    for transport in both() {
        let error = fetch(&transport, within(secret(&server.url()), LONG)).await.expect_err("no trust");
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
        assert!(!error.is_retryable(), "another try finds the same certificate");
        assert!(error.message().contains("is the certificate valid for this host?"), "{error}");
        assert!(!everything(&error).contains(SENTINEL), "{error:?}");
        assert_eq!((connections(&transport).0, server.told()), (0, 0));
    }
}

#[tokio::test]
async fn no_failure_tells_a_secret() {
    let refused =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("loopback");
    let stalls = Server::start(|_| Reply::Stall(Vec::new()));
    let garbage = Server::start(|request| Reply::Last(request.head.as_bytes().to_vec()));
    let bad_gzip = Server::start(|_| Reply::status("200 OK", "content-encoding: gzip\r\n", b"not gzip"));
    let large = Server::start(|_| Reply::ok("too large a body"));
    let transport = transport(|config| config.http.max_body_bytes = 10);
    let urls = [
        format!("http://{refused}/"),
        stalls.url("/"),
        garbage.url("/"),
        bad_gzip.url("/"),
        large.url("/"),
        "http://model.invalid/".into(),
        "https://model.invalid/".into(),
    ];
    for url in urls {
        let request = secret(&url);
        assert!(!format!("{request:?}").contains(SENTINEL));
        let error = fetch(&transport, within(request, SHORT)).await.expect_err(&url);
        assert!(!everything(&error).contains(SENTINEL), "{url}: {error:?}");
    }
    assert!(!format!("{transport:?} {:?}", transport.stats()).contains(SENTINEL));
}
