//! Adaptive concurrency limit (AIMD) per model and API key.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::component::{CloseReport, Component, ComponentRegistrar, ShutdownPhase, unsupported_limit_error};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Health, LimitUsage};
use crate::registry::BuildContext;
use crate::support::{OwnedPermit, PermitQueue, ResizableSemaphore, counters};

const COMPONENT: &str = "llm.limiter";
const MAX_CONCURRENCY: &str = "llm.max_concurrency";
const MAX_WAITING: &str = "http.max_waiting";

/// Settings of an [`AdaptiveLimiter`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveLimiterConfig {
    /// Lower bound of the concurrency limit. Default: 1.
    pub min: usize,
    /// Upper bound of the concurrency limit, and its initial value. Default: 64.
    pub max: usize,
    /// Maximum number of requests that wait for a permit; further requests fail immediately with `Capacity`.
    /// Default: 1 000.
    pub max_waiting: usize,
    /// Fraction of the requests in flight that remains allowed after an overload. Default: 0.5.
    pub backoff_ratio: f64,
    /// Upper bound of a provider's `Retry-After` that pauses all requests. Default: 60 s.
    pub max_retry_after: Duration,
    /// The setting that sets `max`, for errors. Default: `llm.max_concurrency`.
    pub setting: &'static str,
}

impl Default for AdaptiveLimiterConfig {
    fn default() -> Self {
        Self {
            min: 1,
            max: 64,
            max_waiting: 1_000,
            backoff_ratio: 0.5,
            max_retry_after: Duration::from_secs(60),
            setting: MAX_CONCURRENCY,
        }
    }
}

/// The number of requests that may be in flight to one model with one API key. Cloning returns another handle.
///
/// The limit starts at its upper bound. An overload (429 or 5xx) lowers it to half of the requests in flight, once for
/// all requests that were in flight by then. Each success raises it by one up to half of the value before the decrease
/// (slow start), and from there each full round of successes does. A provider's `Retry-After` pauses all requests,
/// within a bound. The limit never leaves `min..=max`.
#[derive(Debug, Clone)]
pub struct AdaptiveLimiter(Arc<Registered>);

/// A limiter that is a component of a runtime until the last handle is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    limiter: Arc<Limiter>,
    registrar: Option<ComponentRegistrar>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(registrar) = &self.registrar {
            let component: Arc<dyn Component> = self.limiter.clone();
            registrar.unregister(&component);
        }
    }
}

#[derive(Debug)]
struct Limiter {
    name: String,
    config: AdaptiveLimiterConfig,
    queue: PermitQueue,
    state: Mutex<State>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Upper bound of the limit.
    max: usize,
    limit: usize,
    /// Below this each success raises the limit.
    slow_start_threshold: usize,
    /// Successes since the limit last changed.
    successes: usize,
    /// Most requests in flight since the last decrease: the limit rises to twice as many and no further.
    peak_in_flight: usize,
    /// Number of decreases.
    decreases: u64,
    /// No request starts before.
    paused_until: Option<Instant>,
}

/// Counters of an [`AdaptiveLimiter`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimiterStats {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Decreases of the limit after an overload.
    pub decreases: u64,
    /// The current limit.
    pub limit: u64,
}

impl AdaptiveLimiter {
    /// A separate limiter of `model`; its [component name](Self::name) is `llm:MODEL`.
    #[must_use]
    pub fn new(model: &str, config: AdaptiveLimiterConfig) -> Self {
        Self(Arc::new(Registered { limiter: Arc::new(Limiter::new(model, config)), registrar: None }))
    }

    /// Like [`new`](Self::new), but a component of the runtime of `context` until the last handle is dropped.
    #[must_use]
    pub fn registered(model: &str, config: AdaptiveLimiterConfig, context: &BuildContext) -> Self {
        let limiter = Arc::new(Limiter::new(model, config));
        let registrar = context.registrar();
        registrar.register(limiter.clone());
        Self(Arc::new(Registered { limiter, registrar: Some(registrar) }))
    }

    /// The component's name: `llm:MODEL`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.limiter().name
    }

    /// The current limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limiter().queue.permits().max()
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        self.limiter().stats()
    }

    /// A snapshot of requests in flight, against the upper bound, and of requests waiting.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitUsage> {
        Component::limits(self.limiter())
    }

    /// Waits for a permit, and for the end of a pause that the provider asked for.
    pub(super) async fn acquire(&self, deadline: Deadline) -> Result<LimiterPermit> {
        let limiter = self.limiter();
        let permit = limiter.queue.acquire(deadline).await?;
        limiter.wait_for_pause(deadline).await?;
        let mut state = limiter.state.lock();
        state.peak_in_flight = state.peak_in_flight.max(limiter.queue.permits().used());
        let decreases = state.decreases;
        drop(state);
        Ok(LimiterPermit { limiter: self.clone(), decreases, _permit: permit })
    }

    pub(super) fn downgrade(&self) -> std::sync::Weak<Registered> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(weak: &std::sync::Weak<Registered>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }
}

impl Limiter {
    fn new(model: &str, config: AdaptiveLimiterConfig) -> Self {
        let min = config.min.max(1);
        let config = AdaptiveLimiterConfig { min, max: config.max.max(min), ..config };
        Self {
            name: format!("llm:{model}"),
            config,
            queue: PermitQueue::new(
                ResizableSemaphore::new(MAX_CONCURRENCY, "requests", config.max),
                ResizableSemaphore::new(MAX_WAITING, "requests", config.max_waiting),
            )
            .named(COMPONENT, "waiting for a concurrency permit")
            .with_setting(config.setting),
            state: Mutex::new(State {
                max: config.max,
                limit: config.max,
                slow_start_threshold: config.max,
                successes: 0,
                peak_in_flight: 0,
                decreases: 0,
                paused_until: None,
            }),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn stats(&self) -> LimiterStats {
        let (decreases, limit) = {
            let state = self.state.lock();
            (state.decreases, state.limit as u64)
        };
        LimiterStats {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            decreases,
            limit,
        }
    }

    async fn wait_for_pause(&self, deadline: Deadline) -> Result<()> {
        let Some(paused_until) = self.state.lock().paused_until else { return Ok(()) };
        if paused_until > deadline.instant() {
            let retry_after = paused_until.saturating_duration_since(Instant::now());
            let message = "the provider's Retry-After exceeds the request deadline";
            return Err(Error::new(ErrorKind::RateLimited, COMPONENT, message)
                .with_retry_after(Some(retry_after))
                .not_sent());
        }
        tokio::time::sleep_until(paused_until).await;
        Ok(())
    }

    /// Raises the limit, if what is allowed is used.
    fn on_success(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.successes += 1;
        let is_used = state.peak_in_flight * 2 >= state.limit;
        let required = if state.limit < state.slow_start_threshold { 1 } else { state.limit };
        if state.limit < state.max && is_used && state.successes >= required {
            let limit = state.limit + 1;
            self.set_limit(&mut state, limit);
        }
    }

    fn on_failure(&self, error: &Error, decreases_at_start: u64) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if is_overload(error) {
            self.on_overload(decreases_at_start, error.retry_after());
        }
    }

    /// Lowers the limit, unless it has been lowered since the request started.
    fn on_overload(&self, decreases_at_start: u64, retry_after: Option<Duration>) {
        let AdaptiveLimiterConfig { min, backoff_ratio, max_retry_after, .. } = self.config;
        let mut state = self.state.lock();
        if let Some(retry_after) = retry_after {
            let until = Instant::now() + retry_after.min(max_retry_after);
            state.paused_until = Some(state.paused_until.map_or(until, |earlier| earlier.max(until)));
        }
        if decreases_at_start != state.decreases {
            return;
        }
        state.decreases += 1;
        let reduced = |n: usize| ((n as f64 * backoff_ratio.clamp(0.0, 1.0)) as usize).max(min);
        if state.limit > min {
            state.slow_start_threshold = reduced(state.limit);
            let in_flight = self.queue.permits().used().min(state.limit);
            self.set_limit(&mut state, reduced(in_flight));
            state.peak_in_flight = 0;
        }
        tracing::warn!(
            limiter = self.name,
            limit = state.limit,
            "provider overloaded: concurrency limit lowered"
        );
    }

    fn set_limit(&self, state: &mut State, limit: usize) {
        (state.limit, state.successes) = (limit, 0);
        self.queue.permits().set_max(limit);
    }

    /// Changes the upper bound. A limit that was at the upper bound stays there.
    fn set_max(&self, max: usize) {
        let mut state = self.state.lock();
        let limit = if state.limit == state.max { max } else { state.limit.min(max) };
        state.max = max;
        self.set_limit(&mut state, limit);
    }
}

#[async_trait]
impl Component for Limiter {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Clients
    }

    /// Against the upper bound, which is what `llm.max_concurrency` sets; the current limit is a counter.
    fn limits(&self) -> Vec<LimitUsage> {
        let mut limits = self.queue.limits();
        let max = self.state.lock().max as u64;
        limits[0].limit = limits[0].limit.map(|_| max);
        limits
    }

    fn counters(&self) -> Value {
        counters(&self.stats())
    }

    /// Degraded while the provider asks for fewer requests; sends nothing.
    async fn health(&self, _: Deadline) -> Health {
        let state = self.state.lock();
        match state.paused_until.filter(|until| *until > Instant::now()) {
            Some(_) => Health::degraded(format!("{}: paused by the provider's Retry-After", self.name)),
            None => Health::Healthy,
        }
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        if key != MAX_CONCURRENCY {
            return Err(unsupported_limit_error(self.name.clone(), key));
        }
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        if max < self.config.min {
            let message = format!("{key} must be at least {}", self.config.min);
            return Err(Error::new(ErrorKind::InvalidInput, COMPONENT, message));
        }
        self.set_max(max);
        Ok(())
    }

    /// Rejects waiting and new requests. Requests in flight belong to the transport, which is closed after this.
    async fn close(&self, _: Deadline) -> CloseReport {
        self.queue.close();
        CloseReport::idle()
    }
}

/// Permission for one request, from before it is sent until its response has been read.
#[derive(Debug)]
pub(super) struct LimiterPermit {
    limiter: AdaptiveLimiter,
    /// Decreases of the limit by the time the request started.
    decreases: u64,
    _permit: OwnedPermit,
}

impl LimiterPermit {
    /// Adjusts the limit to the result and releases the permit.
    pub(super) fn record<T>(self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.limiter.limiter().on_success(),
            Err(error) => self.limiter.limiter().on_failure(error, self.decreases),
        }
        result
    }
}

/// Whether fewer requests would help. They do not help when a quota is exhausted.
fn is_overload(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Overloaded) && error.is_retryable()
}
