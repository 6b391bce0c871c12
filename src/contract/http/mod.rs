//! The contract of [`HttpTransport`].
//!
//! A backend author calls [`suite`] from a test, on a tokio runtime with I/O and time enabled, and not paused:
//!
//! ```
//! # #[cfg(feature = "ureq")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use arshai::BuildContext;
//! use arshai::backends::http::UreqTransport;
//! use arshai::contract::http::{Setup, suite};
//! use arshai::http::HttpTransport;
//!
//! suite(|setup: Setup| async move {
//!     let transport = UreqTransport::from_context(&BuildContext::new(setup.config)).expect("valid settings");
//!     Arc::new(transport) as Arc<dyn HttpTransport>
//! })
//! .await;
//! # }
//! # #[cfg(not(feature = "ureq"))]
//! # fn main() {}
//! ```
//!
//! The suite starts servers on loopback. A transport whose [limits](crate::Component::limits) report no limit
//! for `http.max_waiting` is not tested for a full queue and `http.pool_timeout`.

mod bodies;
mod closing;
mod requests;
mod server;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;
use crate::http::{HttpRequest, HttpTransport};
use crate::{Deadline, Error, LimitUsage, Result};

/// Only a broken promise takes this long.
const LONG: Duration = Duration::from_secs(20);

/// Short, for deadlines that real sockets have to wait for.
const SHORT: Duration = Duration::from_millis(60);

/// The settings of a transport under test.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The suite sets `pool.max_connections`, `http.max_waiting`, `http.pool_timeout`, `http.max_body_bytes` and
    /// `http.insecure_hosts`.
    pub config: Config,
}

/// Runs every test of the contract on transports built by `make`.
///
/// # Panics
/// Where the transport breaks the contract.
pub async fn suite<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    let maker = Maker(make);
    requests::suite(&maker).await;
    waiting::suite(&maker).await;
    bodies::suite(&maker).await;
    closing::suite(&maker).await;
}

struct Maker<F>(F);

impl<F, Fut> Maker<F>
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn HttpTransport>>,
{
    async fn default(&self) -> Arc<dyn HttpTransport> {
        self.with(|_| ()).await
    }

    async fn with(&self, change: impl FnOnce(&mut Config)) -> Arc<dyn HttpTransport> {
        let mut config = Config::default();
        change(&mut config);
        (self.0)(Setup { config }).await
    }
}

fn get(url: &str) -> HttpRequest {
    HttpRequest::new(http::Request::get(url).body(Bytes::new()).expect("a URL"))
}

fn post(url: &str, body: &'static str) -> HttpRequest {
    HttpRequest::new(http::Request::post(url).body(Bytes::from_static(body.as_bytes())).expect("a URL"))
}

fn within(request: HttpRequest, timeout: Duration) -> HttpRequest {
    request.with_deadline(Some(Deadline::after(timeout)))
}

/// Sends the request and reads the whole body.
async fn fetch(transport: &dyn HttpTransport, request: HttpRequest) -> Result<Bytes> {
    transport.send(request).await?.body.bytes().await
}

fn spawn_fetch(
    transport: &Arc<dyn HttpTransport>,
    request: HttpRequest,
) -> tokio::task::JoinHandle<Result<Bytes>> {
    let transport = Arc::clone(transport);
    tokio::spawn(async move { fetch(&*transport, request).await })
}

fn limit(transport: &dyn HttpTransport, key: &str) -> LimitUsage {
    let limits = transport.limits();
    limits.into_iter().find(|limit| limit.key == key).unwrap_or_else(|| panic!("{key} is not reported"))
}

fn connections(transport: &dyn HttpTransport) -> LimitUsage {
    limit(transport, "pool.max_connections")
}

fn has_bounded_queue(transport: &dyn HttpTransport) -> bool {
    limit(transport, "http.max_waiting").limit.is_some()
}

async fn until_waiting(transport: &dyn HttpTransport, waiting: u64) {
    until("requests wait for a connection", || limit(transport, "http.max_waiting").used == waiting).await;
}

async fn until_idle(transport: &dyn HttpTransport) {
    until("permits are released", || connections(transport).used == 0).await;
}

/// Waits, without sleeping, for `condition`.
async fn until(promise: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{promise}");
}

/// An address on loopback that nothing listens on.
async fn refused_address() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    listener.local_addr().expect("bound")
}

/// `Display` and `Debug` of an error and of all its causes.
fn everything(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}
