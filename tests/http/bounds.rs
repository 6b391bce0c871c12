//! Connections, waiters and bodies are bounded.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::http::UreqTransport;
use arshai::http::HttpTransport;
use arshai::{BuildContext, Config, Deadline, ErrorKind, ManualClock};
use tokio::task::JoinSet;

use crate::server::{Event, Reply, Server};
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_never_open_more_connections_than_allowed() {
    let server = Server::start(|_| Reply::ok("hello"));
    let transport = transport(|config| {
        config.pool.max_connections = 4;
        config.pool.max_idle = 4;
    });
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move {
            for _ in 0..10 {
                assert_eq!(fetch(&transport, post(&url, "{}")).await.expect("answered"), "hello");
            }
        });
    }
    callers.join_all().await;
    assert!(server.accepted() <= 4, "{} connections", server.accepted());
    let (used, peak) = connections(&transport);
    assert_eq!((used, transport.stats().responses), (0, 500));
    assert!(peak <= 4, "{peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_come_and_go_leave_every_connection_free() {
    let server = Server::start(|request| match request.body.len() % 3 {
        0 => Reply::ok("hello"),
        1 => Reply::Stall(Vec::new()),
        _ => Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome".to_vec()),
    });
    let transport = transport(|config| config.pool.max_connections = 3);
    let mut callers = JoinSet::new();
    for n in 0..60_usize {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move {
            let body = ["{}", "{ }", "{  }", "{   }"][n % 4];
            let call = fetch(&transport, within(post(&url, body), LONG));
            // Dropped after a number of polls that differs from caller to caller.
            let mut patience = n * 7 % 40;
            let gives_up = std::future::poll_fn(|context| {
                patience = patience.saturating_sub(1);
                context.waker().wake_by_ref();
                if patience == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            });
            tokio::select! { _ = call => {}, () = gives_up => {} }
        });
    }
    callers.join_all().await;
    until(|| connections(&transport).0 == 0).await;
    assert!(connections(&transport).1 <= 3);
    assert_eq!(bound(&transport, "http.max_waiting").used, 0);
    assert_eq!(fetch(&transport, post(&server.url("/"), "{ }")).await.expect("it still works"), "hello");
}

#[tokio::test]
async fn one_waiter_too_many_is_rejected_at_once() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|config| {
        config.pool.max_connections = 1;
        config.http.max_waiting = 1;
        config.http.pool_timeout = LONG;
    });
    let caller = |transport: &Arc<UreqTransport>, url: String| {
        let transport = Arc::clone(transport);
        tokio::spawn(async move { fetch(&transport, get(&url)).await })
    };
    let active = caller(&transport, server.url("/"));
    assert_eq!(server.event().await, Event::Request);
    let waiting = caller(&transport, server.url("/"));
    until(|| bound(&transport, "http.max_waiting").used == 1).await;

    let error = fetch(&transport, get(&server.url("/"))).await.expect_err("no place to wait");
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(error.message().contains("rejected"), "{error}");
    assert_eq!(transport.stats().rejected, 1);
    active.abort();
    waiting.abort();
}

#[tokio::test]
async fn raising_the_limit_lets_a_waiter_through() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|config| {
        config.pool.max_connections = 1;
        config.http.pool_timeout = LONG;
    });
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let (transport, url) = (Arc::clone(&transport), server.url("/"));
        callers.spawn(async move { fetch(&transport, get(&url)).await });
    }
    assert_eq!(server.event().await, Event::Request);
    until(|| bound(&transport, "http.max_waiting").used == 1).await;
    transport.set_max_connections(2).expect("bounded");
    assert_eq!(server.event().await, Event::Request);
    assert_eq!(transport.set_max_connections(0).expect_err("none").kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_body_that_inflates_beyond_its_cap_is_refused() {
    // gzip of 200 000 zero bytes: 16 bytes, a run of zeros, 30 bytes.
    let start =
        [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 237, 193, 49, 1, 0, 0, 0, 194, 160, 245, 79, 109, 6, 127, 160];
    let end = [128, 215, 0, 123, 88, 224, 92, 64, 13, 3, 0];
    let bomb = [&start[..], &[0; 193], &end[..]].concat();
    assert_eq!(bomb.len(), 229);
    let server = Server::start(move |_| Reply::status("200 OK", "content-encoding: gzip\r\n", &bomb));

    let roomy = transport(|config| config.http.max_body_bytes = 200_000);
    assert_eq!(fetch(&roomy, get(&server.url("/"))).await.expect("it fits").len(), 200_000);
    let tight = transport(|config| config.http.max_body_bytes = 199_999);
    let error = fetch(&tight, get(&server.url("/"))).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(connections(&tight).0, 0);
}

#[tokio::test]
async fn a_connection_is_used_again_until_it_was_idle_for_too_long() {
    let server = Server::start(|_| Reply::ok("hello"));
    let clock = Arc::new(ManualClock::new());
    let context = BuildContext::new(Config::default()).with_clock(clock.clone());
    let transport = UreqTransport::from_context(&context).expect("a good configuration");
    for _ in 0..5 {
        fetch(&transport, get(&server.url("/"))).await.expect("answered");
    }
    assert_eq!((server.accepted(), transport.stats().idle_connections), (1, 1));
    clock.advance(Duration::from_secs(30));
    fetch(&transport, get(&server.url("/"))).await.expect("answered");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_may_be_idle_survive_a_burst_and_go_after_it() {
    let all_four = std::sync::Barrier::new(4);
    let server = Server::start(move |request| {
        if request.head.starts_with("get /burst") {
            all_four.wait();
        }
        Reply::ok("hello")
    });
    let clock = Arc::new(ManualClock::new());
    let config = config(|config| config.pool.max_idle = 2);
    let context = BuildContext::new(config).with_clock(clock.clone());
    let transport = UreqTransport::from_context(&context).expect("a good configuration");
    for _ in 0..5 {
        let burst = (0..4).map(|_| fetch(&transport, get(&server.url("/burst"))));
        futures_util::future::try_join_all(burst).await.expect("answered");
    }
    assert_eq!((server.accepted(), transport.stats().idle_connections), (4, 4));
    clock.advance(Duration::from_secs(1));
    fetch(&transport, get(&server.url("/"))).await.expect("answered");
    assert_eq!((server.accepted(), transport.stats().idle_connections), (4, 2));
}

#[tokio::test]
async fn idle_connections_to_other_hosts_count_against_the_limit() {
    let mut first = Server::start(|_| Reply::ok("first"));
    let second = Server::start(|_| Reply::ok("second"));
    let transport = transport(|config| config.pool.max_connections = 1);
    fetch(&transport, get(&first.url("/"))).await.expect("answered");
    assert_eq!(first.event().await, Event::Request);
    fetch(&transport, get(&second.url("/"))).await.expect("answered");
    assert_eq!(first.event().await, Event::Closed);
}

#[tokio::test]
async fn the_legacy_twin_has_the_pool_of_earlier_and_keeps_it() {
    let legacy = UreqTransport::legacy(&BuildContext::new(Config::default())).expect("a good configuration");
    assert_eq!(bound(&legacy, "http.max_connections").limit, Some(50));
    assert_eq!(bound(&legacy, "http.max_waiting").limit, None);
    assert_eq!(legacy.set_max_connections(9).expect_err("fixed").kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_shutdown_waits_for_what_ends_and_turns_away_what_comes() {
    let server = Server::start(|_| Reply::ok("hello"));
    for transport in both() {
        fetch(&transport, get(&server.url("/"))).await.expect("answered");
        assert_eq!(transport.shutdown(Deadline::after(LONG)).await, 0);
        let error = fetch(&transport, get(&server.url("/"))).await.expect_err("it is shut down");
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(!transport.health().await.is_usable());
    }
}
