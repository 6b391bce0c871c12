//! Bodies: their limit, their end, and dropping them.

use std::sync::Arc;

use super::server::{Event, Reply, Server};
use super::*;
use crate::{ErrorKind, Outcome};

const HALF_A_BODY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    a_body_that_ends_early_is_an_error(&*maker.default().await).await;
    a_body_ends_with_the_connection_where_it_has_no_length(&*maker.default().await).await;
    the_limit_counts_decoded_bytes(
        &*maker.with(|config| config.http.max_body_bytes = 200_000).await,
        &*maker.with(|config| config.http.max_body_bytes = 199_999).await,
    )
    .await;
    a_dropped_request_closes_its_connection(&*maker.default().await).await;
    a_dropped_body_closes_its_connection(&*maker.default().await).await;
}

async fn a_body_that_ends_early_is_an_error(transport: &dyn HttpTransport) {
    let server = Server::start(|_| Reply::Close(HALF_A_BODY.to_vec())).await;
    let error = fetch(transport, get(&server.url("/"))).await.expect_err("96 bytes are missing");
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::Protocol), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
    until_idle(transport).await;
}

async fn a_body_ends_with_the_connection_where_it_has_no_length(transport: &dyn HttpTransport) {
    let server = Server::start(|_| Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec())).await;
    assert_eq!(fetch(transport, get(&server.url("/"))).await.expect("a complete body"), "hello");
    until_idle(transport).await;
}

async fn the_limit_counts_decoded_bytes(fits: &dyn HttpTransport, exceeds: &dyn HttpTransport) {
    // gzip of 200 000 zero bytes: 25 bytes, a run of zeros, 11 bytes.
    let start =
        [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 237, 193, 49, 1, 0, 0, 0, 194, 160, 245, 79, 109, 6, 127, 160];
    let end = [128, 215, 0, 123, 88, 224, 92, 64, 13, 3, 0];
    let compressed = [&start[..], &[0; 193], &end[..]].concat();
    let server = Server::start(move |request| {
        let accepts =
            request.head.lines().any(|line| line.starts_with("accept-encoding:") && line.contains("gzip"));
        match accepts {
            true => Reply::status("200 OK", "content-encoding: gzip\r\n", &compressed),
            false => Reply::status("200 OK", "", &[0; 200_000]),
        }
    })
    .await;
    assert_eq!(fetch(fits, get(&server.url("/"))).await.expect("within the limit").len(), 200_000);
    let error = fetch(exceeds, get(&server.url("/"))).await.expect_err("one byte too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    until_idle(exceeds).await;
}

async fn a_dropped_request_closes_its_connection(transport: &dyn HttpTransport) {
    let mut server = Server::start(|_| Reply::Stall(Vec::new())).await;
    let request = get(&server.url("/"));
    tokio::select! {
        _ = fetch(transport, request) => panic!("the server never responds"),
        event = server.event() => assert_eq!(event, Event::Request),
    }
    assert_eq!(server.event().await, Event::Closed);
    until_idle(transport).await;
}

async fn a_dropped_body_closes_its_connection(transport: &dyn HttpTransport) {
    let mut server = Server::start(|_| Reply::Stall(HALF_A_BODY.to_vec())).await;
    let response = transport.send(get(&server.url("/"))).await.expect("a head");
    assert_eq!((server.event().await, connections(transport).used), (Event::Request, 1));
    drop(response);
    assert_eq!(server.event().await, Event::Closed);
    until_idle(transport).await;
    assert_eq!(transport.stats().idle_connections, 0);
}
