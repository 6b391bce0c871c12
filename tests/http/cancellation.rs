//! Bodies and transports that are dropped.

use arshai::ErrorKind;

use crate::server::{Event, Reply, Server};
use crate::support::*;

over_each_transport! {

#[tokio::test]
async fn dropping_a_body_after_its_end_leaves_the_connection_to_the_next_call() {
    let server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|_| ());
    for _ in 0..20 {
        let mut body = transport.send(get(&server.url("/"))).await.expect("a head").body;
        while body.chunk().await.expect("a complete body").is_some() {}
        let next = transport.send(get(&server.url("/"))).await.expect("a head");
        // The first body is dropped while the second call uses its connection.
        drop(body);
        assert_eq!(next.body.bytes().await.expect("a complete body"), "hello");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn dropping_the_transport_aborts_bodies_that_are_being_read() {
    // Without a length, an aborted connection looks like the end of the body.
    for reply in [HALF_A_BODY, b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf"] {
        let mut server = Server::start(move |_| Reply::Stall(reply.to_vec()));
        let transport = transport(|_| ());
        let response = transport.send(get(&server.url("/"))).await.expect("a head");
        assert_eq!(server.event().await, Event::Request);
        drop(transport);
        let error = response.body.bytes().await.expect_err("it was aborted");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(server.event().await, Event::Closed);
    }
}

}
