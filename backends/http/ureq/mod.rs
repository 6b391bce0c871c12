//! HTTP over [ureq], bounded.
//!
//! ureq blocks, so each request runs on a thread of the transport's own pool, one thread per connection in use. Every
//! connection has a ureq agent to itself (a [`PooledAgent`]): `Agent::shutdown` closes all
//! sockets of an agent for good, which with one connection per agent aborts exactly one call, and idle connections can
//! be counted against the limit together with active ones.
//!
//! [ureq]: https://docs.rs/ureq

mod connection;
mod connector;
mod dns_cache;
mod errors;
mod request_job;
mod tls;

use std::sync::Arc;

use self::connection::{AgentFactory, PooledAgent};
use self::request_job::RequestJob;
use super::connection_pool::PoolKey;
use super::response::response_channel;
use super::settings::Settings;
use super::transport::{Admitted, Driver, Transport};
use crate::http::{HttpRequest, HttpResponse};
use crate::support::{BlockingPool, ResizableSemaphore, opaque_debug};
use crate::{BuildContext, Result};

/// HTTP/1.1 over bounded, reused connections.
///
/// At most `pool.max_connections` connections are open, idle ones included; at most `http.max_waiting` requests wait
/// for one. Idle connections are closed after `pool.idle_timeout`, those beyond `pool.max_idle` after a second. There is
/// one thread per connection in use, started when needed and ended after ten idle seconds. Building a transport touches
/// neither network nor disk.
///
/// The system's resolver cannot be interrupted: a dropped call that is resolving a name or connecting releases its
/// permit when that step ends. Resolved addresses are cached for 30 s.
///
/// Response headers are limited to 16 KiB in all, request headers to 16 KiB each.
///
/// ureq writes records through the `log` crate. They leave out headers that may be secret; at level
/// `trace`, and only there, they hold paths and queries: keep `ureq` below it where a query holds a secret.
///
/// Dropping the transport aborts its requests, those whose body is still being read included.
pub type UreqTransport = Transport<Ureq>;

/// Sends the requests of an [`UreqTransport`] with ureq, each on a thread.
pub struct Ureq {
    threads: BlockingPool,
    agents: AgentFactory,
}

impl UreqTransport {
    /// The name of this backend.
    pub const NAME: &'static str = "ureq";

    /// The name of the legacy transport.
    pub const LEGACY_NAME: &'static str = "legacy";

    /// A transport as `context` configures it.
    ///
    /// # Errors
    /// `Config` for invalid values of the section `http`, and for a file it names that cannot be used.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Self::new(Settings::new(&context.config)?, context)
    }

    /// The legacy transport: the same code without limits on the queue. With a rollback flag, the
    /// [effective](crate::Config::effective) configuration has the pool sizes of Python arshai too: 50 connections, of
    /// which 20 are kept idle for 30 s.
    ///
    /// # Errors
    /// As [`from_context`](Self::from_context).
    pub fn legacy(context: &BuildContext) -> Result<Self> {
        Self::new(Settings::new(&context.config)?.with_unlimited_queue(), context)
    }

    fn new(settings: Settings, context: &BuildContext) -> Result<Self> {
        let settings = Arc::new(settings);
        let agents = AgentFactory::new(&settings, Arc::clone(&context.clock))?;
        let threads = |permits: &ResizableSemaphore| BlockingPool::with_permits("http.ureq", permits.clone());
        Ok(Self::with_driver(settings, |permits| Ureq { threads: threads(permits), agents }))
    }
}

impl Driver for Ureq {
    type Connection = PooledAgent;

    async fn send(&self, transport: &UreqTransport, request: HttpRequest) -> Result<HttpResponse> {
        let new_agent = |key: &PoolKey| self.agents.agent(request.request.uri(), key.deny_private);
        let Admitted { call, permit, deadline } = transport.admit(&request, None, new_agent).await?;
        let (sender, receiver) = response_channel(&call, deadline);
        let deadline = std::time::Instant::now() + deadline.remaining();
        let job = RequestJob { request: request.request, deadline, call, response: sender };
        let job = self.threads.spawn_job(permit, move || job.run())?;
        receiver.response(Box::pin(async { job.await? })).await
    }
}

opaque_debug!(Ureq {});
