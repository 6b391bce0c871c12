//! Connections that are reused, and closed by the server meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arshai::{ErrorKind, Outcome};

use crate::server::{Event, Reply, Server};
use crate::support::*;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

over_each_transport! {

#[tokio::test]
async fn a_connection_that_the_server_closed_while_it_was_idle_is_replaced() {
    let mut server = Server::start(|_| Reply::Last(HELLO.to_vec()));
    let transport = transport(|_| ());
    for requests in 1..=5 {
        let response = fetch(&*transport, within(post(&server.url("/"), "{}"), LONG)).await;
        assert_eq!(response.expect("a response on a fresh connection"), "hello");
        assert_eq!((server.event().await, server.event().await), (Event::Request, Event::Closed));
        assert_eq!(server.accepted(), requests);
    }
    assert_eq!(transport.stats().failures, 0);
}

#[tokio::test]
async fn a_request_that_a_reused_connection_loses_is_sent_once_and_its_error_names_the_step() {
    let endings: [fn() -> Reply; 2] = [|| Reply::Reset, || Reply::Last(Vec::new())];
    for ending in endings {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::Bytes(HELLO.to_vec()),
            _ => ending(),
        });
        let transport = transport(|_| ());
        fetch(&*transport, post(&server.url("/"), "{}")).await.expect("a response");
        let error = fetch(&*transport, post(&server.url("/"), "{}")).await.expect_err("it was lost");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::Unknown), "{error}");
        assert!(error.message().contains("connection lost"), "{error}");
        assert_eq!((requests.load(Ordering::SeqCst), server.accepted()), (2, 1));
    }
}

}
