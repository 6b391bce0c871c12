//! Closing the transport.

use std::sync::Arc;

use tokio::sync::Notify;

use super::server::{Event, Reply, Server};
use super::*;
use crate::{ErrorKind, Outcome};

pub(super) async fn suite<F, Fut>(maker: &Maker<F>)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    a_closed_transport_rejects_requests_and_closes_twice(&*maker.default().await).await;
    closing_waits_for_active_requests(maker.default().await).await;
    closing_aborts_what_outlasts_the_deadline(maker.default().await).await;
}

async fn assert_closed(transport: &dyn HttpTransport, url: &str) {
    let error = fetch(transport, get(url)).await.expect_err("it is closed");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::NotSent), "{error}");
}

async fn a_closed_transport_rejects_requests_and_closes_twice(transport: &dyn HttpTransport) {
    let server = Server::start(|_| Reply::ok("hello")).await;
    assert!(transport.health(Deadline::after(LONG)).await.is_usable());
    fetch(transport, get(&server.url("/"))).await.expect("a response");
    for _ in 0..2 {
        assert!(transport.close(Deadline::after(LONG)).await.is_clean(), "nothing is active");
        assert_closed(transport, &server.url("/")).await;
        assert!(!transport.health(Deadline::after(LONG)).await.is_usable());
    }
    assert_eq!(transport.stats().idle_connections, 0);
}

async fn closing_waits_for_active_requests(transport: Arc<dyn HttpTransport>) {
    let respond = Arc::new(Notify::new());
    let notify = Arc::clone(&respond);
    let Reply::Send(response) = Reply::ok("hello") else { unreachable!("it is sent") };
    let mut server = Server::start(move |_| Reply::SendAfter(Arc::clone(&notify), response.clone())).await;
    let active = spawn_fetch(&transport, get(&server.url("/")));
    assert_eq!(server.event().await, Event::Request);
    let (report, response) = tokio::join!(transport.close(Deadline::after(LONG)), async {
        assert_closed(&*transport, &server.url("/")).await;
        respond.notify_one();
        active.await.expect("no panic")
    });
    assert_eq!(response.expect("it was active before"), "hello");
    assert_eq!((report.finished, report.aborted), (1, 0));
}

async fn closing_aborts_what_outlasts_the_deadline(transport: Arc<dyn HttpTransport>) {
    let mut server = Server::start(|_| Reply::Stall(Vec::new())).await;
    let active = spawn_fetch(&transport, get(&server.url("/")));
    assert_eq!(server.event().await, Event::Request);
    let report = transport.close(Deadline::after(SHORT)).await;
    assert_eq!((report.finished, report.aborted), (0, 1));
    let error = active.await.expect("no panic").expect_err("it was aborted");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::Unknown), "{error}");
    assert_eq!(server.event().await, Event::Closed);
    until_idle(&*transport).await;
}
