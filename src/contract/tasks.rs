//! The contract of [`TaskExecutor`], as a suite that any backend can run.
//!
//! ```no_run
//! # async fn example() {
//! use std::sync::Arc;
//! use arshai::backends::tasks::BoundedExecutor;
//! use arshai::contract::tasks::{self, Setup};
//!
//! tasks::contract(&|setup: Setup| {
//!     let builder = BoundedExecutor::builder()
//!         .max_background_tasks(setup.max_background_tasks)
//!         .max_concurrency(setup.max_concurrency)
//!         .timeout(setup.timeout)
//!         .max_result_bytes(setup.max_result_bytes)
//!         .max_blocking_threads(setup.max_blocking_threads)
//!         .background_failure_listener(setup.listener);
//!     Arc::new(builder.build())
//! })
//! .await;
//! # }
//! ```

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

use crate::Deadline;
use crate::tasks::{
    BackgroundFailure, BackgroundFailureListener, FailureKind, Function, FunctionCall, FunctionError,
    FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome, Functions, StreamingExecutionState,
    TaskExecutor,
};

/// With which limits the suite wants an executor. A backend that is not bounded ignores the limits, not the
/// listener.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The most background tasks at once.
    pub max_background_tasks: usize,
    /// The most regular calls at once.
    pub max_concurrency: usize,
    /// The deadline of a call whose function has none of its own.
    pub timeout: Duration,
    /// The most bytes of a result's JSON.
    pub max_result_bytes: usize,
    /// The most threads for blocking functions.
    pub max_blocking_threads: usize,
    /// Told about every background task that fails.
    pub listener: BackgroundFailureListener,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").finish_non_exhaustive()
    }
}

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

/// Makes an executor.
pub type Make<'a> = &'a dyn Fn(Setup) -> Arc<dyn TaskExecutor>;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// How long functions that never end are given.
const SHORT: Duration = Duration::from_millis(30);

/// Runs the whole suite: in a tokio runtime of either kind, with time running as it does.
///
/// # Panics
/// Where the executors that `make` makes break a promise.
pub async fn contract(make: Make<'_>) {
    every_call_has_one_outcome_in_the_order_of_the_calls(make).await;
    arguments_are_an_object(make).await;
    deadlines_of_functions_and_turns_are_kept(make).await;
    regular_calls_run_side_by_side(make).await;
    a_background_call_outlives_its_turn_and_frees_its_slot(make).await;
    a_background_failure_is_counted_and_told_after_its_slot_is_free(make).await;
    progressive_calls_start_at_once_and_are_gathered_in_order(make).await;
    no_call_id_runs_twice_in_a_conversation(make).await;
    a_future_dropped_at_any_await_leaves_nothing(make).await;
    shutdown_waits_then_aborts_and_refuses_what_comes_later(make).await;
    dropping_the_executor_ends_its_background_tasks(make).await;
    if make(Setup::default()).capabilities().bounded {
        bounds(make).await;
    }
}

async fn bounds(make: Make<'_>) {
    no_more_calls_run_at_once_than_the_limit(make).await;
    waiting_for_a_slot_spends_the_deadline(make).await;
    a_result_over_the_cap_is_a_failure_that_says_so(make).await;
    at_the_limit_a_background_call_fails_and_starts_nothing(make).await;
    a_lowered_limit_lets_running_tasks_end(make).await;
    a_hundred_tools_of_which_most_misbehave_leave_the_others_alone(make).await;
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

/// Waits until `what` holds; the promise is broken if it never does.
async fn until(promise: &str, what: impl Fn() -> bool) {
    let deadline = Deadline::after(LONG);
    while !what() {
        assert!(!deadline.has_passed(), "{promise}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Checks that `result` holds exactly one outcome for each of `calls`, each list in order.
///
/// # Panics
/// When it does not.
pub fn assert_one_outcome_each(calls: usize, result: &FunctionExecutionResult) {
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

/// Whatever becomes of a call, it has one outcome, of the right kind and in Python's words.
pub async fn every_call_has_one_outcome_in_the_order_of_the_calls(make: Make<'_>) {
    let executor = make(Setup::default());
    let functions = functions([
        echo(),
        Function::new("fails", |_| async { Err::<Value, _>(FunctionError::new("out of stock")) }),
        Function::new("panics", |_| async { panic!("in the future") }.map_to_result()),
        Function::new("panics_early", panics_before_its_future),
        Function::blocking("blocks", Ok::<_, FunctionError>),
        Function::blocking("blocks_and_panics", |_| -> Result<Value, FunctionError> {
            panic!("on a thread")
        }),
        Function::typed("typed", |count: Vec<u32>| async move { Ok::<_, FunctionError>(count) }),
    ]);
    let calls = vec![
        FunctionCall::new("echo", json!({"n": 0})).with_call_id("a"),
        call("missing").with_call_id("b"),
        call("fails"),
        call("panics"),
        call("panics_early"),
        call("echo").with_call_id("a"),
        call("blocks"),
        call("blocks_and_panics"),
        FunctionCall::new("echo", json!({"n": 8})).in_background(),
        call("missing").in_background(),
        call("typed"),
        call("echo"),
    ];
    let turn = run(executor.as_ref(), calls.clone(), &functions).await;
    assert_one_outcome_each(calls.len(), &turn.0);
    let kinds: Vec<_> = turn.0.failed_functions.iter().map(|failed| (failed.index, failed.kind)).collect();
    let expected = [
        (1, FailureKind::NotFound),
        (2, FailureKind::Failed),
        (3, FailureKind::Panicked),
        (4, FailureKind::Panicked),
        (5, FailureKind::DuplicateCallId),
        (7, FailureKind::Panicked),
        (9, FailureKind::NotFound),
        (10, FailureKind::BadArguments),
    ];
    assert_eq!(kinds, expected);
    let errors: Vec<_> = turn.0.failed_functions.iter().map(|failed| failed.error.as_str()).collect();
    assert_eq!(errors[0], "Function 'missing' not found in available functions");
    assert_eq!(errors[1], "out of stock");
    assert!(errors[2].contains("in the future") && errors[3].contains("before the future"), "{errors:?}");
    assert!(errors[5].contains("on a thread"), "{errors:?}");
    assert_eq!(errors[6], "Function 'missing' not found in available background tasks");
    let first = &turn.0.regular_results[0];
    assert_eq!((&first.result, first.call_id.as_deref()), (&json!({"n": 0}), Some("a")));
    let message = &turn.0.background_initiated[0].message;
    assert_eq!(message, "Background task 'echo' initiated with args {\"n\":8}");
    let stats = executor.stats();
    assert_eq!((stats.succeeded, stats.failed, stats.panicked), (3, 7, 3), "{stats:?}");
    assert_eq!(executor.wait_for_background_tasks(Some(LONG)).await, 0);
}

fn panics_before_its_future(_: Value) -> std::future::Ready<Result<Value, FunctionError>> {
    panic!("before the future")
}

/// Gives a future that never returns the type that a function's must have.
trait MapToResult: Future<Output = ()> + Sized + Send + 'static {
    fn map_to_result(self) -> Pin<Box<dyn Future<Output = Result<Value, FunctionError>> + Send>> {
        Box::pin(async move {
            self.await;
            Ok(Value::Null)
        })
    }
}

impl<F: Future<Output = ()> + Send + 'static> MapToResult for F {}

/// Anything but an object (or nothing) as arguments is the caller's mistake.
pub async fn arguments_are_an_object(make: Make<'_>) {
    let executor = make(Setup::default());
    let args = [json!({}), Value::Null, json!([1]), json!("text"), json!(7)];
    let calls: Vec<_> = args.into_iter().map(|args| FunctionCall::new("echo", args)).collect();
    let turn = run(executor.as_ref(), calls, &functions([echo()])).await;
    assert_eq!(turn.0.regular_results.len(), 2, "{turn:?}", turn = turn.0);
    assert!(turn.0.failed_functions.iter().all(|failed| failed.kind == FailureKind::BadArguments));
}

/// A function's own deadline and its turn's cut off what never ends, and nothing else.
pub async fn deadlines_of_functions_and_turns_are_kept(make: Make<'_>) {
    let executor = make(Setup::default());
    let functions = functions([echo(), never().with_timeout(SHORT)]);
    let turn = run(executor.as_ref(), vec![call("never"), call("echo")], &functions).await;
    assert_eq!(turn.failure(0), Some(FailureKind::TimedOut));
    assert_eq!(turn.0.regular_results.len(), 1);
    assert_eq!(executor.stats().timed_out, 1);

    let input =
        FunctionExecutionInput::new(vec![call("never")], [never().with_timeout(LONG)].into_iter().collect());
    let result = executor.execute_functions(input.with_deadline(Deadline::after(SHORT))).await;
    assert_eq!(result.failed_functions[0].kind, FailureKind::TimedOut);
}

/// Two calls that each need the other to have begun both end.
pub async fn regular_calls_run_side_by_side(make: Make<'_>) {
    let executor = make(Setup::default());
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let meet = Function::new("meet", move |_| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Ok::<_, FunctionError>(Value::Null)
        }
    });
    let turn = run(executor.as_ref(), vec![call("meet"), call("meet")], &functions([meet])).await;
    assert_eq!(turn.0.regular_results.len(), 2);
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

/// A background task goes on after its turn; its slot is free when it has ended.
pub async fn a_background_call_outlives_its_turn_and_frees_its_slot(make: Make<'_>) {
    let executor = make(Setup::default());
    let (function, gate) = gated("waits");
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions([function])).await;
    assert_eq!(turn.0.background_initiated.len(), 1);
    assert_eq!(executor.active_background_tasks_count(), 1);
    assert_eq!(executor.wait_for_background_tasks(Some(Duration::from_millis(1))).await, 1);
    gate.notify_one();
    assert_eq!(executor.wait_for_background_tasks(None).await, 0);
    let stats = executor.stats();
    assert_eq!((stats.background_started, stats.background_succeeded), (1, 1));
}

/// The listener hears of each failure once, with the function's metadata, and may panic.
pub async fn a_background_failure_is_counted_and_told_after_its_slot_is_free(make: Make<'_>) {
    let heard: Arc<Mutex<Vec<BackgroundFailure>>> = Arc::default();
    let listener: BackgroundFailureListener = Arc::new({
        let heard = Arc::clone(&heard);
        move |failure| {
            heard.lock().push(failure);
            panic!("a listener may panic");
        }
    });
    let executor = make(Setup { listener, ..Setup::default() });
    let functions = functions([
        Function::new("fails", |_| async { Err::<Value, _>(FunctionError::new("no")) })
            .with_metadata(json!({"team": "ops"})),
        Function::new("panics", panics_before_its_future),
        never().with_timeout(SHORT),
    ]);
    let calls = ["fails", "panics", "never"].map(|name| call(name).in_background().with_call_id(name));
    run(executor.as_ref(), calls.to_vec(), &functions).await;
    until("each failure is told", || heard.lock().len() == 3).await;
    assert_eq!(executor.active_background_tasks_count(), 0);
    let mut kinds: Vec<_> = heard.lock().iter().map(|failure| (failure.name.clone(), failure.kind)).collect();
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("fails".to_owned(), FailureKind::Failed),
        ("never".to_owned(), FailureKind::TimedOut),
        ("panics".to_owned(), FailureKind::Panicked),
    ];
    assert_eq!(kinds, expected);
    let heard = heard.lock();
    let failed = heard.iter().find(|failure| failure.name == "fails").expect("heard above");
    assert_eq!((&failed.metadata, failed.call_id.as_deref()), (&json!({"team": "ops"}), Some("fails")));
    assert_eq!(executor.stats().background_failed, 3);
}

/// Started before anybody awaits them; gathered in the order they are handed over.
pub async fn progressive_calls_start_at_once_and_are_gathered_in_order(make: Make<'_>) {
    let executor = make(Setup::default());
    let begun = Arc::new(AtomicUsize::new(0));
    let begins = Function::new("begins", {
        let begun = Arc::clone(&begun);
        move |args: Value| {
            begun.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, FunctionError>(args) }
        }
    });
    let functions = functions([begins, Function::new("panics", panics_before_its_future)]);
    let calls = [call("begins"), call("panics"), call("missing"), call("begins").in_background()];
    let tasks = calls.map(|call| executor.execute_function_progressively(call, &functions, &functions, None));
    until("a progressive call starts at once", || begun.load(Ordering::SeqCst) == 2).await;
    let result = executor.gather_progressive_results(tasks.into_iter().collect()).await;
    assert_one_outcome_each(4, &result);
    let kinds: Vec<_> = result.failed_functions.iter().map(|failed| failed.kind).collect();
    assert_eq!(kinds, [FailureKind::Panicked, FailureKind::NotFound]);
    assert_eq!(executor.wait_for_background_tasks(Some(LONG)).await, 0);
}

/// A streaming turn that repeats a call id does not run it again, in this turn or a later one.
pub async fn no_call_id_runs_twice_in_a_conversation(make: Make<'_>) {
    let executor = make(Setup::default());
    let functions = functions([echo()]);
    let mut state = StreamingExecutionState::new();
    let start = |state: &mut StreamingExecutionState, id: Option<&str>| {
        let call = FunctionCall { call_id: id.map(str::to_owned), ..call("echo") };
        state.start(executor.as_ref(), call, &functions, &functions, None)
    };
    assert!(start(&mut state, Some("1")));
    assert!(!start(&mut state, Some("1")));
    assert!(start(&mut state, None) && start(&mut state, None), "calls without an id are never the same");
    let result = executor.gather_progressive_results(state.take_active()).await;
    assert_eq!(result.regular_results.len(), 3);
    assert!(!start(&mut state, Some("1")), "ids are remembered across turns");
}

/// Polls a turn n times and drops it, for every n until it ends: slots come back and nothing runs on.
pub async fn a_future_dropped_at_any_await_leaves_nothing(make: Make<'_>) {
    let executor = make(Setup { max_concurrency: 2, ..Setup::default() });
    let running = Arc::new(AtomicUsize::new(0));
    let steps = Function::new("steps", {
        let running = Arc::clone(&running);
        move |_| {
            let inside = Inside::enter(&running);
            async move {
                let _inside = inside;
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, FunctionError>(Value::Null)
            }
        }
    });
    let functions = functions([steps, echo()]);
    for polls in 0.. {
        let calls = ["steps", "echo", "steps", "steps", "echo"].map(call).to_vec();
        let input = FunctionExecutionInput::new(calls, functions.clone());
        let ended = poll_times(polls, executor.execute_functions(input)).await;
        let idle = || {
            let bounds = executor.limits();
            running.load(Ordering::SeqCst) == 0 && bounds.iter().all(|bound| bound.used == 0)
        };
        until("a dropped turn leaves nothing running and every slot free", idle).await;
        if ended {
            break;
        }
        assert!(polls < 1_000, "the turn ends");
    }
}

async fn poll_times(times: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Counts who is inside.
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

/// A shutdown lets what can end do so, aborts the rest at its deadline, and ends every later call.
pub async fn shutdown_waits_then_aborts_and_refuses_what_comes_later(make: Make<'_>) {
    let executor = make(Setup::default());
    let (ends, gate) = gated("ends");
    let functions = functions([ends, never(), echo()]);
    let calls = vec![call("ends").in_background(), call("never").in_background()];
    run(executor.as_ref(), calls, &functions).await;
    // The task can end only once the shutdown waits.
    let (report, ()) = tokio::join!(executor.close(Deadline::after(SHORT)), async { gate.notify_one() });
    assert_eq!((report.finished, report.aborted), (1, 1), "{report:?}");
    until("an aborted task ends", || executor.active_background_tasks_count() == 0).await;
    let turn = run(executor.as_ref(), vec![call("echo"), call("echo").in_background()], &functions).await;
    assert_eq!(turn.0.failed_functions.len(), 2);
    assert!(turn.0.failed_functions.iter().all(|failed| failed.kind == FailureKind::ShutDown));
    assert!(!executor.health(Deadline::after(Duration::from_secs(5))).await.is_usable());
    assert_eq!(executor.close(Deadline::after(SHORT)).await.aborted, 0, "a second shutdown finds nothing");
}

/// A background task does not outlive its executor.
pub async fn dropping_the_executor_ends_its_background_tasks(make: Make<'_>) {
    let executor = make(Setup::default());
    let running = Arc::new(AtomicUsize::new(0));
    let function = Function::new("never", {
        let running = Arc::clone(&running);
        move |_| {
            let inside = Inside::enter(&running);
            async move {
                let _inside = inside;
                pending::<Result<Value, FunctionError>>().await
            }
        }
    });
    run(executor.as_ref(), vec![call("never").in_background()], &functions([function])).await;
    until("a background task starts", || running.load(Ordering::SeqCst) == 1).await;
    drop(executor);
    until("a background task ends with its executor", || running.load(Ordering::SeqCst) == 0).await;
}

/// The limit holds over all turns together.
pub async fn no_more_calls_run_at_once_than_the_limit(make: Make<'_>) {
    let executor = make(Setup { max_concurrency: 3, ..Setup::default() });
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let function = Function::new("counted", {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        move |_| {
            let inside = Inside::enter(&running);
            peak.fetch_max(running.load(Ordering::SeqCst), Ordering::SeqCst);
            async move {
                let _inside = inside;
                tokio::task::yield_now().await;
                Ok::<_, FunctionError>(Value::Null)
            }
        }
    });
    let functions = functions([function]);
    let turn = || run(executor.as_ref(), vec![call("counted"); 50], &functions);
    let turns = futures_util::future::join_all([turn(), turn(), turn()]).await;
    assert!(turns.iter().all(|turn| turn.0.regular_results.len() == 50));
    assert!(peak.load(Ordering::SeqCst) <= 3, "{} ran at once", peak.load(Ordering::SeqCst));
}

/// A call that never gets a slot fails when its deadline passes.
pub async fn waiting_for_a_slot_spends_the_deadline(make: Make<'_>) {
    let executor = make(Setup { max_concurrency: 1, timeout: SHORT, ..Setup::default() });
    let (waits, gate) = gated("waits");
    let functions = functions([waits.with_timeout(LONG), echo()]);
    let holds = executor.execute_function_progressively(call("waits"), &functions, &functions, None);
    until("the first call begins", || executor.limits().iter().any(|bound| bound.used == 1)).await;
    let turn = run(executor.as_ref(), vec![call("echo")], &functions).await;
    assert_eq!(turn.failure(0), Some(FailureKind::TimedOut));
    gate.notify_one();
    assert!(matches!(holds.await, FunctionOutcome::Completed(_)));
}

/// The cap counts bytes of JSON.
pub async fn a_result_over_the_cap_is_a_failure_that_says_so(make: Make<'_>) {
    let executor = make(Setup { max_result_bytes: 10, ..Setup::default() });
    let text = |name: &str, length: usize| {
        Function::new(name, move |_| async move { Ok::<_, FunctionError>(json!("x".repeat(length))) })
    };
    let functions = functions([text("fits", 8), text("too_long", 9)]);
    let turn = run(executor.as_ref(), vec![call("fits"), call("too_long")], &functions).await;
    assert_eq!(turn.failure(0), None);
    assert_eq!(turn.failure(1), Some(FailureKind::ResultTooLarge));
    assert!(turn.0.failed_functions[0].error.contains("10 bytes"), "{:?}", turn.0.failed_functions);
}

/// One background call too many fails with the limit and how to raise it; the next one that ends makes room.
pub async fn at_the_limit_a_background_call_fails_and_starts_nothing(make: Make<'_>) {
    let executor = make(Setup { max_background_tasks: 2, ..Setup::default() });
    let (waits, gate) = gated("waits");
    let functions = functions([waits]);
    let turn = run(executor.as_ref(), vec![call("waits").in_background(); 3], &functions).await;
    assert_eq!(turn.failure(2), Some(FailureKind::NoBackgroundSlot));
    let error = &turn.0.failed_functions[0].error;
    assert!(error.contains('2') && error.contains("ARSHAI_MAX_BACKGROUND_TASKS"), "{error}");
    let stats = executor.stats();
    assert_eq!((stats.background_started, stats.background_rejected), (2, 1));
    until("a task that ends frees its slot", || {
        gate.notify_waiters();
        executor.active_background_tasks_count() == 0
    })
    .await;
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions).await;
    assert_eq!(turn.0.background_initiated.len(), 1);
}

/// Lowering the limit below what runs takes effect for new calls alone.
pub async fn a_lowered_limit_lets_running_tasks_end(make: Make<'_>) {
    let executor = make(Setup::default());
    let (waits, gate) = gated("waits");
    let functions = functions([waits]);
    run(executor.as_ref(), vec![call("waits").in_background(); 3], &functions).await;
    executor.set_max_background_tasks(1).expect("a bounded executor can");
    assert_eq!(executor.active_background_tasks_count(), 3);
    let turn = run(executor.as_ref(), vec![call("waits").in_background()], &functions).await;
    assert_eq!(turn.failure(0), Some(FailureKind::NoBackgroundSlot));
    until("running tasks end by themselves", || {
        gate.notify_waiters();
        executor.active_background_tasks_count() == 0
    })
    .await;
    assert_eq!(executor.stats().background_succeeded, 3);
}

/// A third panic, a third block a thread, a third never end: the others' results arrive, no more calls run at
/// once than the limit, and a shutdown returns by its deadline although threads are still blocked.
pub async fn a_hundred_tools_of_which_most_misbehave_leave_the_others_alone(make: Make<'_>) {
    let executor = make(Setup::default());
    let running = Arc::new(AtomicUsize::new(0));
    let exceeded = Arc::new(AtomicBool::new(false));
    let gate = Gate::new();
    let mut functions = Functions::new().with(echo());
    let mut calls = Vec::new();
    for i in 0..100 {
        let name = format!("tool_{i}");
        functions = functions.with(misbehaving(i, &name, &running, &exceeded, &gate));
        calls.push(call(&name));
        if i % 10 == 0 {
            calls.push(call("echo"));
        }
    }
    let turn = run(executor.as_ref(), calls.clone(), &functions).await;
    assert_one_outcome_each(calls.len(), &turn.0);
    assert_eq!(turn.0.regular_results.len(), 10, "the others' results arrive");
    assert!(!exceeded.load(Ordering::SeqCst), "no more than the limit run at once");
    for bound in executor.limits() {
        assert!(bound.limit.is_none_or(|limit| bound.peak <= limit), "{bound:?}");
    }
    let began = Instant::now();
    let report = executor.close(Deadline::after(SHORT)).await;
    assert!(began.elapsed() < LONG / 2, "a shutdown returns by its deadline");
    assert!(!report.lost.is_empty() && report.lost.len() <= 4, "threads that block are named: {report:?}");
    gate.open();
}

fn misbehaving(
    i: usize,
    name: &str,
    running: &Arc<AtomicUsize>,
    exceeded: &Arc<AtomicBool>,
    gate: &Arc<Gate>,
) -> Function {
    let (running, exceeded, gate) = (Arc::clone(running), Arc::clone(exceeded), Arc::clone(gate));
    let function = match i % 3 {
        0 => Function::new(name, panics_before_its_future),
        1 => Function::blocking(name, move |_| {
            gate.wait();
            Ok::<_, FunctionError>(Value::Null)
        }),
        _ => Function::new(name, move |_| {
            let inside = Inside::enter(&running);
            if running.load(Ordering::SeqCst) > 8 {
                exceeded.store(true, Ordering::SeqCst);
            }
            async move {
                let _inside = inside;
                pending::<Result<Value, FunctionError>>().await
            }
        }),
    };
    function.with_timeout(SHORT)
}

/// Threads wait at it until it is opened.
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
