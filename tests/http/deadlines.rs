//! Timeouts of the ureq transport.

use arshai::{Deadline, ErrorKind, Outcome};

use crate::server::{Reply, Server};
use crate::support::*;

over_each_transport! {

#[tokio::test]
async fn silence_before_the_response_has_a_timeout() {
    let server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|config| config.http.first_byte_timeout = SHORT);
    let error = fetch(&*transport, get(&server.url("/"))).await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("no response within http.first_byte_timeout"), "{error}");
}

#[tokio::test]
async fn silence_within_the_body_has_a_timeout_and_what_arrived_before_is_delivered() {
    let server = Server::start(|_| Reply::Stall(HALF_A_BODY.to_vec()));
    let transport = transport(|config| config.http.read_timeout = SHORT);
    let mut body = transport.send(get(&server.url("/"))).await.expect("a head").body;
    assert_eq!(body.chunk().await.expect("a chunk").expect("not the end"), "half");
    let error = body.chunk().await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("no body data within http.read_timeout"), "{error}");
    assert_eq!(connections(&*transport).0, 0);
}

#[tokio::test]
async fn the_second_call_on_a_connection_times_out_waiting_for_its_response() {
    let server = Server::start(|request| match request.head.starts_with("get /stall") {
        true => Reply::Stall(Vec::new()),
        false => Reply::ok("hello"),
    });
    let transport = transport(|_| ());
    fetch(&*transport, get(&server.url("/"))).await.expect("a response");
    let error = fetch(&*transport, within(get(&server.url("/stall")), SHORT)).await.expect_err("it stalls");
    assert!(error.message().contains("waiting for the response"), "{error}");
    assert_eq!((server.accepted(), error.outcome()), (1, Outcome::Unknown));
}

#[tokio::test]
async fn an_endless_body_ends_with_the_total_timeout() {
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
async fn an_unread_body_frees_its_connection_at_the_deadline_and_does_not_look_complete() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let server = Server::start(move |_| Reply::Endless(head.clone(), vec![b'x'; 64 * 1024]));
    let transport = transport(|_| ());
    let response = transport.send(within(get(&server.url("/")), SHORT)).await.expect("a head");
    assert!(transport.close(Deadline::after(LONG)).await.is_clean(), "it ends without being aborted");
    let error = response.body.bytes().await.expect_err("it is incomplete");
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_response_that_trickles_in_is_never_silent_and_still_ends_at_the_deadline() {
    // Far from the timeout of silence, however late a busy machine is, and in all far longer than that.
    let (trickle, silence) = (SHORT / 6, 8 * SHORT);
    let endless = |begin: &str| [begin.as_bytes(), &[b'x'; 9_999]].concat();
    let replies =
        ["HTTP/1.1 200 OK\r\nx-a: ", "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"].map(endless);
    for (n, reply) in replies.into_iter().enumerate() {
        // First the head trickles in, then the body.
        let pause = if n == 0 { trickle } else { trickle / 10 };
        let server = Server::start(move |_| Reply::Drip(reply.clone(), pause));
        let transport = transport(|config| {
            config.http.read_timeout = silence;
            config.http.first_byte_timeout = silence;
        });
        let began = std::time::Instant::now();
        let error =
            fetch(&*transport, within(get(&server.url("/")), 2 * silence)).await.expect_err("too slow");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().starts_with("timed out while"), "{error}");
        assert!(began.elapsed() >= 2 * silence, "no timeout of silence ended it");
        until(|| connections(&*transport).0 == 0).await;
    }
}

#[tokio::test]
async fn an_answer_may_take_longer_to_begin_than_its_body_may_be_silent() {
    let server = Server::start(|_| {
        std::thread::sleep(4 * SHORT);
        Reply::ok("hello")
    });
    let transport = transport(|config| config.http.read_timeout = SHORT);
    // The first on a new connection, the second on one that is reused.
    for _ in 0..2 {
        assert_eq!(fetch(&*transport, get(&server.url("/"))).await.expect("a late response"), "hello");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn sending_to_a_server_that_does_not_read_has_a_timeout() {
    let server = Server::start_deaf();
    let transport = transport(|config| config.http.write_timeout = SHORT);
    let request = http::Request::post(server.url("/")).body(vec![b'x'; 64 << 20].into()).expect("a URL");
    let error = fetch(&*transport, arshai::http::HttpRequest::new(request)).await.expect_err("it stalls");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(error.message().contains("http.write_timeout"), "{error}");
}

}
