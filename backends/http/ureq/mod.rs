//! HTTP over [ureq], bounded.
//!
//! ureq blocks, so each exchange runs on a thread of the transport's own bounded pool. Every connection has a
//! ureq agent of its own (a [`Line`](lines::Line)): `Agent::shutdown` closes all sockets of an agent for good,
//! which with one connection per agent is exactly "hang up this call", and idle connections can be counted
//! against the limit together with active ones.
//!
//! [ureq]: https://docs.rs/ureq

mod errors;
mod exchange;
mod lines;
mod names;
mod settings;

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase, unsupported_limit_error};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::errors::{error, timed_out};
use self::exchange::{CHUNKS, Exchange, Head};
use self::lines::{HangUp, Switchboard};
use self::settings::Settings;
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use crate::support::BlockingPool;
use crate::support::{OwnedPermit, ResizableSemaphore};
use crate::{BuildContext, Deadline, Error, ErrorKind, Health, Result};

/// The component's name in errors.
const COMPONENT: &str = "http.ureq";

/// HTTP/1.1 over bounded, reused connections.
///
/// At most `pool.max_connections` connections are open at once, idle ones included; at most
/// `http.max_waiting` requests wait for one, each for `http.pool_timeout`. Idle connections are closed, when a call
/// begins or ends, after `pool.idle_timeout`, and those beyond `pool.max_idle` after a second. Threads are as many as connections
/// in use, start when needed and end after ten idle seconds. Building one touches neither network nor disk.
///
/// Names are looked up by the system's resolver, which cannot be interrupted: a dropped call that is still
/// looking up a name or connecting gives back its permit when that step ends. Answers of the resolver are kept
/// for 30 s.
///
/// ureq writes records of its own through the `log` crate. They leave out headers that may be secret; at level
/// trace, and only there, they hold paths and queries: keep `ureq` below it where a query holds a secret.
///
/// When it is dropped, exchanges still running are cut.
pub struct UreqTransport {
    switchboard: Arc<Switchboard>,
    waiting: ResizableSemaphore,
    threads: BlockingPool,
}

impl UreqTransport {
    /// Its name in the configuration, `http.backend`.
    pub const NAME: &'static str = "ureq";

    /// The name of its twin behind `ARSHAI_USE_LEGACY_CONNECTIONS`.
    pub const LEGACY: &'static str = "legacy";

    /// A transport as `context` configures it.
    ///
    /// # Errors
    /// `Config` when `http.proxy` is not a proxy's URL.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Ok(Self::new(Settings::new(&context.config)?, context))
    }

    /// A transport with the pool that Python arshai has: 50 connections of which 20 are kept idle for 30 s,
    /// any number of requests waiting, for as long as their own deadline allows. Its limits cannot be changed.
    ///
    /// # Errors
    /// As [`from_context`](Self::from_context).
    pub fn legacy(context: &BuildContext) -> Result<Self> {
        Ok(Self::new(Settings::new(&context.config)?.legacy(), context))
    }

    fn new(settings: Settings, context: &BuildContext) -> Self {
        Self {
            waiting: ResizableSemaphore::new("http.max_waiting", "requests", settings.max_waiting),
            threads: BlockingPool::new("http.threads", settings.max_connections),
            switchboard: Arc::new(Switchboard::new(settings, Arc::clone(&context.clock))),
        }
    }

    /// Takes a slot for a connection, waiting in the bounded queue if all are taken.
    async fn connection(&self, deadline: Deadline) -> Result<OwnedPermit> {
        let slots = &self.switchboard.connections;
        if let Some(slot) = slots.try_acquire_owned() {
            return Ok(slot);
        }
        let Some(_waiting) = self.waiting.try_acquire_owned() else {
            self.switchboard.counters.rejected();
            let message = format!("rejected: {} requests already wait for a connection", self.waiting.used());
            return Err(error(ErrorKind::Capacity, message).with_context("connections", slots.max()));
        };
        let wait = match self.switchboard.settings.pool_timeout {
            Some(timeout) => deadline.capped(timeout),
            None => deadline,
        };
        wait.run(COMPONENT, "waiting for a connection", slots.acquire_owned())
            .await
            .map_err(|error| error.with_context("connections", slots.max()))?
    }

    fn set_max_connections(&self, max: usize) -> Result<()> {
        if self.switchboard.settings.is_legacy() {
            let message = "the legacy transport keeps its 50 connections; unset ARSHAI_USE_LEGACY_CONNECTIONS and \
                           ARSHAI_DISABLE_OPTIMIZATIONS to change them";
            return Err(Error::new(ErrorKind::Unsupported, "http.legacy", message));
        }
        if max == 0 {
            let message = "the number of connections must be at least 1";
            return Err(error(ErrorKind::InvalidInput, message));
        }
        self.threads.set_max_threads(max);
        self.switchboard.set_max_connections(max);
        Ok(())
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse> {
        let HttpRequest { request, deadline } = request;
        let settings = &self.switchboard.settings;
        let origin = settings.origin_of(request.uri())?;
        let total = Deadline::after(settings.total_timeout);
        let deadline = deadline.map_or(total, |deadline| deadline.min(total));

        let slot = self.connection(deadline).await?;
        let began = Instant::now();
        let call = self.switchboard.dial(origin, slot)?;
        let (hang_up, stage) = (HangUp::new(&call), Arc::clone(call.stage()));
        let (head_sender, mut head) = oneshot::channel();
        // One place more than chunks, kept for the error that ends a body.
        let (chunk_sender, chunks) = mpsc::channel(CHUNKS + 1);
        let exchange = Exchange {
            request,
            until: began + deadline.remaining(),
            call,
            head: head_sender,
            chunks: chunk_sender,
        };

        let mut run = pin!(self.threads.run(move || exchange.run()));
        let arrived = async {
            let ended = tokio::select! {
                biased;
                Ok(head) = &mut head => return head,
                ended = &mut run => ended,
            };
            // The thread has ended: with a head, or without one because it panicked or was cut off.
            head.try_recv().unwrap_or_else(|_| Err(ended.err().unwrap_or_else(errors::cut_off)))
        };
        let Head { status, headers } = tokio::time::timeout_at(deadline.instant(), arrived)
            .await
            .unwrap_or_else(|_| Err(timed_out(stage.get(), began.elapsed())))?;
        self.switchboard.counters.responded(began.elapsed());
        Ok(HttpResponse { status, headers, body: HttpBody::new(chunks, Some(Box::new(hang_up))) })
    }
}

#[async_trait]
impl Component for UreqTransport {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("http")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![self.switchboard.connections.usage(), self.waiting.usage(), self.threads.usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        if self.switchboard.connections.is_closed() {
            return Health::Unhealthy { reason: "it is shut down".into() };
        }
        match self.waiting.used() {
            0 => Health::Healthy,
            waiting => Health::Degraded { reason: format!("{waiting} requests wait for a connection") },
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != "pool.max_connections" {
            return Err(unsupported_limit_error(COMPONENT, key));
        }
        self.set_max_connections(usize::try_from(max).unwrap_or(usize::MAX))
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        CloseReport::new(0, self.switchboard.shutdown(deadline).await, Vec::new())
    }
}

#[async_trait]
impl HttpTransport for UreqTransport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let result = self.exchange(request).await;
        if result.is_err() {
            self.switchboard.counters.failed();
        }
        result
    }

    fn stats(&self) -> HttpStats {
        let mut stats = HttpStats::default();
        self.switchboard.counters.fill(&mut stats);
        stats.idle_connections = self.switchboard.idle();
        stats
    }
}

impl Drop for UreqTransport {
    fn drop(&mut self) {
        self.switchboard.close();
    }
}

impl fmt::Debug for UreqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqTransport")
            .field("connections", &self.switchboard.connections)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
