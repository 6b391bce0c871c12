//! What both executors share: how one call fails, how it is awaited, what is counted.

use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use crate::LimitUsage;
use crate::support::panic_message;
use crate::tasks::{
    FailureKind, Function, FunctionCall, FunctionError, FunctionFuture, FunctionOutcome, Functions, TaskStats,
};

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) error: String,
}

/// What a call ended with.
pub(super) type Ended = Result<Value, Failure>;

impl Failure {
    pub(super) fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into() }
    }

    pub(super) fn shut_down() -> Self {
        Self::new(FailureKind::ShutDown, "the executor is shut down; nothing was started")
    }

    pub(super) fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "cancelled before it ended: the executor or its runtime shut down")
    }

    pub(super) fn no_runtime() -> Self {
        Self::new(FailureKind::Failed, "there is no tokio runtime here to start it on; call from within one")
    }

    pub(super) fn timed_out(waited: Duration) -> Self {
        Self::new(
            FailureKind::TimedOut,
            format!("its deadline passed after {:.3}s, waiting for its turn included", waited.as_secs_f64()),
        )
    }

    pub(super) fn of(self, call: FunctionCall) -> FunctionOutcome {
        FunctionOutcome::failed(call, self.kind, self.error)
    }
}

impl From<FunctionError> for Failure {
    fn from(error: FunctionError) -> Self {
        let kind = if error.is_bad_arguments() { FailureKind::BadArguments } else { FailureKind::Failed };
        Self::new(kind, error.message())
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::new(FailureKind::Panicked, panic_message(panic.as_ref())),
            Err(_) => Self::cancelled(),
        }
    }
}

/// The outcome of `call`.
pub(super) fn outcome(call: FunctionCall, ended: Ended) -> FunctionOutcome {
    match ended {
        Ok(value) => FunctionOutcome::completed(call, value),
        Err(failure) => failure.of(call),
    }
}

/// The function that `call` names and the arguments to hand it, or what is wrong with the call.
pub(super) fn resolve<'a>(
    call: &FunctionCall,
    functions: &'a Functions,
) -> Result<(&'a Function, Value), Unresolved> {
    let function = functions.get(&call.name).ok_or(Unresolved::NotFound)?;
    let args = match &call.args {
        Value::Object(_) => call.args.clone(),
        // A model that has nothing to say leaves them out.
        Value::Null => Value::Object(Map::new()),
        _ => return Err(Unresolved::BadArguments),
    };
    Ok((function, args))
}

/// What is wrong with a call before it begins.
pub(super) enum Unresolved {
    NotFound,
    BadArguments,
}

impl Unresolved {
    pub(super) fn of(self, call: FunctionCall) -> FunctionOutcome {
        match self {
            Self::NotFound => FunctionOutcome::not_found(call),
            Self::BadArguments => FunctionOutcome::failed(
                call,
                FailureKind::BadArguments,
                "the arguments do not fit: a JSON object was expected",
            ),
        }
    }
}

/// The places of calls whose id came earlier in the same turn, in order.
pub(super) fn duplicates(calls: &[FunctionCall]) -> Vec<usize> {
    let mut seen = HashSet::with_capacity_and_hasher(calls.len(), hashlink::DefaultHashBuilder::default());
    let ids = calls.iter().enumerate().filter_map(|(i, call)| Some((i, call.call_id.as_deref()?)));
    ids.filter(|(_, id)| !seen.insert(*id)).map(|(i, _)| i).collect()
}

/// The failure of a call whose id came earlier in the same turn.
pub(super) fn duplicate(call: FunctionCall) -> FunctionOutcome {
    let id = call.call_id.as_deref().unwrap_or_default();
    let error = format!("the call id {id:?} came twice in one turn; only its first call was run");
    FunctionOutcome::failed(call, FailureKind::DuplicateCallId, error)
}

/// How polling a call in place went.
pub(super) enum InPlace {
    Ended(Ended),
    Waits(FunctionFuture),
}

/// Calls an async function and polls it once where it stands, panics contained, and notes how it went.
///
/// The waker is one that does nothing: whoever gets [`InPlace::Waits`] polls again at once. `began` is when
/// it began; the time it ended is given back, so that calls in a row read the clock once each.
pub(super) fn poll_in_place(
    function: &Function,
    body: &(dyn Fn(Value) -> FunctionFuture + Send + Sync),
    args: Value,
    began: Instant,
) -> (InPlace, Instant) {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut future = body(args);
        // Out of tokio's per-task budget, which is the turn's and not this call's.
        let mut free = std::pin::pin!(tokio::task::coop::unconstrained(&mut future));
        match free.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => InPlace::Ended(result.map_err(Failure::from)),
            Poll::Pending => InPlace::Waits(future),
        }
    }));
    let ended = polled.unwrap_or_else(|panic| {
        InPlace::Ended(Err(Failure::new(FailureKind::Panicked, panic_message(panic.as_ref()))))
    });
    let now = Instant::now();
    function.pace().note(now - began, matches!(ended, InPlace::Ended(_)));
    (ended, now)
}

/// Calls an async function and awaits it, noting how its first poll went.
pub(super) async fn call_noting_pace(
    function: &Function,
    body: &(dyn Fn(Value) -> FunctionFuture + Send + Sync),
    args: Value,
) -> Result<Value, FunctionError> {
    let began = Instant::now();
    let mut future = body(args);
    let mut first = true;
    std::future::poll_fn(|context| {
        let poll = future.as_mut().poll(context);
        if std::mem::take(&mut first) {
            function.pace().note(began.elapsed(), poll.is_ready());
        }
        poll
    })
    .await
}

/// A spawned task that is aborted when this is dropped.
#[derive(Debug)]
pub(super) struct Spawned<T>(pub(super) JoinHandle<T>);

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Spawned<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Ends when the executor aborts what still runs, or is dropped.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the executor is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What an executor counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    succeeded: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    pub(super) background_started: AtomicU64,
    pub(super) background_succeeded: AtomicU64,
    pub(super) background_failed: AtomicU64,
    pub(super) background_rejected: AtomicU64,
}

impl Counters {
    /// Counts the outcome of a regular call.
    pub(super) fn count(&self, outcome: &FunctionOutcome) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match outcome {
            FunctionOutcome::Completed(_) => {
                add(&self.succeeded);
            }
            FunctionOutcome::Failed(failure) => {
                add(&self.failed);
                match failure.kind {
                    FailureKind::Panicked => add(&self.panicked),
                    FailureKind::TimedOut => add(&self.timed_out),
                    _ => 0,
                };
            }
            FunctionOutcome::Initiated(_) => {}
        }
    }

    /// A snapshot.
    pub(super) fn stats(&self) -> TaskStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = TaskStats::default();
        stats.succeeded = read(&self.succeeded);
        stats.failed = read(&self.failed);
        stats.panicked = read(&self.panicked);
        stats.timed_out = read(&self.timed_out);
        stats.background_started = read(&self.background_started);
        stats.background_succeeded = read(&self.background_succeeded);
        stats.background_failed = read(&self.background_failed);
        stats.background_rejected = read(&self.background_rejected);
        stats
    }
}
