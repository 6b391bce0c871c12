//! The contract of [`TaskExecutor`], as a suite that any backend can run.
//!
//! ```no_run
//! # async fn example() {
//! use std::sync::Arc;
//! use arshai::backends::tasks::BoundedExecutor;
//! use arshai::contract::tasks::{self, Setup};
//! use arshai::tasks::TaskExecutor;
//!
//! tasks::suite(async |setup: Setup| {
//!     let builder = BoundedExecutor::builder()
//!         .max_background_tasks(setup.max_background_tasks)
//!         .max_concurrency(setup.max_concurrency)
//!         .timeout(setup.timeout)
//!         .max_result_bytes(setup.max_result_bytes)
//!         .max_blocking_threads(setup.max_blocking_threads)
//!         .background_failure_listener(setup.listener);
//!     Arc::new(builder.build()) as Arc<dyn TaskExecutor>
//! })
//! .await;
//! # }
//! ```

mod background;
mod limits;
mod nested;
mod regular;

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::opaque_debug;
use crate::tasks::{
    BackgroundFailure, BackgroundFailureListener, CallContext, FailureKind, Function, FunctionCall,
    FunctionError, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome, Functions, Progress,
    ProgressListener, StreamingExecutionState, TaskExecutor,
};
use crate::{Deadline, Health};

/// The settings of an executor under test. A backend that is not bounded ignores the limits, but not the listener.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// Maximum number of background tasks.
    pub max_background_tasks: usize,
    /// Maximum number of concurrent regular async calls.
    pub max_concurrency: usize,
    /// Timeout of calls whose function has none.
    pub timeout: Duration,
    /// Maximum size of a result, in bytes of JSON.
    pub max_result_bytes: usize,
    /// Maximum number of threads for blocking functions.
    pub max_blocking_threads: usize,
    /// Listener of failed background tasks.
    pub listener: BackgroundFailureListener,
}

opaque_debug!(Setup {});

impl Default for Setup {
    fn default() -> Self {
        Self {
            max_background_tasks: 4,
            max_concurrency: 8,
            timeout: LONG,
            max_result_bytes: 1_000,
            max_blocking_threads: 4,
            listener: Arc::new(|_| {}),
        }
    }
}

/// Creates executors.
type Make<'a> = dyn Fn(Setup) -> Pin<Box<dyn Future<Output = Arc<dyn TaskExecutor>> + 'a>> + 'a;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// Timeout of functions that never end.
const SHORT: Duration = Duration::from_millis(30);

/// Runs the whole suite: in a tokio runtime of either kind, with real time.
///
/// # Panics
/// If an executor returned by `make` breaks a promise.
pub async fn suite<F, Fut>(make: F)
where
    F: Fn(Setup) -> Fut,
    Fut: Future<Output = Arc<dyn TaskExecutor>>,
{
    let make: &Make<'_> = &|setup| Box::pin(make(setup));
    regular::every_call_has_one_outcome_in_the_order_of_the_calls(make).await;
    regular::a_panic_payload_that_panics_when_dropped_is_contained(make).await;
    regular::arguments_are_an_object(make).await;
    regular::timeouts_of_functions_and_deadlines_of_turns_hold(make).await;
    regular::regular_calls_run_concurrently(make).await;
    regular::progressive_calls_start_immediately_and_are_gathered_in_order(make).await;
    regular::no_call_id_runs_twice_in_a_conversation(make).await;
    regular::a_future_dropped_at_any_await_leaves_nothing_running(make).await;
    nested::nested_calls_need_no_permit(make).await;
    nested::nested_calls_end_with_their_parent(make).await;
    nested::progress_reaches_the_listener_of_the_turn(make).await;
    nested::a_blocking_function_sees_that_its_call_was_cancelled(make).await;
    background::a_background_call_outlives_its_turn_and_releases_its_permit(make).await;
    background::a_background_failure_is_counted_and_reported_after_its_permit_is_released(make).await;
    background::closing_waits_then_aborts_and_rejects_further_calls(make).await;
    background::dropping_the_executor_ends_its_background_tasks(make).await;
    if make(Setup::default()).await.capabilities().bounded {
        limits::suite(make).await;
    }
}

fn echo() -> Function {
    Function::new("echo", |args: Value| async move { Ok::<_, FunctionError>(args) })
}

fn never() -> Function {
    Function::new("never", |_| pending::<Result<Value, FunctionError>>())
}

fn call(name: &str) -> FunctionCall {
    FunctionCall::new(name, json!({}))
}

fn functions<const N: usize>(all: [Function; N]) -> Functions {
    all.into_iter().collect()
}

async fn run(executor: &dyn TaskExecutor, calls: Vec<FunctionCall>, functions: &Functions) -> Turn {
    let input =
        FunctionExecutionInput::new(calls, functions.clone()).with_background_tasks(functions.clone());
    Turn(executor.execute_functions(input).await)
}

struct Turn(FunctionExecutionResult);

impl Turn {
    fn failure(&self, index: usize) -> Option<FailureKind> {
        self.0.failed_functions.iter().find(|failed| failed.index == index).map(|failed| failed.kind)
    }
}

/// Waits until `condition` holds; the promise is broken if it never does.
async fn until(promise: &str, condition: impl Fn() -> bool) {
    let deadline = Deadline::after(LONG);
    while !condition() {
        assert!(!deadline.has_passed(), "{promise}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Asserts that `result` has exactly one outcome for each of `calls`, each list in order.
fn assert_one_outcome_each(calls: usize, result: &FunctionExecutionResult) {
    let completed: Vec<_> = result.regular_results.iter().map(|result| result.index).collect();
    let initiated: Vec<_> = result.background_initiated.iter().map(|started| started.index).collect();
    let failed: Vec<_> = result.failed_functions.iter().map(|failed| failed.index).collect();
    for list in [&completed, &initiated, &failed] {
        assert!(list.is_sorted(), "each list is in the order of the calls: {list:?}");
    }
    let mut all = [completed, initiated, failed].concat();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..calls), "every call has exactly one outcome: {all:?}");
}

fn panics_before_its_future(_: Value) -> std::future::Ready<Result<Value, FunctionError>> {
    panic!("before the future")
}

/// A function that waits for `gate` to be notified, and the gate.
fn gated(name: &str) -> (Function, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let waits = Arc::clone(&gate);
    let function = Function::new(name, move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.notified().await;
            Ok::<_, FunctionError>(Value::Null)
        }
    });
    (function, gate)
}

/// Counts the running calls.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Blocks threads until it is opened.
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(false), Condvar::new()))
    }

    fn wait(&self) {
        let mut open = self.0.lock();
        while !*open {
            self.1.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.0.lock() = true;
        self.1.notify_all();
    }
}
