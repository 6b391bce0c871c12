//! Whoever stops caring closes the connection.

use arshai::backends::http::UreqTransport;
use arshai::http::HttpTransport;
use arshai::{BuildContext, Config, Deadline, ErrorKind};

use crate::server::{Event, Reply, Server};
use crate::support::*;

const HALF_A_BODY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";

#[tokio::test]
async fn a_dropped_call_closes_its_connection_and_frees_its_permit() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    for transport in both() {
        let request = get(&server.url("/"));
        tokio::select! {
            _ = fetch(&transport, request) => panic!("the server never answers"),
            event = server.event() => assert_eq!(event, Event::Request),
        }
        assert_eq!(server.event().await, Event::Closed);
        until(|| connections(&transport).0 == 0).await;
    }
}

#[tokio::test]
async fn a_dropped_body_closes_its_connection_and_frees_its_permit() {
    let mut server = Server::start(|_| Reply::Stall(HALF_A_BODY.to_vec()));
    for transport in both() {
        let response = transport.send(get(&server.url("/"))).await.expect("a head");
        assert_eq!((server.event().await, connections(&transport).0), (Event::Request, 1));
        drop(response);
        assert_eq!(server.event().await, Event::Closed);
        until(|| connections(&transport).0 == 0).await;
        assert_eq!(transport.stats().idle_connections, 0);
    }
}

#[tokio::test]
async fn dropping_a_body_after_its_end_leaves_the_connection_to_the_next() {
    let server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|_| ());
    for _ in 0..20 {
        let mut body = transport.send(get(&server.url("/"))).await.expect("a head").body;
        while body.chunk().await.expect("it is whole").is_some() {}
        let next = transport.send(get(&server.url("/"))).await.expect("a head");
        // The first body is dropped while the second call uses its connection.
        drop(body);
        assert_eq!(next.body.bytes().await.expect("it is whole"), "hello");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_shutdown_cuts_what_outlasts_it() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    for transport in both() {
        let call = fetch(&transport, get(&server.url("/")));
        let shutdown = async {
            assert_eq!(server.event().await, Event::Request);
            transport.shutdown(Deadline::after(SHORT)).await
        };
        let (outcome, cut) = tokio::join!(call, shutdown);
        assert_eq!((outcome.expect_err("it was cut").kind(), cut), (ErrorKind::Closed, 1));
        assert_eq!(server.event().await, Event::Closed);
    }
}

#[tokio::test]
async fn a_dropped_transport_cuts_bodies_that_are_still_read() {
    let mut server = Server::start(|_| Reply::Stall(HALF_A_BODY.to_vec()));
    let context = BuildContext::new(Config::default());
    let transport = UreqTransport::from_context(&context).expect("a good configuration");
    let response = transport.send(get(&server.url("/"))).await.expect("a head");
    assert_eq!(server.event().await, Event::Request);
    drop(transport);
    assert_eq!(response.body.bytes().await.expect_err("it was cut").kind(), ErrorKind::Closed);
    assert_eq!(server.event().await, Event::Closed);
}
