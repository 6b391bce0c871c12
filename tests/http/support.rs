//! Transports and requests for the tests.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arshai::backends::http::{HyperTransport, UreqTransport};
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Config, Deadline, Error, LimitUsage, Result};
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

pub(crate) type Transport = Arc<dyn HttpTransport>;

pub(crate) fn ureq(config: Config) -> Result<Transport> {
    Ok(Arc::new(UreqTransport::from_context(&BuildContext::new(config))?))
}

pub(crate) fn hyper(config: Config) -> Result<Transport> {
    Ok(Arc::new(HyperTransport::from_context(&BuildContext::new(config))?))
}

pub(crate) fn ureq_transport(change: impl FnOnce(&mut Config)) -> Transport {
    ureq(config(change)).expect("valid settings")
}

pub(crate) fn hyper_transport(change: impl FnOnce(&mut Config)) -> Transport {
    hyper(config(change)).expect("valid settings")
}

/// Runs tests over each transport, which they build with `transport` and `build`.
macro_rules! over_each_transport {
    ($($tests:tt)*) => {
        mod over_ureq {
            #[allow(unused_imports)]
            use super::*;
            #[allow(unused_imports)]
            use crate::support::{ureq as build, ureq_transport as transport};
            $($tests)*
        }
        mod over_hyper {
            #[allow(unused_imports)]
            use super::*;
            #[allow(unused_imports)]
            use crate::support::{hyper as build, hyper_transport as transport};
            $($tests)*
        }
    };
}

pub(crate) use over_each_transport;

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
pub(crate) async fn fetch(transport: &dyn HttpTransport, request: HttpRequest) -> Result<Bytes> {
    transport.send(request).await?.body.bytes().await
}

/// Connections in use, and the peak.
pub(crate) fn connections(transport: &dyn HttpTransport) -> (u64, u64) {
    let usage = limit(transport, "pool.max_connections");
    (usage.used, usage.peak)
}

pub(crate) fn limit(transport: &dyn HttpTransport, key: &str) -> LimitUsage {
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
