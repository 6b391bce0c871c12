//! HTTP over ureq, bounded.
//!
//! ureq blocks, so each call runs on a thread of the transport's own bounded pool, and that pool's slots are the
//! bound on connections: a slot is held until the body has been read or dropped. Each call has a lane, an agent
//! with one connection, which a dropped call shuts down.

mod exchange;
mod lanes;
mod stats;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::exchange::{Exchange, Head};
use self::lanes::{CutOnDrop, Lane, LaneSettings, Lanes};
use self::stats::Counters;
use crate::blocking::BlockingPool;
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use crate::{BuildContext, Deadline, Error, ErrorKind, Health, Result, Slots};

/// Chunks of a body that wait for their reader.
const BUFFERED_CHUNKS: usize = 4;

/// [`HttpTransport`] over ureq.
///
/// Nothing is opened before the first request. At most `pool.max_connections` connections exist at once, idle ones
/// included, each with a thread of its own while it is in use; `http.max_waiting` more requests may wait, for at
/// most `http.pool_timeout` each.
pub struct UreqTransport {
    threads: BlockingPool,
    waiting: Slots,
    lanes: Arc<Lanes>,
    counters: Arc<Counters>,
    /// Lanes of calls under way, for a shutdown to cut.
    active: Mutex<Vec<Lane>>,
    closed: AtomicBool,
    settings: Settings,
}

struct Settings {
    bounded: bool,
    pool_timeout: Option<Duration>,
    total_timeout: Duration,
    max_body_bytes: u64,
    insecure_hosts: Vec<String>,
    /// Why no request can be sent: a proxy that is not one.
    broken: Option<&'static str>,
}

impl UreqTransport {
    /// Its name in configuration.
    pub const NAME: &'static str = "ureq";
    /// The name of its twin behind `ARSHAI_USE_LEGACY_CONNECTIONS`.
    pub const LEGACY: &'static str = "legacy";

    /// A transport as a runtime's configuration asks for it.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        let pool = &context.config.pool;
        let http = &context.config.http;
        let max = pool.max_connections;
        let waiting = Slots::new("http.max_waiting", "requests", http.max_waiting);
        Self::with(
            context,
            (max, pool.max_idle.min(max), pool.idle_timeout),
            waiting,
            Some(http.pool_timeout),
        )
    }

    /// Connections as they were before: 50, of which 20 are kept idle for 30 s; any number of requests waits, for as
    /// long as their own deadline lets them.
    #[must_use]
    pub fn legacy(context: &BuildContext) -> Self {
        let waiting = Slots::new("http.max_waiting", "requests", Slots::MAX);
        Self::with(context, (50, 20, Duration::from_secs(30)), waiting, None)
    }

    fn with(
        context: &BuildContext,
        (max, max_idle, idle_timeout): (usize, usize, Duration),
        waiting: Slots,
        pool_timeout: Option<Duration>,
    ) -> Self {
        let http = &context.config.http;
        let proxy = http.proxy.as_ref().map(|url| ureq::Proxy::new(url.expose_secret()));
        let broken = matches!(proxy, Some(Err(_))).then_some("http.proxy is not the URL of a proxy");
        let lanes = LaneSettings {
            connect_timeout: http.connect_timeout,
            read_timeout: Some(http.read_timeout),
            write_timeout: Some(http.write_timeout),
            idle_timeout,
            proxy: proxy.and_then(std::result::Result::ok),
        };
        Self {
            threads: BlockingPool::new("http.max_connections", max),
            waiting,
            lanes: Arc::new(Lanes::new(lanes, max_idle)),
            counters: Arc::default(),
            active: Mutex::default(),
            closed: AtomicBool::new(false),
            settings: Settings {
                bounded: pool_timeout.is_some(),
                pool_timeout,
                total_timeout: http.total_timeout,
                max_body_bytes: http.max_body_bytes,
                insecure_hosts: http.insecure_hosts.clone(),
                broken,
            },
        }
    }

    /// Refuses what would send a key in the clear, and what is no URL.
    fn check(&self, uri: &http::Uri) -> Result<http::uri::Authority> {
        let refuse =
            |message: &str| Err(Error::new(ErrorKind::InvalidInput, "http.ureq", message.to_owned()));
        let Some(authority) = uri.authority() else { return refuse("the URL has no host") };
        if let Some(broken) = self.settings.broken {
            return Err(Error::new(ErrorKind::Config, "http.ureq", broken));
        }
        let host = authority.host();
        match uri.scheme_str() {
            Some("https") => Ok(authority.clone()),
            Some("http")
                if is_loopback(host) || self.settings.insecure_hosts.iter().any(|name| name == host) =>
            {
                Ok(authority.clone())
            }
            Some("http") => refuse(
                "plain http is refused: the request's key could be read on the way; use https, or list the host in \
                 http.insecure_hosts",
            ),
            _ => refuse("the URL must begin with https://"),
        }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse> {
        let authority = self.check(request.request.uri())?;
        let total = Deadline::after(self.settings.total_timeout);
        let deadline = request.deadline.map_or(total, |deadline| deadline.min(total));
        let queued = self.waiting.try_acquire().inspect_err(|_| {
            self.counters.rejected.fetch_add(1, Ordering::Relaxed);
        })?;

        let (begin, begun) = oneshot::channel();
        let (head, response) = oneshot::channel();
        let (chunks, body) = mpsc::channel(BUFFERED_CHUNKS);
        let lanes = Arc::clone(&self.lanes);
        let (counters, runtime) = (Arc::clone(&self.counters), Handle::current());
        let max_body_bytes = self.settings.max_body_bytes;
        let mut call = std::pin::pin!(self.threads.run(move || {
            let lane = Lane::new(lanes.take(&authority));
            // Nobody waits for the call any more: do not make it.
            if begin.send(lane.clone()).is_err() {
                return;
            }
            let request = request.request;
            Exchange {
                request,
                authority,
                lane,
                lanes,
                counters,
                deadline,
                max_body_bytes,
                runtime,
                head,
                chunks,
            }
            .run();
        }));

        let wait = self.settings.pool_timeout.map_or(deadline, |timeout| deadline.at_most(timeout));
        let beginning = async {
            tokio::select! {
                // Begun is looked at first: a short call may be over by then.
                biased;
                begun = begun => begun.map_err(|_| closed()),
                ended = &mut call => Err(ended.err().unwrap_or_else(closed)),
            }
        };
        let lane =
            wait.bound("http.ureq", "waiting for a connection (http.pool_timeout)", beginning).await??;
        drop(queued);
        let guard = CutOnDrop(lane.clone());
        self.remember(lane);
        // The call runs on its thread now, whether or not its future is polled.
        let response = deadline.bound("http.ureq", "waiting for the response", response).await?;
        let (status, headers): Head = response.unwrap_or_else(|_| Err(closed()))?;
        Ok(HttpResponse { status, headers, body: HttpBody::new(body, Some(Box::new(guard))) })
    }

    /// Keeps the lane for a shutdown to cut, and forgets those that have ended.
    fn remember(&self, lane: Lane) {
        let mut active = self.active.lock();
        // Now and then, so that it costs nothing on most calls and the list stays short.
        if active.len() >= 2 * self.threads.used() + 16 {
            active.retain(|lane| lane.agent().is_some());
        }
        active.push(lane);
    }
}

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "http.ureq",
        "the call was ended from this side: the transport is shut down",
    )
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[async_trait]
impl HttpTransport for UreqTransport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let began = tokio::time::Instant::now();
        let outcome = self.exchange(request).await;
        match &outcome {
            Ok(_) => self.counters.responded_after(began.elapsed()),
            Err(_) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    fn set_max_connections(&self, max: usize) -> Result<()> {
        if !self.settings.bounded {
            let message = "the legacy transport keeps its 50 connections; unset ARSHAI_USE_LEGACY_CONNECTIONS and \
                           ARSHAI_DISABLE_OPTIMIZATIONS to change them";
            return Err(Error::new(ErrorKind::Unsupported, "http.legacy", message));
        }
        self.threads.set_max_threads(max);
        Ok(())
    }

    fn stats(&self) -> HttpStats {
        let mut stats = self.counters.snapshot();
        stats.idle_connections = self.lanes.idle() as u64;
        stats.bounds = vec![self.threads.bound(), self.waiting.bound()];
        stats
    }

    async fn health(&self) -> Health {
        let reason = match (self.closed.load(Ordering::Acquire), self.settings.broken) {
            (true, _) => "it is shut down",
            (false, Some(broken)) => broken,
            (false, None) => return Health::Healthy,
        };
        Health::Unhealthy { reason: reason.to_owned() }
    }

    async fn shutdown(&self, deadline: Deadline) -> usize {
        self.closed.store(true, Ordering::Release);
        self.waiting.close();
        let idle = deadline.bound("http.ureq", "requests to end", self.threads.idle()).await;
        let active = std::mem::take(&mut *self.active.lock());
        let cut = active.iter().filter(|lane| lane.cut()).count();
        self.threads.close();
        self.lanes.clear();
        if idle.is_ok() { 0 } else { cut }
    }
}

impl Drop for UreqTransport {
    fn drop(&mut self) {
        for lane in self.active.get_mut() {
            lane.cut();
        }
    }
}

impl fmt::Debug for UreqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqTransport")
            .field("threads", &self.threads)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
