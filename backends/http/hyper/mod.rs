//! HTTP over [hyper], bounded.
//!
//! Each request is a task that moves the bytes of its connection itself. hyper's own client would open more connections
//! than it is allowed, so only `hyper::client::conn` is used, behind the pool of both transports.
//!
//! [hyper]: https://docs.rs/hyper

mod activity;
mod connect;
mod connection;
mod errors;
mod gzip;
mod request_job;

use std::sync::Arc;

use tokio::runtime::Handle;

use self::connect::{Proxy, Route};
use self::connection::PooledConnection;
use self::request_job::RequestJob;
use super::errors::{COMPONENT, RequestPhase, error, shut_down_error};
use super::response::response_channel;
use super::settings::Settings;
use super::transport::{Admitted, Driver, Transport};
use crate::http::{HttpRequest, HttpResponse};
use crate::support::opaque_debug;
use crate::{BuildContext, ErrorKind, Result};

/// HTTP/1.1 over bounded, reused connections: a task instead of a thread for each of them.
///
/// At most `pool.max_connections` connections are open, idle ones included; at most `http.max_waiting` requests wait
/// for one. Idle connections are closed after `pool.idle_timeout`, those beyond `pool.max_idle` after a second. Building
/// a transport touches neither network nor disk, except for certificates that the configuration names.
///
/// Requests are sent from a tokio runtime with I/O and time enabled; without one they fail with
/// [`ErrorKind::Unsupported`]. A connection is reused on the runtime that opened it only, so that one transport may
/// serve several.
///
/// Response headers are limited to 16 KiB in all, request headers to 16 KiB each.
///
/// Dropping the transport aborts its requests, those whose body is still being read included.
pub type HyperTransport = Transport<Hyper>;

/// Sends the requests of a [`HyperTransport`] with hyper, each in a task.
pub struct Hyper {
    proxy: Option<Arc<Proxy>>,
}

impl HyperTransport {
    /// The name of this backend.
    pub const NAME: &'static str = "hyper";

    /// A transport as `context` configures it.
    ///
    /// # Errors
    /// `Config` for invalid values of the section `http`, and for a file it names that cannot be used.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let settings = Settings::new(&context.config)?;
        let proxy = settings.proxy.as_ref().map(Proxy::parse).transpose()?.map(Arc::new);
        Ok(Self::with_driver(Arc::new(settings), |_| Hyper { proxy }))
    }
}

impl Driver for Hyper {
    type Connection = PooledConnection;

    async fn send(&self, transport: &HyperTransport, request: HttpRequest) -> Result<HttpResponse> {
        let runtime = Handle::try_current().map_err(|_| {
            error(ErrorKind::Unsupported, "no tokio runtime: a request needs a runtime context").not_sent()
        })?;
        let new_connection = |_: &_| PooledConnection::new();
        let Admitted { call, permit, deadline } =
            transport.admit(&request, Some(runtime.id()), new_connection).await?;
        let (sender, receiver) = response_channel(&call, deadline);
        let proxy = self.proxy.clone().filter(|_| call.pool.settings.is_proxied(request.request.uri()));
        let route = Route { proxy, deny_private: request.deny_private_addresses };
        let phase = Arc::clone(call.phase());
        let job =
            RequestJob { request: request.request, deadline, call, response: sender, route, _permit: permit };
        let job = runtime.spawn(job.run());
        receiver
            .response(Box::pin(
                async move { job.await.unwrap_or_else(|failed| Err(task_error(failed, &phase))) },
            ))
            .await
    }
}

/// The task panicked, or its runtime was shut down.
fn task_error(failed: tokio::task::JoinError, phase: &super::errors::AtomicRequestPhase) -> crate::Error {
    match failed.try_into_panic() {
        Ok(payload) => crate::Error::new(ErrorKind::Panic, COMPONENT, crate::support::panic_message(payload))
            .with_outcome(RequestPhase::Body.outcome()),
        Err(_) => shut_down_error(phase.get()),
    }
}

opaque_debug!(Hyper {});
