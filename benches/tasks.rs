//! Task execution compared with hand-written tokio code.
//!
//! All do the same job: from the calls of a turn, by the name of the function, to one result
//! per call that holds name, arguments and value.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::backends::tasks::BoundedExecutor;
use arshai::tasks::{Function, FunctionCall, FunctionError, FunctionExecutionInput, Functions, TaskExecutor};
use arshai_benches::{Bench, Better, child_case, in_child, resident_bytes};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const LIMIT: usize = 64;
const BACKGROUND: usize = 100_000;
const BOUNDED_SET: &str = "JoinSet, semaphore, deadline, panics";

fn main() {
    if let Some(case) = child_case() {
        println!("{}", background_growth(&case));
        return;
    }
    let mut bench = Bench::from_args("tasks");
    let runtime = Runtime::new().expect("a runtime");
    let trivial = |args: Value| async move { Ok::<_, FunctionError>(args["n"].clone()) };
    for (case, calls) in
        [("trivial_call_1k", 1_000), ("trivial_call", 10_000), ("trivial_call_100k", 100_000)]
    {
        compare(&mut bench, &runtime, case, calls, trivial, LIMIT);
        bench.target(BOUNDED_SET, 1.25);
    }
    let yields = |args: Value| async move {
        tokio::task::yield_now().await;
        Ok::<_, FunctionError>(args["n"].clone())
    };
    compare(&mut bench, &runtime, "yielding_call", 10_000, yields, LIMIT);
    bench.target(BOUNDED_SET, 1.25);
    let waits = |args: Value| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, FunctionError>(args["n"].clone())
    };
    compare(&mut bench, &runtime, "waiting_call", 10_000, waits, 1_000);
    bench.target(BOUNDED_SET, 1.25);
    let growth = |case| in_child(case) / f64::from(1 << 20);
    let peers = BTreeMap::from([("JoinSet, unbounded".to_owned(), growth("join_set"))]);
    bench.record("background_100k_rss", "MiB", Better::Lower, growth("ours"), peers);
    bench.finish();
}

fn compare<Fut>(
    bench: &mut Bench,
    runtime: &Runtime,
    case: &str,
    calls: usize,
    function: impl Fn(Value) -> Fut + Copy + Send + Sync + 'static,
    limit: usize,
) where
    Fut: Future<Output = Result<Value, FunctionError>> + Send + 'static,
{
    let plain = plain("call", function);
    let functions = Functions::new().with(Function::new("call", function));
    let executor = BoundedExecutor::builder().max_concurrency(limit).build();
    let ours = || {
        let input = FunctionExecutionInput::new(some_calls(calls), functions.clone());
        time(calls, runtime, async {
            let result = executor.execute_functions(input).await;
            assert_eq!(result.regular_results.len(), calls);
        })
    };
    let by_hand = |run: &dyn Fn(Vec<FunctionCall>) -> usize| {
        let input = some_calls(calls);
        let began = Instant::now();
        assert_eq!(run(input), calls);
        began.elapsed().as_nanos() as f64 / calls as f64
    };
    bench.compare(
        case,
        "ns/call",
        Better::Lower,
        vec![
            ("ours", Box::new(ours)),
            (BOUNDED_SET, Box::new(|| by_hand(&|calls| runtime.block_on(bounded_set(calls, &plain, limit))))),
            ("JoinSet, bare", Box::new(|| by_hand(&|calls| runtime.block_on(bare_set(calls, &plain))))),
            (
                "FuturesUnordered, panics",
                Box::new(|| by_hand(&|calls| runtime.block_on(unordered(calls, &plain)))),
            ),
        ],
    );
}

fn time(calls: usize, runtime: &Runtime, work: impl Future<Output = ()>) -> f64 {
    let began = Instant::now();
    runtime.block_on(work);
    began.elapsed().as_nanos() as f64 / calls as f64
}

fn some_calls(calls: usize) -> Vec<FunctionCall> {
    (0..calls).map(|n| FunctionCall::new("call", json!({"n": n})).with_call_id(format!("call_{n}"))).collect()
}

/// The functions of the peers, which know no context.
type PlainFunctions = HashMap<String, Arc<dyn Fn(Value) -> PlainFuture + Send + Sync>>;

type PlainFuture = Pin<Box<dyn Future<Output = Result<Value, FunctionError>> + Send>>;

fn plain<Fut>(name: &str, function: impl Fn(Value) -> Fut + Send + Sync + 'static) -> PlainFunctions
where
    Fut: Future<Output = Result<Value, FunctionError>> + Send + 'static,
{
    let function = move |args| -> PlainFuture { Box::pin(function(args)) };
    PlainFunctions::from([(name.to_owned(), Arc::new(function) as Arc<_>)])
}

/// One call by hand, its result with everything it belongs to.
fn begin(
    call: FunctionCall,
    functions: &PlainFunctions,
) -> impl Future<Output = (FunctionCall, Result<Value, FunctionError>)> + Send + 'static {
    let function = Arc::clone(functions.get(&call.name).expect("the bench has it"));
    async move {
        let value = function(call.args.clone()).await;
        (call, value)
    }
}

async fn bounded_set(calls: Vec<FunctionCall>, functions: &PlainFunctions, limit: usize) -> usize {
    let slots = Arc::new(Semaphore::new(limit));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut set = JoinSet::new();
    for call in calls {
        let (work, slots) = (begin(call, functions), Arc::clone(&slots));
        set.spawn(async move {
            let bounded = async move {
                let _slot = slots.acquire_owned().await.expect("never closed");
                AssertUnwindSafe(work).catch_unwind().await
            };
            tokio::time::timeout_at(deadline, bounded).await
        });
    }
    let mut results = Vec::new();
    while let Some(ended) = set.join_next().await {
        results.extend(ended.ok().and_then(Result::ok).and_then(Result::ok));
    }
    results.len()
}

async fn bare_set(calls: Vec<FunctionCall>, functions: &PlainFunctions) -> usize {
    let mut set = JoinSet::new();
    for call in calls {
        set.spawn(begin(call, functions));
    }
    set.join_all().await.len()
}

async fn unordered(calls: Vec<FunctionCall>, functions: &PlainFunctions) -> usize {
    let all: FuturesUnordered<_> =
        calls.into_iter().map(|call| AssertUnwindSafe(begin(call, functions)).catch_unwind()).collect();
    let results: Vec<_> = all.filter_map(|ended| std::future::ready(ended.ok())).collect().await;
    results.len()
}

/// By how many bytes this process grows when asked for 100 000 background tasks that wait.
fn background_growth(case: &str) -> f64 {
    let runtime = Runtime::new().expect("a runtime");
    let waits = |_| std::future::pending::<Result<Value, FunctionError>>();
    let plain = plain("wait", waits);
    let functions = Functions::new().with(Function::new("wait", waits));
    runtime.block_on(async {
        // Warm up, so that the runtime's own growth is not counted.
        for _ in 0..100 {
            tokio::spawn(tokio::task::yield_now()).await.expect("it ends");
        }
        let executor = BoundedExecutor::builder().max_background_tasks(1_000).build();
        let mut set = JoinSet::new();
        let before = resident_bytes();
        for n in 0..BACKGROUND / 100 {
            let calls =
                (0..100).map(|i| FunctionCall::new("wait", json!({"n": n * 100 + i})).in_background());
            let calls: Vec<_> = calls.collect();
            if case == "ours" {
                let input = FunctionExecutionInput::new(calls, Functions::new())
                    .with_background_tasks(functions.clone());
                executor.execute_functions(input).await;
            } else {
                for call in calls {
                    set.spawn(begin(call, &plain));
                }
            }
            tokio::task::yield_now().await;
        }
        let grown = resident_bytes().saturating_sub(before);
        let running = if case == "ours" { executor.active_background_tasks_count() } else { set.len() };
        assert_eq!(running, if case == "ours" { 1_000 } else { BACKGROUND });
        grown as f64
    })
}
