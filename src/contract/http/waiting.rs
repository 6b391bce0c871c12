//! Limits, the queue in front of them, and deadlines.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::server::{Event, Reply, Request, Server};
use super::*;
use crate::{ErrorKind, Outcome};

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    let single = |config: &mut Config| {
        config.pool.max_connections = 1;
        config.http.max_waiting = 1;
        config.http.pool_timeout = LONG;
    };
    active_requests_stay_within_the_limit(maker.with(|config| config.pool.max_connections = 3).await).await;
    raising_the_limit_admits_a_waiting_request(maker.with(single).await).await;
    a_wait_ends_at_the_deadline_naming_the_setting(maker.with(single).await).await;
    a_timeout_names_the_step(&*maker.default().await).await;
    if has_bounded_queue(&*maker.default().await) {
        a_full_queue_rejects_immediately(maker.with(single).await).await;
        let impatient = |config: &mut Config| {
            config.pool.max_connections = 1;
            config.http.pool_timeout = SHORT;
        };
        pool_timeout_is_for_requests_without_a_deadline(maker.with(impatient).await).await;
    }
}

fn stall(_: &Request) -> Reply {
    Reply::Stall(Vec::new())
}

async fn active_requests_stay_within_the_limit(transport: Arc<dyn HttpTransport>) {
    let server = Server::start(|_| Reply::ok("hello")).await;
    let mut callers = JoinSet::new();
    for _ in 0..30 {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move {
            for _ in 0..4 {
                assert_eq!(
                    fetch(&*transport, within(post(&url, "{}"), LONG)).await.expect("a response"),
                    "hello"
                );
            }
        });
    }
    callers.join_all().await;
    assert!(server.peak() <= 3, "{} requests were active concurrently", server.peak());
    let usage = connections(&*transport);
    assert_eq!((usage.used, usage.limit), (0, Some(3)), "permits are released with the end of the body");
    assert!(usage.peak <= 3, "{usage:?}");
    assert_eq!(transport.stats().responses, 120);
}

async fn raising_the_limit_admits_a_waiting_request(transport: Arc<dyn HttpTransport>) {
    let mut server = Server::start(stall).await;
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move { fetch(&*transport, get(&url)).await });
    }
    assert_eq!(server.event().await, Event::Request);
    until_waiting(&*transport, 1).await;
    let none = transport.set_limit("pool.max_connections", 0).expect_err("no connections at all");
    if none.kind() == ErrorKind::Unsupported {
        return;
    }
    assert_eq!(none.kind(), ErrorKind::InvalidInput, "{none}");
    transport.set_limit("pool.max_connections", 2).expect("the limit can change");
    assert_eq!(server.event().await, Event::Request);
    assert_eq!(connections(&*transport).limit, Some(2));
}

async fn a_wait_ends_at_the_deadline_naming_the_setting(transport: Arc<dyn HttpTransport>) {
    let mut server = Server::start(stall).await;
    let active = spawn_fetch(&transport, get(&server.url("/")));
    assert_eq!(server.event().await, Event::Request);
    let error = fetch(&*transport, within(get(&server.url("/")), SHORT)).await.expect_err("one connection");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    assert!(error.to_string().contains("pool.max_connections"), "the error names the setting: {error}");
    assert_eq!(limit(&*transport, "http.max_waiting").used, 0, "the request has left the queue");
    active.abort();
}

async fn a_full_queue_rejects_immediately(transport: Arc<dyn HttpTransport>) {
    let mut server = Server::start(stall).await;
    let active = spawn_fetch(&transport, get(&server.url("/")));
    assert_eq!(server.event().await, Event::Request);
    let waiting = spawn_fetch(&transport, get(&server.url("/")));
    until_waiting(&*transport, 1).await;
    let error = fetch(&*transport, get(&server.url("/"))).await.expect_err("the queue is full");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Capacity, Outcome::NotSent), "{error}");
    assert!(error.to_string().contains("http.max_waiting"), "the error names the setting: {error}");
    assert_eq!(transport.stats().rejected, 1);
    active.abort();
    // Its permit goes to the waiting request. The order of events on two connections is not defined.
    let events = [server.event().await, server.event().await];
    assert!(events.contains(&Event::Closed) && events.contains(&Event::Request), "{events:?}");
    waiting.abort();
    until_idle(&*transport).await;
}

async fn pool_timeout_is_for_requests_without_a_deadline(transport: Arc<dyn HttpTransport>) {
    let mut server = Server::start(|request| match request.head.starts_with("get /stall") {
        true => Reply::Stall(Vec::new()),
        false => Reply::ok("hello"),
    })
    .await;
    let active = spawn_fetch(&transport, get(&server.url("/stall")));
    assert_eq!(server.event().await, Event::Request);
    let patient = spawn_fetch(&transport, within(get(&server.url("/")), LONG));
    until_waiting(&*transport, 1).await;
    let error = fetch(&*transport, get(&server.url("/"))).await.expect_err("http.pool_timeout");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    assert_eq!(limit(&*transport, "http.max_waiting").used, 1, "a request with a deadline waits on");
    active.abort();
    assert_eq!(patient.await.expect("no panic").expect("a connection became free"), "hello");
}

async fn a_timeout_names_the_step(transport: &dyn HttpTransport) {
    let mut server = Server::start(|request| match request.head.starts_with("get /body") {
        true => Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()),
        false => Reply::Stall(Vec::new()),
    })
    .await;
    let error = fetch(transport, within(get(&server.url("/head")), SHORT)).await.expect_err("no response");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(error.message().contains("response"), "the error names the step: {error}");
    assert_eq!((server.event().await, server.event().await), (Event::Request, Event::Closed));
    until_idle(transport).await;

    let response = transport.send(within(get(&server.url("/body")), 10 * SHORT)).await.expect("a head");
    let mut body = response.body;
    let chunk = body.chunk().await.expect("what arrived is delivered");
    assert_eq!(chunk.expect("not the end"), "half");
    let error = body.chunk().await.expect_err("the body stalls");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(error.message().contains("body"), "the error names the step: {error}");
    assert_eq!((server.event().await, server.event().await), (Event::Request, Event::Closed));
    until_idle(transport).await;
}
