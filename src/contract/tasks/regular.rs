//! Regular calls, progressive calls and cancellation.

use super::*;

/// Each call has one outcome of the right kind, with Python's messages.
pub(super) async fn every_call_has_one_outcome_in_the_order_of_the_calls(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
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

/// Coerces a future that never returns to the type that a function's must have.
trait MapToResult: Future<Output = ()> + Sized + Send + 'static {
    fn map_to_result(self) -> Pin<Box<dyn Future<Output = Result<Value, FunctionError>> + Send>> {
        Box::pin(async move {
            self.await;
            Ok(Value::Null)
        })
    }
}

impl<F: Future<Output = ()> + Send + 'static> MapToResult for F {}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        std::panic::panic_any(PanicsOnDrop);
    }
}

/// `execute_functions` does not panic, and threads survive.
pub(super) async fn a_panic_payload_that_panics_when_dropped_is_contained(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let functions = functions([
        Function::new("async", |_| async { std::panic::panic_any(PanicsOnDrop) }.map_to_result()),
        Function::blocking("blocking", |_| -> Result<Value, FunctionError> {
            std::panic::panic_any(PanicsOnDrop)
        }),
        echo(),
    ]);
    for _ in 0..8 {
        let calls = ["async", "blocking", "echo"].map(call);
        let turn = run(executor.as_ref(), calls.to_vec(), &functions).await;
        assert_eq!([turn.failure(0), turn.failure(1)], [Some(FailureKind::Panicked); 2]);
        assert_eq!(turn.0.regular_results.len(), 1);
    }
}

/// Arguments other than an object or null are bad arguments.
pub(super) async fn arguments_are_an_object(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
    let args = [json!({}), Value::Null, json!([1]), json!("text"), json!(7)];
    let calls: Vec<_> = args.into_iter().map(|args| FunctionCall::new("echo", args)).collect();
    let turn = run(executor.as_ref(), calls, &functions([echo()])).await;
    assert_eq!(turn.0.regular_results.len(), 2, "{turn:?}", turn = turn.0);
    assert!(turn.0.failed_functions.iter().all(|failed| failed.kind == FailureKind::BadArguments));
}

/// A function's timeout and its turn's deadline end calls that never end, and no others.
pub(super) async fn timeouts_of_functions_and_deadlines_of_turns_hold(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
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
pub(super) async fn regular_calls_run_concurrently(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
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

/// They run before they are awaited, and are gathered in the given order.
pub(super) async fn progressive_calls_start_immediately_and_are_gathered_in_order(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
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
    until("a progressive call starts immediately", || begun.load(Ordering::SeqCst) == 2).await;
    let result = executor.gather_progressive_results(tasks.into_iter().collect()).await;
    assert_one_outcome_each(4, &result);
    let kinds: Vec<_> = result.failed_functions.iter().map(|failed| failed.kind).collect();
    assert_eq!(kinds, [FailureKind::Panicked, FailureKind::NotFound]);
    assert_eq!(executor.wait_for_background_tasks(Some(LONG)).await, 0);
}

/// A streaming turn that repeats a call id does not run it again, in this turn or a later one.
pub(super) async fn no_call_id_runs_twice_in_a_conversation(make: &Make<'_>) {
    let executor = make(Setup::default()).await;
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

/// Polls a turn n times and drops it, for every n until it ends: permits are released and nothing keeps running.
pub(super) async fn a_future_dropped_at_any_await_leaves_nothing_running(make: &Make<'_>) {
    let executor = make(Setup { max_concurrency: 2, ..Setup::default() }).await;
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
            let limits = executor.limits();
            running.load(Ordering::SeqCst) == 0 && limits.iter().all(|limit| limit.used == 0)
        };
        until("a dropped turn leaves nothing running and every permit released", idle).await;
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
