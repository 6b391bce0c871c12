//! As many requests at once as the provider bears.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    ChatEvent, ChatRequest, ChatResponse, ChatStream, EmbedRequest, EmbedResponse, LlmClient, RetryListener,
    retry_after,
};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;
use crate::support::{OwnedPermit, ResizableSemaphore};

const COMPONENT: &str = "llm.concurrency";

/// How far and how fast a concurrency may move.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ConcurrencySettings {
    /// The least requests at once, however loud the provider complains. Default: 1.
    pub min: usize,
    /// The most requests at once, where it starts. Default: 64.
    pub max: usize,
    /// The most requests that wait for their turn; one more is refused at once. Default: 1 000.
    pub max_waiting: usize,
    /// What is left of the requests in flight after a complaint. Default: a half.
    pub decrease: f64,
    /// The longest pause for everybody that a provider may ask for. Default: 60 s.
    pub max_pause: Duration,
}

impl Default for ConcurrencySettings {
    fn default() -> Self {
        Self { min: 1, max: 64, max_waiting: 1_000, decrease: 0.5, max_pause: Duration::from_secs(60) }
    }
}

/// The number of requests that may be in flight at once to one model with one key. Clones are handles to the same
/// number.
///
/// It starts at its most. When the provider answers that it is asked too often or overloaded, it falls to half of what
/// was in flight, once for all requests that were under way by then. Each answer raises it by one up to half of what
/// it was before it fell, and from there each full round of answers does: one complaint while little was asked costs
/// little. A pause that the provider asks for holds everybody, within a bound. It never leaves `min..=max`.
#[derive(Debug, Clone)]
pub struct Concurrency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    settings: ConcurrencySettings,
    slots: ResizableSemaphore,
    waiting: ResizableSemaphore,
    state: Mutex<State>,
    answered: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The number in force.
    limit: usize,
    /// Below this it rises fast.
    threshold: usize,
    /// Answers since it last changed.
    answers: usize,
    /// The most requests in flight at once since it last fell: it rises to twice as many and no further.
    busiest: usize,
    /// How often it fell.
    falls: u64,
    /// Nobody begins before.
    hold: Option<Instant>,
}

/// What a [`Concurrency`] is doing and has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LlmStats {
    /// Whose it is: `openai/gpt-4o`, with a number where there are several keys.
    pub name: String,
    /// Exchanges that were answered.
    pub answered: u64,
    /// Exchanges that failed, retries within them not counted.
    pub failed: u64,
    /// How often the provider's complaints lowered the limit.
    pub backoffs: u64,
    /// Requests in flight and requests waiting; the first one's limit is the one in force.
    pub limits: Vec<LimitUsage>,
}

impl Concurrency {
    /// A concurrency of its own, called `name` in statistics.
    #[must_use]
    pub fn new(name: impl Into<String>, settings: ConcurrencySettings) -> Self {
        let min = settings.min.max(1);
        let settings = ConcurrencySettings { min, max: settings.max.max(min), ..settings };
        Self(Arc::new(Inner {
            name: name.into(),
            settings,
            slots: ResizableSemaphore::new(COMPONENT, "requests", settings.max),
            waiting: ResizableSemaphore::new("llm.max_waiting", "requests", settings.max_waiting),
            state: Mutex::new(State {
                limit: settings.max,
                threshold: settings.max,
                answers: 0,
                busiest: 0,
                falls: 0,
                hold: None,
            }),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// The number in force.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.slots.max()
    }

    /// Counters and bounds, as of now.
    #[must_use]
    pub fn stats(&self) -> LlmStats {
        let inner = &self.0;
        LlmStats {
            name: inner.name.clone(),
            answered: inner.answered.load(Ordering::Relaxed),
            failed: inner.failed.load(Ordering::Relaxed),
            backoffs: inner.state.lock().falls,
            limits: vec![inner.slots.usage(), inner.waiting.usage()],
        }
    }

    /// Whether nothing but this handle uses it.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Waits for a turn.
    async fn enter(&self, deadline: Deadline) -> Result<Turn> {
        let slot = self.slot(deadline).await?;
        let hold = self.0.state.lock().hold;
        if let Some(hold) = hold {
            if hold > deadline.instant() {
                let after = hold.saturating_duration_since(Instant::now());
                let message = "the provider asked for a pause that outlasts the deadline";
                return Err(Error::new(ErrorKind::RateLimited, COMPONENT, message)
                    .with_context("retry_after", format!("{:.1}s", after.as_secs_f64())));
            }
            tokio::time::sleep_until(hold).await;
        }
        let mut state = self.0.state.lock();
        state.busiest = state.busiest.max(self.0.slots.used());
        let falls = Arc::new(AtomicU64::new(state.falls));
        drop(state);
        Ok(Turn { concurrency: self.clone(), falls, _slot: slot })
    }

    async fn slot(&self, deadline: Deadline) -> Result<OwnedPermit> {
        let inner = &self.0;
        if let Some(slot) = inner.slots.try_acquire_owned() {
            return Ok(slot);
        }
        let _waiting = inner.waiting.try_acquire_owned().ok_or_else(|| {
            let message = "too many requests already wait for the provider";
            Error::new(ErrorKind::Capacity, COMPONENT, message).with_context("limit", inner.waiting.max())
        })?;
        deadline.run(COMPONENT, "waiting for a turn", inner.slots.acquire_owned()).await?
    }

    /// The provider answered: a little more may be borne, if what is allowed is used.
    fn rise(&self) {
        let inner = &self.0;
        inner.answered.fetch_add(1, Ordering::Relaxed);
        let mut state = inner.state.lock();
        state.answers += 1;
        let is_used = state.busiest * 2 >= state.limit;
        let due = if state.limit < state.threshold { 1 } else { state.limit };
        if state.limit < inner.settings.max && is_used && state.answers >= due {
            let more = state.limit + 1;
            self.change(&mut state, more);
        }
    }

    /// The provider complained about a request that began when the number had fallen `falls` times.
    fn fall(&self, falls: &AtomicU64, asked: Option<Duration>) {
        let ConcurrencySettings { min, decrease, max_pause, .. } = self.0.settings;
        let mut state = self.0.state.lock();
        if let Some(asked) = asked {
            let until = Instant::now() + asked.min(max_pause);
            state.hold = Some(state.hold.map_or(until, |hold| hold.max(until)));
        }
        if falls.load(Ordering::Relaxed) == state.falls {
            state.falls += 1;
            let share = |of: usize| ((of as f64 * decrease.clamp(0.0, 1.0)) as usize).max(min);
            if state.limit > min {
                state.threshold = share(state.limit);
                let in_flight = self.0.slots.used().min(state.limit);
                self.change(&mut state, share(in_flight));
                state.busiest = 0;
            }
            tracing::warn!(model = self.0.name, limit = state.limit, "the provider asks for less");
        }
        falls.store(state.falls, Ordering::Relaxed);
    }

    fn change(&self, state: &mut State, limit: usize) {
        (state.limit, state.answers) = (limit, 0);
        self.0.slots.set_max(limit);
    }
}

/// A request's turn, from before it is sent until its answer has been read.
#[derive(Debug)]
struct Turn {
    concurrency: Concurrency,
    /// How often the number had fallen when the request, or its latest attempt, began.
    falls: Arc<AtomicU64>,
    _slot: OwnedPermit,
}

impl Turn {
    /// `listener`, and this turn's concurrency before it.
    fn listening(&self, listener: RetryListener) -> RetryListener {
        let (concurrency, falls) = (self.concurrency.clone(), Arc::clone(&self.falls));
        listener.and(move |error| {
            if is_complaint(error) {
                concurrency.fall(&falls, retry_after(error));
            }
        })
    }

    fn ends<T>(self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.concurrency.rise(),
            Err(error) => self.failed(error),
        }
        result
    }

    fn failed(&self, error: &Error) {
        self.concurrency.0.failed.fetch_add(1, Ordering::Relaxed);
        if is_complaint(error) {
            self.concurrency.fall(&self.falls, retry_after(error));
        }
    }
}

/// Whether fewer requests would help. They do not help an account that has nothing left.
fn is_complaint(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Overloaded) && error.is_retryable()
}

/// A client whose requests are as many at once as its [`Concurrency`] allows.
///
/// Waiting for a turn spends the request's deadline. A streamed answer keeps its turn until it is read to its end or
/// dropped. It goes outside of a client that retries, whose retries it hears of, and inside of anything that asks
/// several clients.
pub struct AdaptiveClient<C> {
    client: C,
    concurrency: Concurrency,
    timeout: Duration,
}

impl<C: LlmClient> AdaptiveClient<C> {
    /// Decorates `client`; clients that are given clones of one `concurrency` share it.
    pub fn new(client: C, concurrency: Concurrency) -> Self {
        Self { client, concurrency, timeout: Duration::from_secs(600) }
    }

    /// Sets the deadline of requests that bring none of their own. Default: 600 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn deadline(&self, asked: Option<Deadline>) -> Deadline {
        asked.unwrap_or_else(|| Deadline::after(self.timeout))
    }
}

#[async_trait]
impl<C: LlmClient> LlmClient for AdaptiveClient<C> {
    async fn chat(&self, mut request: ChatRequest) -> Result<ChatResponse> {
        let deadline = self.deadline(request.deadline);
        let turn = self.concurrency.enter(deadline).await?;
        request.deadline = Some(deadline);
        request.retry_listener = turn.listening(request.retry_listener);
        let response = self.client.chat(request).await;
        turn.ends(response)
    }

    async fn stream(&self, mut request: ChatRequest) -> Result<ChatStream> {
        let deadline = self.deadline(request.deadline);
        let turn = self.concurrency.enter(deadline).await?;
        request.deadline = Some(deadline);
        request.retry_listener = turn.listening(request.retry_listener);
        match self.client.stream(request).await {
            Err(error) => turn.ends(Err(error)),
            Ok(stream) => {
                let mut turn = Some(turn);
                Ok(ChatStream::new(stream.map(move |event| {
                    if matches!(event, Err(_) | Ok(ChatEvent::Finished { .. }))
                        && let Some(turn) = turn.take()
                    {
                        return turn.ends(event);
                    }
                    event
                })))
            }
        }
    }

    async fn embed(&self, mut request: EmbedRequest) -> Result<EmbedResponse> {
        let deadline = self.deadline(request.deadline);
        let turn = self.concurrency.enter(deadline).await?;
        request.deadline = Some(deadline);
        request.retry_listener = turn.listening(request.retry_listener);
        let response = self.client.embed(request).await;
        turn.ends(response)
    }

    fn model(&self) -> &str {
        self.client.model()
    }
}

impl<C: fmt::Debug> fmt::Debug for AdaptiveClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveClient")
            .field("client", &self.client)
            .field("limit", &self.concurrency.limit())
            .finish_non_exhaustive()
    }
}
