//! An executor written from scratch against the public API: a task per call, no limits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arshai::contract::tasks::{Setup, suite};
use arshai::support::{catch_panic, panic_message};
use arshai::tasks::{
    BackgroundFailure, BackgroundFailureListener, CallContext, FailureKind, FunctionBody, FunctionCall,
    FunctionError, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome, FunctionOutput,
    FunctionTask, Functions, NestedExecution, TaskCapabilities, TaskExecutor, TaskStats,
};
use arshai::{Arshai, CloseReport, Component, Config, Deadline, Health, LimitUsage, Registry, ShutdownPhase};
use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

#[derive(Debug)]
struct SpawningExecutor {
    state: Arc<State>,
    parent: Option<CallContext>,
}

struct State {
    calls: TaskTracker,
    background: TaskTracker,
    closed: CancellationToken,
    stop: CancellationToken,
    stats: Mutex<TaskStats>,
    listener: BackgroundFailureListener,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

type Failure = (FailureKind, String);

impl SpawningExecutor {
    fn new(listener: BackgroundFailureListener) -> Self {
        let (calls, background) = (TaskTracker::new(), TaskTracker::new());
        // Lets them be waited for; further tasks are still tracked.
        calls.close();
        background.close();
        let (closed, stop) = (CancellationToken::new(), CancellationToken::new());
        let state = State { calls, background, closed, stop, stats: Mutex::default(), listener };
        Self { state: Arc::new(state), parent: None }
    }

    fn start(&self, call: FunctionCall, functions: &Functions, deadline: Option<Deadline>) -> FunctionTask {
        let is_background = call.is_background;
        let Some(function) = functions.get(&call.name) else {
            return self.ended(is_background, FunctionOutcome::not_found(call));
        };
        let args = match call.arguments() {
            Ok(args) => args,
            Err(error) => return self.ended(is_background, FunctionOutcome::function_error(call, &error)),
        };
        if self.state.closed.is_cancelled() {
            let outcome = FunctionOutcome::failed(call, FailureKind::ShutDown, "closed");
            return self.ended(is_background, outcome);
        }
        let timeout = function.timeout().map(Deadline::after);
        let parent = self.parent.as_ref().and_then(CallContext::deadline);
        let deadline = match call.is_background {
            true => timeout,
            false => [timeout, deadline, parent].into_iter().flatten().min(),
        };
        let nested = Arc::clone(&self.state) as Arc<dyn NestedExecution>;
        let context = CallContext::new(function, &call, deadline, nested)
            .with_progress_listener(functions.progress_listener());
        match call.is_background {
            true => self.start_background(call, context, args),
            false => self.start_regular(call, context, args),
        }
    }

    fn start_regular(&self, call: FunctionCall, context: CallContext, args: Value) -> FunctionTask {
        let state = Arc::clone(&self.state);
        let stop = self.parent.as_ref().map_or(&state.stop, CallContext::cancellation).clone();
        let work = state.calls.track_future(run(context, stop, args));
        let task = AbortOnDropHandle::new(tokio::spawn(work));
        FunctionTask::new(async move {
            let outcome = match task.await.unwrap_or_else(|_| Err(cancelled())) {
                Ok(value) => FunctionOutcome::completed(call, value),
                Err((kind, error)) => FunctionOutcome::failed(call, kind, error),
            };
            state.stats().record(&outcome);
            outcome
        })
    }

    fn start_background(&self, call: FunctionCall, context: CallContext, args: Value) -> FunctionTask {
        let state = Arc::clone(&self.state);
        state.stats().background_started += 1;
        let (function, call_id) = (context.function().clone(), call.call_id.clone());
        let work = state.background.track_future(run(context, state.stop.clone(), args));
        tokio::spawn(async move {
            let Err((kind, error)) = work.await else {
                state.stats().background_succeeded += 1;
                return;
            };
            state.stats().background_failed += 1;
            let failure = BackgroundFailure::new(&function, call_id, kind, error);
            // A panic of the listener does not matter.
            let _ = catch_panic(|| (state.listener)(failure));
        });
        FunctionTask::new(ready(FunctionOutcome::initiated(call)))
    }

    /// A call that did not start; regular ones are counted.
    fn ended(&self, is_background: bool, outcome: FunctionOutcome) -> FunctionTask {
        if !is_background {
            self.state.stats().record(&outcome);
        }
        FunctionTask::new(ready(outcome))
    }
}

async fn run(context: CallContext, stop: CancellationToken, args: Value) -> Result<FunctionOutput, Failure> {
    let _cancel_at_end = context.cancellation().clone().drop_guard();
    let (function, deadline) = (context.function().clone(), context.deadline());
    let work = async {
        match function.body() {
            FunctionBody::Async(body) => {
                let call = AssertUnwindSafe(async { body(context, args).await });
                call.catch_unwind().await.map_err(panic_message)
            }
            FunctionBody::Blocking(body) => {
                let body = Arc::clone(body);
                let call = tokio::task::spawn_blocking(move || catch_panic(|| body(context, args)));
                call.await.unwrap_or_else(|error| Err(error.to_string()))
            }
        }
    };
    let limited = async {
        match deadline {
            None => Ok(work.await),
            Some(deadline) => tokio::time::timeout_at(deadline.instant(), work).await,
        }
    };
    match stop.run_until_cancelled(limited).await {
        None => Err(cancelled()),
        Some(Err(_)) => Err((FailureKind::TimedOut, "timed out".to_owned())),
        Some(Ok(Err(panic))) => Err((FailureKind::Panicked, panic)),
        Some(Ok(Ok(result))) => result.map_err(function_failure),
    }
}

fn cancelled() -> Failure {
    (FailureKind::Cancelled, "cancelled".to_owned())
}

fn function_failure(error: FunctionError) -> Failure {
    let kind = if error.is_bad_arguments() { FailureKind::BadArguments } else { FailureKind::Failed };
    (kind, error.message().to_owned())
}

impl State {
    fn stats(&self) -> std::sync::MutexGuard<'_, TaskStats> {
        self.stats.lock().expect("no panic while it is locked")
    }
}

impl NestedExecution for State {
    fn child_executor(self: Arc<Self>, parent: CallContext) -> Arc<dyn TaskExecutor> {
        Arc::new(SpawningExecutor { state: self, parent: Some(parent) })
    }
}

impl Drop for SpawningExecutor {
    fn drop(&mut self) {
        if self.parent.is_none() {
            self.state.stop.cancel();
        }
    }
}

#[async_trait]
impl Component for SpawningExecutor {
    fn name(&self) -> Cow<'_, str> {
        "tasks".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let used = self.state.calls.len() as u64;
        vec![LimitUsage::new("tasks.max_concurrency", "calls", used, used, None)]
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.state.closed.is_cancelled() {
            true => Health::unhealthy("closed"),
            false => Health::Healthy,
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.state.closed.cancel();
        let before = self.state.background.len();
        // Whether the deadline passed shows in the number of tasks.
        let _ = deadline.run("tasks", "waiting for background tasks", self.state.background.wait()).await;
        let left = self.state.background.len();
        self.state.stop.cancel();
        CloseReport::new(before - left, left, Vec::new())
    }
}

#[async_trait]
impl TaskExecutor for SpawningExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        let (functions, background) = (&input.available_functions, &input.available_background_tasks);
        let mut ids = HashSet::new();
        let start = |call: FunctionCall| {
            if call.call_id.as_ref().is_some_and(|id| !ids.insert(id.clone())) {
                return self.ended(call.is_background, FunctionOutcome::duplicate(call));
            }
            self.execute_function_progressively(call, functions, background, input.deadline)
        };
        let tasks = input.function_calls.into_iter().map(start).collect();
        self.gather_progressive_results(tasks).await
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        functions: &Functions,
        background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask {
        let functions = if call.is_background { background_tasks } else { functions };
        self.start(call, functions, deadline)
    }

    fn active_background_tasks_count(&self) -> usize {
        self.state.background.len()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        let deadline = Deadline::after(timeout.unwrap_or(Duration::MAX));
        // Whether the timeout passed shows in the number of tasks.
        let _ = deadline.run("tasks", "waiting for background tasks", self.state.background.wait()).await;
        self.state.background.len()
    }

    fn stats(&self) -> TaskStats {
        self.state.stats().clone()
    }

    fn capabilities(&self) -> TaskCapabilities {
        TaskCapabilities::default()
    }
}

async fn spawning(setup: Setup) -> Arc<dyn TaskExecutor> {
    Arc::new(SpawningExecutor::new(setup.listener))
}

#[tokio::test]
async fn an_executor_written_from_scratch_keeps_the_contract() {
    suite(spawning).await;
}

#[tokio::test]
async fn an_outside_executor_is_selected_by_name() {
    let mut registry = Registry::builtin();
    registry.tasks.register("spawning", |context| {
        let listener = context.background_failure_listener.clone().unwrap_or_else(|| Arc::new(|_| {}));
        Ok(Arc::new(SpawningExecutor::new(listener)))
    });
    let config = Config::from_vars([("ARSHAI_TASKS__BACKEND".into(), "spawning".into())]).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    assert!(format!("{:?}", runtime.tasks()).starts_with("SpawningExecutor"));
}
