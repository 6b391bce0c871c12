//! The legacy executor: a spawn per call, no limits.

use std::borrow::Cow;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::{TaskTracker, TaskTrackerToken};

use super::{EndOnDrop, notify_failure};
use crate::registry::BuildContext;
use crate::support::{catch_panic, counters, opaque_debug, panic_message};
use crate::tasks::{
    BackgroundFailureListener, CallContext, FailureKind, FunctionBody, FunctionCall, FunctionError,
    FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome, FunctionOutput, FunctionTask,
    Functions, NestedExecution, TaskCapabilities, TaskExecutor, TaskStats,
};
use crate::{CloseReport, Component, Deadline, Health, LimitUsage, ShutdownPhase};

const COMPONENT: &str = "tasks";

/// Runs functions as Python arshai 1.15.0 does: all calls concurrently, any number of background tasks, no default
/// deadline, no result size limit, and blocking functions on the runtime's shared blocking threads.
///
/// It is selected by `ARSHAI_DISABLE_OPTIMIZATIONS`. Timeouts of functions and deadlines of turns apply. Dropping it
/// aborts its calls and background tasks; blocking functions run to their end.
#[derive(Debug)]
pub struct LegacyExecutor {
    shared: Arc<Shared>,
    /// Cancelled when running regular calls must end.
    stop: CancellationToken,
    parent: Option<CallContext>,
}

struct Shared {
    calls: TaskTracker,
    background: TaskTracker,
    /// Cancelled when the executor is closed and its deadline has passed.
    stop: CancellationToken,
    closed: CancellationToken,
    stats: Mutex<TaskStats>,
    listener: Option<BackgroundFailureListener>,
}

type Failure = (FailureKind, String);

type CallResult = Result<FunctionOutput, Failure>;

impl LegacyExecutor {
    /// Name in the configuration: `tasks.backend = "legacy"`.
    pub const NAME: &'static str = "legacy";

    /// An executor with a listener of failed background tasks.
    #[must_use]
    pub fn new(listener: Option<BackgroundFailureListener>) -> Self {
        let shared = Shared {
            calls: TaskTracker::new(),
            background: TaskTracker::new(),
            stop: CancellationToken::new(),
            closed: CancellationToken::new(),
            stats: Mutex::default(),
            listener,
        };
        // A tracker can be waited for once it is closed; it still tracks further tasks.
        shared.calls.close();
        shared.background.close();
        Self { stop: shared.stop.clone(), shared: Arc::new(shared), parent: None }
    }

    /// The executor for a runtime.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        Self::new(context.background_failure_listener.clone())
    }

    fn start(&self, call: FunctionCall, functions: &Functions, deadline: Option<Deadline>) -> FunctionTask {
        let is_background = call.is_background;
        match self.try_start(&call, functions, deadline) {
            Ok(Some(task)) => self.shared.clone().watch(call, task),
            Ok(None) => FunctionTask::new(std::future::ready(FunctionOutcome::initiated(call))),
            Err((kind, error)) => {
                let outcome = match kind {
                    FailureKind::NotFound => FunctionOutcome::not_found(call),
                    kind => FunctionOutcome::failed(call, kind, error),
                };
                self.shared.ended(outcome, is_background)
            }
        }
    }

    /// The task of a regular call; none for a background call.
    fn try_start(
        &self,
        call: &FunctionCall,
        functions: &Functions,
        deadline: Option<Deadline>,
    ) -> Result<Option<AbortOnDropHandle<CallResult>>, Failure> {
        let function = functions.get(&call.name).ok_or((FailureKind::NotFound, String::new()))?;
        let args = call.arguments().map_err(to_failure)?;
        let runtime = Handle::try_current().map_err(|_| {
            (FailureKind::Failed, "no tokio runtime: must be called from a runtime context".to_owned())
        })?;
        if self.shared.closed.is_cancelled() {
            return Err((FailureKind::ShutDown, "executor is shut down; call not started".to_owned()));
        }
        let timeout = function.timeout().map(Deadline::after);
        let deadline = if call.is_background {
            timeout
        } else {
            let parent = self.parent.as_ref().and_then(CallContext::deadline);
            [timeout, deadline, parent].into_iter().flatten().min()
        };
        let nested = Arc::clone(&self.shared) as Arc<dyn NestedExecution>;
        let context = CallContext::new(function, call, deadline, nested)
            .with_progress_listener(functions.progress_listener());
        if call.is_background {
            let token = Some(self.shared.background.token());
            self.shared.stats.lock().background_started += 1;
            let run = BackgroundRun { shared: Arc::clone(&self.shared), token, context, result: None };
            runtime.spawn(run.run(args));
            return Ok(None);
        }
        let (stop, token) = (self.stop.clone(), self.shared.calls.token());
        Ok(Some(AbortOnDropHandle::new(runtime.spawn(async move {
            let _token = token;
            run(&stop, context, args).await
        }))))
    }
}

/// Runs the function of `context` until `stop` is cancelled or the deadline passes.
async fn run(stop: &CancellationToken, context: CallContext, args: Value) -> CallResult {
    let _end = EndOnDrop(context.clone());
    let (function, deadline) = (context.function().clone(), context.deadline());
    let work = async {
        match function.body() {
            // Called inside the future: it may panic before it returns one.
            FunctionBody::Async(body) => {
                let call = AssertUnwindSafe(async { body(context, args).await });
                call.catch_unwind().await.map_err(panic_message)
            }
            FunctionBody::Blocking(body) => {
                let body = Arc::clone(body);
                let call = tokio::task::spawn_blocking(move || catch_panic(|| body(context, args)));
                call.await.unwrap_or_else(|error| Ok(Err(error.into())))
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
        Some(Ok(Ok(result))) => result.map_err(to_failure),
    }
}

fn to_failure(error: FunctionError) -> Failure {
    let kind = if error.is_bad_arguments() { FailureKind::BadArguments } else { FailureKind::Failed };
    (kind, error.message().to_owned())
}

fn cancelled() -> Failure {
    (FailureKind::Cancelled, "cancelled: the executor, its runtime or the parent call ended".to_owned())
}

impl Shared {
    /// The outcome of a regular call's task, counted.
    fn watch(self: Arc<Self>, call: FunctionCall, task: AbortOnDropHandle<CallResult>) -> FunctionTask {
        FunctionTask::new(async move {
            let result = task.await.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => Err((FailureKind::Panicked, panic_message(panic))),
                Err(_) => Err(cancelled()),
            });
            let outcome = match result {
                Ok(output) => FunctionOutcome::completed(call, output),
                Err((kind, error)) => FunctionOutcome::failed(call, kind, error),
            };
            self.stats.lock().record(&outcome);
            outcome
        })
    }

    /// A call that did not start.
    fn ended(&self, outcome: FunctionOutcome, is_background: bool) -> FunctionTask {
        if !is_background {
            self.stats.lock().record(&outcome);
        }
        FunctionTask::new(std::future::ready(outcome))
    }
}

impl NestedExecution for Shared {
    fn child_executor(self: Arc<Self>, parent: CallContext) -> Arc<dyn TaskExecutor> {
        let stop = parent.cancellation().child_token();
        Arc::new(LegacyExecutor { shared: self, stop, parent: Some(parent) })
    }
}

/// A running background task. Dropping it ends the task, also when the runtime drops it.
struct BackgroundRun {
    shared: Arc<Shared>,
    token: Option<TaskTrackerToken>,
    context: CallContext,
    result: Option<CallResult>,
}

impl BackgroundRun {
    async fn run(mut self, args: Value) {
        self.result = Some(run(&self.shared.stop, self.context.clone(), args).await);
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        let Self { shared, context, .. } = self;
        let result = self.result.take().unwrap_or_else(|| Err(cancelled()));
        match result {
            Ok(_) => shared.stats.lock().background_succeeded += 1,
            Err(_) => shared.stats.lock().background_failed += 1,
        }
        self.token = None;
        if let Err((kind, error)) = result {
            notify_failure(shared.listener.as_ref(), context, kind, error);
        }
    }
}

impl Drop for LegacyExecutor {
    fn drop(&mut self) {
        if self.parent.is_none() {
            self.shared.closed.cancel();
            self.shared.stop.cancel();
        }
    }
}

opaque_debug!(Shared(self) { calls: self.calls.len() });

#[async_trait]
impl Component for LegacyExecutor {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(COMPONENT)
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    /// Usage without limits; peaks are not recorded.
    fn limits(&self) -> Vec<LimitUsage> {
        let usage = |key, unit, tracker: &TaskTracker| {
            let used = tracker.len() as u64;
            LimitUsage::new(key, unit, used, used, None)
        };
        vec![
            usage("tasks.max_concurrency", "calls", &self.shared.calls),
            usage("tasks.max_background_tasks", "tasks", &self.shared.background),
        ]
    }

    fn counters(&self) -> Value {
        counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.shared.closed.is_cancelled() {
            true => Health::unhealthy("executor is shut down"),
            false => Health::Healthy,
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        if self.parent.is_some() {
            self.stop.cancel();
            return CloseReport::idle();
        }
        let Shared { calls, background, closed, .. } = &*self.shared;
        closed.cancel();
        let before = background.len();
        let all = async {
            calls.wait().await;
            background.wait().await;
        };
        // Whether the deadline passed shows in what still runs.
        let _ = deadline.run(COMPONENT, "waiting for running calls", all).await;
        let left = background.len();
        let aborted = left + calls.len();
        self.shared.stop.cancel();
        CloseReport::new(before.saturating_sub(left), aborted, Vec::new())
    }
}

#[async_trait]
impl TaskExecutor for LegacyExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        let mut ids = HashSet::new();
        let mut tasks = Vec::new();
        for call in input.function_calls {
            let is_duplicate = call.call_id.as_ref().is_some_and(|id| !ids.insert(id.clone()));
            let is_background = call.is_background;
            tasks.push(if is_duplicate {
                self.shared.ended(FunctionOutcome::duplicate(call), is_background)
            } else {
                self.execute_function_progressively(
                    call,
                    &input.available_functions,
                    &input.available_background_tasks,
                    input.deadline,
                )
            });
        }
        self.gather_progressive_results(tasks).await
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask {
        let functions = if call.is_background { available_background_tasks } else { available_functions };
        self.start(call, functions, deadline)
    }

    fn active_background_tasks_count(&self) -> usize {
        self.shared.background.len()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        let background = &self.shared.background;
        match timeout {
            None => background.wait().await,
            Some(timeout) => {
                // Whether the timeout passed shows in the number of tasks.
                let deadline = Deadline::after(timeout);
                let _ = deadline.run(COMPONENT, "waiting for background tasks", background.wait()).await;
            }
        }
        background.len()
    }

    fn stats(&self) -> TaskStats {
        self.shared.stats.lock().clone()
    }

    fn capabilities(&self) -> TaskCapabilities {
        TaskCapabilities::default()
    }
}
