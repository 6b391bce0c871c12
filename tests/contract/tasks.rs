//! Task execution.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::tasks::{BoundedExecutor, LegacyExecutor};
use arshai::contract::tasks::{Setup, suite};
use arshai::tasks::{
    FailureKind, Function, FunctionCall, FunctionError, FunctionExecutionInput, FunctionExecutionResult,
    Functions, TaskExecutor,
};
use arshai::{BuildContext, Config, Registry};
use proptest::prelude::*;
use serde_json::{Value, json};

async fn bounded(setup: Setup) -> Arc<dyn TaskExecutor> {
    let builder = BoundedExecutor::builder()
        .max_background_tasks(setup.max_background_tasks)
        .max_concurrency(setup.max_concurrency)
        .timeout(setup.timeout)
        .max_result_bytes(setup.max_result_bytes)
        .max_blocking_threads(setup.max_blocking_threads)
        .background_failure_listener(setup.listener);
    Arc::new(builder.build())
}

async fn legacy(setup: Setup) -> Arc<dyn TaskExecutor> {
    Arc::new(LegacyExecutor::new(Some(setup.listener)))
}

#[tokio::test]
async fn the_bounded_executor_keeps_the_contract() {
    suite(bounded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bounded_executor_keeps_the_contract_on_many_threads() {
    suite(bounded).await;
}

#[tokio::test]
async fn the_legacy_executor_keeps_the_contract() {
    suite(legacy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_legacy_executor_keeps_the_contract_on_many_threads() {
    suite(legacy).await;
}

#[test]
fn both_are_registered_by_name() {
    let (registry, context) = (Registry::builtin(), BuildContext::new(Config::default()));
    for (name, is_bounded) in [(BoundedExecutor::NAME, true), (LegacyExecutor::NAME, false)] {
        let executor = registry.tasks.build(name, &context).expect("registered");
        assert_eq!(executor.capabilities().bounded, is_bounded);
    }
}

#[test]
fn the_name_of_python_arshai_is_the_default_executor() {
    assert!(arshai::backends::tasks::FunctionOrchestrator::default().capabilities().bounded);
}

/// The indices of all outcomes, sorted.
fn indices(result: &FunctionExecutionResult) -> Vec<usize> {
    let completed = result.regular_results.iter().map(|result| result.index);
    let initiated = result.background_initiated.iter().map(|started| started.index);
    let failed = result.failed_functions.iter().map(|failed| failed.index);
    let mut all: Vec<_> = completed.chain(initiated).chain(failed).collect();
    all.sort_unstable();
    all
}

fn some_functions() -> Functions {
    let ok = |name: &str| Function::new(name, |args: Value| async move { Ok::<_, FunctionError>(args) });
    [
        ok("prompt"),
        Function::new("yields", |args: Value| async move {
            tokio::task::yield_now().await;
            Ok::<_, FunctionError>(args)
        }),
        Function::new("fails", |_| async { Err::<Value, _>(FunctionError::new("no")) }),
        Function::new("panics", |_| async {
            if true { panic!("oh") } else { Ok::<_, FunctionError>(Value::Null) }
        }),
        Function::blocking("blocks", Ok::<_, FunctionError>),
        Function::new("never", |_| std::future::pending::<Result<Value, FunctionError>>())
            .with_timeout(Duration::from_millis(2)),
    ]
    .into_iter()
    .collect()
}

fn some_call() -> impl Strategy<Value = FunctionCall> {
    let names = ["prompt", "prompt", "yields", "fails", "panics", "blocks", "never", "missing"];
    (proptest::sample::select(names.to_vec()), proptest::option::of(0u8..20), any::<bool>()).prop_map(
        |(name, id, is_background)| {
            let call = FunctionCall::new(name, json!({"n": 1}));
            let call = if is_background { call.in_background() } else { call };
            match id {
                None => call,
                Some(id) => call.with_call_id(id.to_string()),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_calls_have_one_outcome_each_and_the_counters_add_up(
        turns in proptest::collection::vec(proptest::collection::vec(some_call(), 0..25), 1..4),
        is_legacy in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let setup = Setup::default();
            let executor = if is_legacy { legacy(setup).await } else { bounded(setup).await };
            let (mut regular, mut initiated, mut rejected) = (0, 0, 0);
            for calls in turns {
                let input = FunctionExecutionInput::new(calls.clone(), some_functions())
                    .with_background_tasks(some_functions());
                let result = executor.execute_functions(input).await;
                assert_eq!(indices(&result), (0..calls.len()).collect::<Vec<_>>());
                regular += calls.iter().filter(|call| !call.is_background).count();
                initiated += result.background_initiated.len();
                let no_slot = |kind| kind == FailureKind::NoBackgroundSlot;
                rejected += result.failed_functions.iter().filter(|failed| no_slot(failed.kind)).count();
            }
            assert_eq!(executor.wait_for_background_tasks(None).await, 0);
            let stats = executor.stats();
            assert_eq!(stats.succeeded + stats.failed, regular as u64);
            assert_eq!(stats.background_started, initiated as u64);
            assert_eq!(stats.background_rejected, rejected as u64);
            assert_eq!(stats.background_succeeded + stats.background_failed, initiated as u64);
            for limit in executor.limits() {
                assert!(limit.limit.is_none_or(|max| limit.peak <= max), "{limit:?}");
            }
            let report = executor.close(arshai::Deadline::after(Duration::from_secs(30))).await;
            assert!(report.is_clean(), "{report:?}");
            assert!(executor.limits().iter().all(|limit| limit.used == 0));
        });
    }
}
