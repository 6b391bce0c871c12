//! Transports and requests for the tests.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arshai::backends::http::UreqTransport;
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Config, Deadline, Error, Result};
use bytes::Bytes;

/// Long enough that only a promise broken reaches it.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Short, for limits that a blocking socket must really wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

pub(crate) fn transport(change: impl FnOnce(&mut Config)) -> Arc<UreqTransport> {
    let context = BuildContext::new(config(change));
    Arc::new(UreqTransport::from_context(&context).expect("a good configuration"))
}

/// The transport and its legacy twin.
pub(crate) fn both() -> [Arc<UreqTransport>; 2] {
    let legacy = UreqTransport::legacy(&BuildContext::new(Config::default()));
    [transport(|_| ()), Arc::new(legacy.expect("a good configuration"))]
}

pub(crate) fn get(url: &str) -> HttpRequest {
    HttpRequest::new(http::Request::get(url).body(Bytes::new()).expect("a URL"))
}

pub(crate) fn post(url: &str, body: &'static str) -> HttpRequest {
    HttpRequest::new(http::Request::post(url).body(Bytes::from_static(body.as_bytes())).expect("a URL"))
}

pub(crate) fn within(request: HttpRequest, timeout: Duration) -> HttpRequest {
    request.with_deadline(Some(Deadline::after(timeout)))
}

/// Sends and reads the whole body.
pub(crate) async fn fetch(transport: &UreqTransport, request: HttpRequest) -> Result<Bytes> {
    transport.send(request).await?.body.bytes().await
}

/// Connections in use, and the most that ever were.
pub(crate) fn connections(transport: &UreqTransport) -> (u64, u64) {
    let bound = bound(transport, "http.max_connections");
    (bound.used, bound.peak)
}

pub(crate) fn bound(transport: &UreqTransport, name: &str) -> arshai::LimitUsage {
    let bounds = transport.stats().limits;
    bounds.into_iter().find(|bound| bound.name == name).expect("it is reported")
}

/// Waits, without sleeping, for `reached`.
pub(crate) async fn until(reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("it comes to pass");
}

/// Everything an error says, Debug and causes included.
pub(crate) fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}
