//! Transports and requests for the tests.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arshai::backends::http::UreqTransport;
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Component, Config, Deadline, Error, LimitUsage, Result};
use bytes::Bytes;

/// Only a broken promise takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Short, for timeouts that a blocking socket has to wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) const HALF_A_BODY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";

pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

pub(crate) fn transport(change: impl FnOnce(&mut Config)) -> Arc<UreqTransport> {
    let context = BuildContext::new(config(change));
    Arc::new(UreqTransport::from_context(&context).expect("valid settings"))
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

/// Sends the request and reads the whole body.
pub(crate) async fn fetch(transport: &UreqTransport, request: HttpRequest) -> Result<Bytes> {
    transport.send(request).await?.body.bytes().await
}

/// Connections in use, and the peak.
pub(crate) fn connections(transport: &UreqTransport) -> (u64, u64) {
    let usage = limit(transport, "pool.max_connections");
    (usage.used, usage.peak)
}

pub(crate) fn limit(transport: &UreqTransport, key: &str) -> LimitUsage {
    transport.limits().into_iter().find(|limit| limit.key == key).expect("it is reported")
}

/// Waits, without sleeping, for `condition`.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect("the condition holds in time");
}

/// `Display` and `Debug` of an error and of all its causes.
pub(crate) fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}
