//! Connections of the ureq transport: their number, their reuse, and closing idle ones.

use std::sync::Arc;
use std::time::Duration;

use arshai::BuildContext;
use arshai::backends::http::UreqTransport;
use tokio::task::JoinSet;

use crate::server::{Event, Reply, Server};
use crate::support::*;

/// Moves tokio's time, which idle connections age by, without running the timers of calls on the way.
async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

over_each_transport! {

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_never_open_more_connections_than_allowed() {
    let server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|config| {
        config.pool.max_connections = 20;
        config.pool.max_idle = 20;
    });
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move {
            for _ in 0..5 {
                let response = fetch(&*transport, within(post(&url, "{}"), LONG)).await;
                assert_eq!(response.expect("a response"), "hello");
            }
        });
    }
    callers.join_all().await;
    assert!(server.accepted() <= 20, "{} connections", server.accepted());
    let (used, peak) = connections(&*transport);
    assert_eq!((used, transport.stats().responses), (0, 1_000));
    assert!(peak <= 20, "{peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_leave_every_connection_free() {
    let server = Server::start(|request| match request.body.len() % 3 {
        0 => Reply::ok("hello"),
        1 => Reply::Stall(Vec::new()),
        _ => Reply::Stall(HALF_A_BODY.to_vec()),
    });
    let transport = transport(|config| config.pool.max_connections = 3);
    let mut callers = JoinSet::new();
    for n in 0..60_usize {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move {
            let body = ["{}", "{ }", "{  }", "{   }"][n % 4];
            let mut call = Box::pin(fetch(&*transport, within(post(&url, body), LONG)));
            // Dropped after a number of polls that differs from caller to caller.
            for _ in 0..n % 7 {
                if futures_util::poll!(&mut call).is_ready() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    callers.join_all().await;
    until(|| connections(&*transport).0 == 0).await;
    assert!(connections(&*transport).1 <= 3);
    assert_eq!(limit(&*transport, "http.max_waiting").used, 0);
    assert_eq!(fetch(&*transport, post(&server.url("/"), "{ }")).await.expect("a response"), "hello");
}

#[tokio::test]
async fn a_connection_is_reused_and_closed_after_its_idle_timeout_without_traffic() {
    let mut server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|config| config.pool.idle_timeout = Duration::from_secs(15));
    for _ in 0..5 {
        fetch(&*transport, get(&server.url("/"))).await.expect("a response");
        assert_eq!(server.event().await, Event::Request);
    }
    assert_eq!((server.accepted(), transport.stats().idle_connections), (1, 1));
    advance(Duration::from_secs(14)).await;
    assert_eq!(transport.stats().idle_connections, 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(server.event().await, Event::Closed);
    assert_eq!(transport.stats().idle_connections, 0);
    fetch(&*transport, get(&server.url("/"))).await.expect("a response");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn more_connections_than_max_idle_survive_a_burst_and_are_closed_after_it() {
    let all_four = std::sync::Barrier::new(4);
    let server = Server::start(move |_| {
        all_four.wait();
        Reply::ok("hello")
    });
    let transport = transport(|config| config.pool.max_idle = 2);
    for _ in 0..5 {
        let burst = (0..4).map(|_| fetch(&*transport, get(&server.url("/burst"))));
        futures_util::future::try_join_all(burst).await.expect("responses");
    }
    assert_eq!((server.accepted(), transport.stats().idle_connections), (4, 4));
    advance(Duration::from_secs(1)).await;
    until(|| transport.stats().idle_connections == 2).await;
}

#[tokio::test]
async fn idle_connections_to_other_hosts_count_against_the_limit() {
    let mut first = Server::start(|_| Reply::ok("first"));
    let second = Server::start(|_| Reply::ok("second"));
    let transport = transport(|config| config.pool.max_connections = 1);
    fetch(&*transport, get(&first.url("/"))).await.expect("a response");
    assert_eq!(first.event().await, Event::Request);
    fetch(&*transport, get(&second.url("/"))).await.expect("a response");
    assert_eq!(first.event().await, Event::Closed);
}

#[tokio::test]
async fn lowering_the_limit_closes_idle_connections_beyond_it() {
    let mut server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|_| ());
    let both = (0..2).map(|_| fetch(&*transport, get(&server.url("/"))));
    futures_util::future::try_join_all(both).await.expect("responses");
    let opened = server.accepted() as u64;
    assert_eq!(transport.stats().idle_connections, opened);
    transport.set_limit("pool.max_connections", 1).expect("it can change");
    assert_eq!(transport.stats().idle_connections, 1);
    for _ in 0..2 {
        assert_eq!(server.event().await, Event::Request);
    }
    if opened == 2 {
        assert_eq!(server.event().await, Event::Closed);
    }
}

}

#[test]
fn the_rollback_flag_selects_the_legacy_pool_sizes_and_an_unlimited_queue() {
    let context = BuildContext::new(config(|config| config.rollback.use_legacy_connections = true));
    assert_eq!(context.config.http.backend, UreqTransport::LEGACY_NAME);
    let legacy = UreqTransport::legacy(&context).expect("valid settings");
    assert_eq!(limit(&legacy, "pool.max_connections").limit, Some(50));
    assert_eq!(limit(&legacy, "http.max_waiting").limit, None);
}
