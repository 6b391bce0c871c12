//! Every step has a limit, and the error names the step.

use arshai::http::{HttpTransport, was_nothing_sent};
use arshai::{Deadline, ErrorKind};

use crate::server::{Event, Reply, Server};
use crate::support::*;

const HALF_A_BODY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_the_deadline() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    for transport in both() {
        let error =
            fetch(&transport, within(post(&server.url("/"), "{}"), SHORT)).await.expect_err("it stalls");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().contains("waiting for the response"), "{error}");
        assert!(!was_nothing_sent(&error));
        assert_eq!((server.event().await, server.event().await), (Event::Request, Event::Closed));
        until(|| connections(&transport).0 == 0).await;
    }
}

#[tokio::test]
async fn silence_before_the_response_has_a_limit_of_its_own() {
    let server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|config| config.http.read_timeout = SHORT);
    let error = fetch(&transport, get(&server.url("/"))).await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("did not begin within http.read_timeout"), "{error}");
}

#[tokio::test]
async fn silence_within_the_body_has_a_limit_and_what_came_before_is_delivered() {
    let server = Server::start(|_| Reply::Stall(HALF_A_BODY.to_vec()));
    let transport = transport(|config| config.http.read_timeout = SHORT);
    let mut body = transport.send(get(&server.url("/"))).await.expect("a head").body;
    assert_eq!(body.chunk().await.expect("it came").expect("four bytes"), "half");
    let error = body.chunk().await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("the body was silent"), "{error}");
    assert_eq!(connections(&transport).0, 0);
}

#[tokio::test]
async fn waiting_for_a_connection_has_a_limit() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|config| {
        config.pool.max_connections = 1;
        config.http.pool_timeout = SHORT;
    });
    let active = tokio::spawn({
        let (transport, url) = (transport.clone(), server.url("/"));
        async move { fetch(&transport, get(&url)).await }
    });
    assert_eq!(server.event().await, Event::Request);
    let error = fetch(&transport, get(&server.url("/"))).await.expect_err("the only one is in use");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("waiting for a connection"), "{error}");
    active.abort();
}

#[tokio::test]
async fn an_endless_body_ends_with_the_total_limit() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start(move |_| Reply::Endless(head.clone(), vec![b'x'; 1024]));
    let transport = transport(|config| {
        config.http.total_timeout = SHORT;
        config.http.max_body_bytes = u64::MAX;
    });
    let mut body = transport.send(get(&server.url("/"))).await.expect("a head").body;
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "an endless body has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_body_that_nobody_reads_frees_its_connection_at_the_deadline_and_does_not_look_complete() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start(move |_| Reply::Endless(head.clone(), vec![b'x'; 64 * 1024]));
    for transport in both() {
        let response = transport.send(within(get(&server.url("/")), SHORT)).await.expect("a head");
        assert_eq!(transport.shutdown(Deadline::after(LONG)).await, 0, "it ended by itself");
        let error = response.body.bytes().await.expect_err("it was cut short");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_an_error() {
    let server = Server::start(|_| Reply::Last(HALF_A_BODY.to_vec()));
    let transport = transport(|_| ());
    let error = fetch(&transport, get(&server.url("/"))).await.expect_err("96 bytes are missing");
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Protocol), "{error:?}");
}

#[tokio::test]
async fn a_refused_connection_says_that_nothing_was_sent() {
    let address =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("loopback");
    let transport = transport(|_| ());
    let error = fetch(&transport, get(&format!("http://{address}/"))).await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(was_nothing_sent(&error) && error.is_retryable(), "{error:?}");
    assert_eq!((connections(&transport).0, transport.stats().failures), (0, 1));
}

#[tokio::test]
async fn an_answer_that_trickles_in_is_never_silent_and_still_left_at_the_deadline() {
    // Far from the limit on silence, however late a busy machine is, and in all far longer than that.
    let (trickle, silence) = (SHORT / 6, 8 * SHORT);
    let endless = |begin: &str| [begin.as_bytes(), &[b'x'; 9_999]].concat();
    let replies =
        ["HTTP/1.1 200 OK\r\nx-a: ", "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"].map(endless);
    for (n, reply) in replies.into_iter().enumerate() {
        // It is the head that trickles in, or the body.
        let pause = if n == 0 { trickle } else { trickle / 10 };
        let server = Server::start(move |_| Reply::Drip(reply.clone(), pause));
        let transport = transport(|config| config.http.read_timeout = silence);
        let began = std::time::Instant::now();
        let error =
            fetch(&transport, within(get(&server.url("/")), 2 * silence)).await.expect_err("too slow");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().contains("the deadline passed"), "{error}");
        assert!(began.elapsed() >= 2 * silence, "no limit on silence ended it");
        until(|| connections(&transport).0 == 0).await;
    }
}

#[tokio::test]
async fn a_name_that_nobody_has_is_an_error_before_anything_is_sent() {
    // Longer than a label may be: no resolver needs to be asked.
    let url = format!("https://{}.invalid/", "a".repeat(64));
    let transport = transport(|_| ());
    let error = fetch(&transport, within(get(&url), LONG)).await.expect_err("there is no such host");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(was_nothing_sent(&error));
    assert_eq!(connections(&transport).0, 0);
}
