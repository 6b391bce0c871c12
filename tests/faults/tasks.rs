//! Misbehaving functions, dropped runtimes, huge results.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arshai::backends::tasks::{BoundedExecutor, LegacyExecutor};
use arshai::tasks::{
    FailureKind, Function, FunctionCall, FunctionError, FunctionExecutionInput, FunctionFailure,
    FunctionOutcome, Functions, TaskExecutor,
};
use arshai::{Component, Deadline, Health};
use arshai_test_support::Log;
use futures_util::FutureExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

fn never() -> Function {
    Function::new("never", |_| pending::<Result<Value, FunctionError>>())
}

fn calls<const N: usize>(names: [&str; N]) -> Vec<FunctionCall> {
    names.map(|name| FunctionCall::new(name, json!({}))).to_vec()
}

fn both() -> [Arc<dyn TaskExecutor>; 2] {
    [Arc::new(BoundedExecutor::builder().build()), Arc::new(LegacyExecutor::new(None))]
}

#[tokio::test]
async fn a_background_failure_is_logged_by_either_executor_without_its_message() {
    for executor in both() {
        let log = Log::default();
        let _logging = log.subscribe();
        let fails = Function::new("fails", |_| async { Err::<Value, _>(FunctionError::new("private")) });
        let call = FunctionCall::new("fails", json!({})).with_call_id("call_7").in_background();
        let input = FunctionExecutionInput::new(vec![call], Functions::new())
            .with_background_tasks(Functions::new().with(fails));
        assert_eq!(executor.execute_functions(input).await.background_initiated.len(), 1);
        assert_eq!(executor.wait_for_background_tasks(Some(Duration::from_secs(60))).await, 0);
        let log = log.text();
        for part in ["WARN", "background task failed", "fails", "call_7", "Failed"] {
            assert!(log.contains(part), "{part} is missing: {log}");
        }
        assert!(!log.contains("private"), "{log}");
    }
}

#[tokio::test]
async fn a_result_of_a_gibibyte_fails_cleanly() {
    let executor = BoundedExecutor::builder().build();
    let huge = Function::blocking("huge", |_| {
        let text = String::from_utf8(vec![0; 1 << 30])?;
        Ok::<_, FunctionError>(json!({ "text": text }))
    });
    let input = FunctionExecutionInput::new(calls(["huge"]), Functions::new().with(huge));
    let result = executor.execute_functions(input).await;
    assert_eq!(result.failed_functions[0].kind, FailureKind::ResultTooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_function_that_blocks_does_not_delay_its_turn_beyond_its_deadline() {
    let executor = BoundedExecutor::builder().build();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(until_released(gate));
    let blocks = Function::new("blocks", move |_| {
        // Blocks before there is a future: the worst there is.
        gate();
        async { Ok::<_, FunctionError>(Value::Null) }
    })
    .with_timeout(Duration::from_millis(30));
    let quick = Function::new("quick", |args: Value| async move { Ok::<_, FunctionError>(args) });
    let functions = Functions::new().with(blocks).with(quick);
    let input = FunctionExecutionInput::new(calls(["blocks", "quick"]), functions);
    // The other call's deadline is a minute away; the turn must not wait for it.
    let turn = tokio::time::timeout(Duration::from_secs(30), executor.execute_functions(input));
    let result = turn.await.expect("the turn ends with its last call");
    assert_eq!(result.failed_functions[0].kind, FailureKind::TimedOut);
    assert!(result.failed_functions[0].error.contains("blocks its worker"), "{:?}", result.failed_functions);
    assert_eq!(result.regular_results.len(), 1);
    drop(release);
}

/// Waits until the other end of `gate` is dropped.
fn until_released(gate: mpsc::Receiver<()>) -> impl Fn() + Send + Sync {
    let gate = std::sync::Mutex::new(gate);
    move || drop(gate.lock().map(|gate| gate.recv()))
}

#[test]
fn outside_a_runtime_a_call_fails_and_says_why() {
    for executor in both() {
        let functions = Functions::new().with(never());
        for call in [calls(["never"]).remove(0), calls(["never"]).remove(0).in_background()] {
            let task = executor.execute_function_progressively(call, &functions, &functions, None);
            let mut task = pin!(task);
            let Poll::Ready(FunctionOutcome::Failed(failure)) =
                task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("it fails at once");
            };
            assert!(failure.error.contains("no tokio runtime"), "{failure:?}");
        }
        assert_eq!(executor.active_background_tasks_count(), 0);
    }
}

#[test]
fn outside_a_runtime_health_close_and_waiting_do_not_panic() {
    for executor in both() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let input =
            FunctionExecutionInput::new(vec![calls(["never"]).remove(0).in_background()], Functions::new());
        let input = input.with_background_tasks(Functions::new().with(never()));
        runtime.block_on(executor.execute_functions(input));
        let soon = || Deadline::after(Duration::from_secs(1));
        let ready = "it does not wait without a timer";
        let left = executor.wait_for_background_tasks(Some(Duration::from_secs(1))).now_or_never();
        assert_eq!(left.expect(ready), 1);
        assert_eq!(executor.health(soon()).now_or_never().expect(ready), Health::Healthy);
        let report = executor.close(soon()).now_or_never().expect(ready);
        assert_eq!((report.finished, report.aborted), (0, 1));
    }
}

#[tokio::test]
async fn messages_do_not_repeat_large_arguments() {
    let large = "x".repeat(1 << 20);
    let functions = Functions::new().with(Function::typed("search", |search: Search| async move {
        Ok::<_, FunctionError>(search.query)
    }));
    for executor in both() {
        let args = json!({"query": "rust", "filter": {"year": large.as_str()}});
        let calls = vec![
            FunctionCall::new("search", args.clone()),
            FunctionCall::new("search", args).in_background(),
            FunctionCall::new(large.as_str(), json!({})),
        ];
        let input =
            FunctionExecutionInput::new(calls, functions.clone()).with_background_tasks(functions.clone());
        let result = executor.execute_functions(input).await;
        let errors = result.failed_functions.iter().map(|failed| failed.error.as_str());
        let messages = result.background_initiated.iter().map(|started| started.message.as_str());
        let all: Vec<_> = errors.chain(messages).collect();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|message| message.len() < 1_000), "{:?}", all.iter().map(|m| m.len()));
        assert!(all[2].starts_with("Background task 'search' initiated with args {"), "{}", all[2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_awaited_releases_its_permit_at_its_deadline() {
    let executor = BoundedExecutor::builder().max_concurrency(1).timeout(Duration::from_secs(1)).build();
    let functions = Functions::new().with(never());
    let task =
        executor.execute_function_progressively(calls(["never"]).remove(0), &functions, &functions, None);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(executor.limits().iter().all(|limit| limit.used == 0), "{executor:?}");
    assert!(matches!(task.await, FunctionOutcome::Failed(failed) if failed.kind == FailureKind::TimedOut));
}

#[test]
fn a_runtime_dropped_with_running_calls_leaves_every_permit_released() {
    for executor in both() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let functions = Functions::new().with(never());
        let [task] = runtime.block_on(async {
            let background = calls(["never"; 10]).into_iter().map(FunctionCall::in_background).collect();
            let input = FunctionExecutionInput::new(background, Functions::new());
            executor.execute_functions(input.with_background_tasks(functions.clone())).await;
            let call = calls(["never"]).remove(0);
            [executor.execute_function_progressively(call, &functions, &functions, None)]
        });
        let turn = {
            let (executor, functions) = (Arc::clone(&executor), functions.clone());
            let input = FunctionExecutionInput::new(calls(["never"; 3]), functions);
            runtime.spawn(async move { executor.execute_functions(input).await })
        };
        drop(runtime);
        assert!(executor.limits().iter().all(|limit| limit.used == 0), "{executor:?}");
        assert_eq!(executor.stats().background_failed, 10);
        // Both are awaited elsewhere, after their runtime has gone.
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = other.block_on(task);
        assert!(matches!(outcome, FunctionOutcome::Failed(failed) if failed.kind == FailureKind::Cancelled));
        match other.block_on(turn) {
            Err(gone) => assert!(gone.is_cancelled(), "it went with its runtime"),
            // Or its calls went first, and it saw that.
            Ok(result) => {
                let cancelled = |failed: &FunctionFailure| failed.kind == FailureKind::Cancelled;
                assert_eq!(result.failed_functions.len(), 3);
                assert!(result.failed_functions.iter().all(cancelled), "{result:?}");
            }
        }
    }
}

#[tokio::test]
async fn closing_names_the_functions_still_on_threads() {
    let executor = BoundedExecutor::builder().max_blocking_threads(2).build();
    let (release, gate) = mpsc::channel::<()>();
    let gate = until_released(gate);
    let stuck = Function::blocking("stuck", move |_| {
        gate();
        Ok::<_, FunctionError>(Value::Null)
    })
    .with_timeout(Duration::from_millis(20));
    let input = FunctionExecutionInput::new(calls(["stuck"]), Functions::new().with(stuck));
    let result = executor.execute_functions(input).await;
    assert_eq!(result.failed_functions[0].kind, FailureKind::TimedOut);
    let report = executor.close(Deadline::after(Duration::from_millis(20))).await;
    assert_eq!((report.aborted, report.lost), (0, vec!["stuck".to_owned()]));
    drop(release);
}

#[tokio::test(start_paused = true)]
async fn regular_calls_still_running_when_closed_are_cancelled() {
    for executor in both() {
        let running = Arc::clone(&executor);
        let input = FunctionExecutionInput::new(calls(["never"; 2]), Functions::new().with(never()));
        let turn = tokio::spawn(async move { running.execute_functions(input).await });
        tokio::task::yield_now().await;
        let report = executor.close(Deadline::after(Duration::from_secs(1))).await;
        assert_eq!((report.finished, report.aborted), (0, 2), "{executor:?}");
        let result = turn.await.expect("a turn does not fail");
        let kinds: HashSet<_> = result.failed_functions.iter().map(|failed| failed.kind).collect();
        assert_eq!((result.failed_functions.len(), kinds), (2, [FailureKind::Cancelled].into()));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_hang_time_out_in_time_for_those_that_wait_for_their_permits() {
    let executor = BoundedExecutor::builder().max_concurrency(2).build();
    let quick = Function::new("quick", |args: Value| async move { Ok::<_, FunctionError>(args) });
    let functions = Functions::new().with(never().with_timeout(Duration::from_secs(1))).with(quick);
    let began = tokio::time::Instant::now();
    let names = ["never", "never", "quick", "never", "quick"];
    let result = executor.execute_functions(FunctionExecutionInput::new(calls(names), functions)).await;
    let completed: Vec<_> = result.regular_results.iter().map(|result| result.index).collect();
    assert_eq!(completed, [2, 4]);
    assert!(result.failed_functions.iter().all(|failed| failed.kind == FailureKind::TimedOut));
    assert!(began.elapsed() < Duration::from_secs(2), "each call's deadline counts from the turn's start");
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Search {
    /// What to look for.
    query: String,
    filter: Option<Filter>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Filter {
    year: u16,
}

#[test]
fn the_schema_of_a_typed_function_is_a_bare_object_as_providers_want_it() {
    let function =
        Function::typed("search", |search: Search| async move { Ok::<_, FunctionError>(search.query) });
    let schema = function.parameters();
    assert_eq!(schema["type"], "object");
    assert_eq!(schema["properties"]["query"], json!({"type": "string", "description": "What to look for."}));
    assert_eq!(schema["required"], json!(["query"]));
    assert!(schema.get("$schema").is_none() && schema.get("title").is_none(), "{schema}");
    assert_eq!(schema["$defs"]["Filter"]["properties"]["year"]["type"], "integer");
}

#[tokio::test]
async fn arguments_that_do_not_fit_a_typed_function_say_where() {
    let function =
        Function::typed("search", |search: Search| async move { Ok::<_, FunctionError>(search.query) });
    let functions = Functions::new().with(function);
    for executor in both() {
        let args = json!({"query": "rust", "filter": {"year": "last"}});
        let calls = vec![FunctionCall::new("search", args), FunctionCall::new("search", Value::Null)];
        let result = executor.execute_functions(FunctionExecutionInput::new(calls, functions.clone())).await;
        let errors: Vec<_> = result.failed_functions.iter().map(|failed| failed.error.as_str()).collect();
        assert!(errors[0].contains("filter.year") && errors[0].contains("expected u16"), "{errors:?}");
        assert!(errors[1].contains("missing field `query`"), "{errors:?}");
        assert!(result.failed_functions.iter().all(|failed| failed.kind == FailureKind::BadArguments));
    }
}
