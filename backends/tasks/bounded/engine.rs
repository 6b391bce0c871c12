//! Starts and runs calls within the limits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::BoundedExecutor;
use super::background::BackgroundTasks;
use super::blocking::BlockingCalls;
use super::failure::{CallFailure, CallResult, check_result_size};
use crate::config::TaskConfig;
use crate::support::{OwnedPermit, ResizableSemaphore, panic_message};
use crate::tasks::{
    BackgroundFailureListener, CallContext, FailureKind, Function, FunctionBody, FunctionCall,
    FunctionOutcome, Functions, NestedExecution, TaskExecutor, TaskStats,
};
use crate::{Deadline, ErrorKind};

/// A call reports its own timeout; one that has not by this long after its deadline blocks its worker thread.
const REPORT_GRACE: Duration = Duration::from_millis(10);

/// State that an executor shares with its calls and with the executors of nested calls.
pub(super) struct Engine {
    pub(super) background: Arc<BackgroundTasks>,
    pub(super) blocking: Arc<BlockingCalls>,
    pub(super) stats: Arc<Mutex<TaskStats>>,
    pub(super) max_concurrency: usize,
    timeout: Duration,
    max_result_bytes: usize,
}

impl Engine {
    pub(super) fn new(config: &TaskConfig, listener: Option<BackgroundFailureListener>) -> Arc<Self> {
        let stats = Arc::default();
        Arc::new(Self {
            background: Arc::new(BackgroundTasks::new(config, listener, &stats)),
            blocking: Arc::new(BlockingCalls::new(config)),
            stats,
            max_concurrency: config.max_concurrency,
            timeout: config.timeout,
            max_result_bytes: config.max_result_bytes,
        })
    }

    fn context(
        self: &Arc<Self>,
        function: &Function,
        call: &FunctionCall,
        deadline: Option<Deadline>,
        functions: &Functions,
    ) -> CallContext {
        let nested = Arc::clone(self) as Arc<dyn NestedExecution>;
        CallContext::new(function, call, deadline, nested)
            .with_progress_listener(functions.progress_listener())
    }

    /// Runs the function of `context`, holding `permit` until it has ended.
    async fn run(&self, permit: Option<OwnedPermit>, context: CallContext, args: Value) -> CallResult {
        let function = context.function().clone();
        let output = match (function.body(), permit) {
            (FunctionBody::Async(body), _permit) => {
                // Called inside the future: it may panic before it returns one.
                let call = async { body(context, args).await };
                let ended = AssertUnwindSafe(call).catch_unwind().await;
                ended.map_err(|panic| CallFailure::new(FailureKind::Panicked, panic_message(panic)))??
            }
            (FunctionBody::Blocking(body), permit) => {
                let permit = match permit {
                    Some(permit) => permit,
                    None => self.acquire(&self.blocking.permits).await?,
                };
                let body = Arc::clone(body);
                let call = self.blocking.run(permit, context, move |context| body(context, args));
                // Boxed: a task is as large as everything it might hold, and most functions are async.
                Box::pin(call).await?
            }
        };
        check_result_size(output, function.max_result_bytes().unwrap_or(self.max_result_bytes))
    }

    async fn acquire(&self, permits: &ResizableSemaphore) -> Result<OwnedPermit, CallFailure> {
        permits.acquire_owned().await.map_err(|_| CallFailure::shut_down())
    }
}

impl NestedExecution for Engine {
    fn child_executor(self: Arc<Self>, parent: CallContext) -> Arc<dyn TaskExecutor> {
        Arc::new(BoundedExecutor::child(self, parent))
    }
}

/// Which calls run together: those of an executor, or those of a parent call.
pub(super) struct Scope {
    pub(super) permits: ResizableSemaphore,
    /// Cancelled when running calls must end.
    pub(super) stop: CancellationToken,
    pub(super) parent: Option<CallContext>,
}

impl Scope {
    /// Starts `call` of one of `functions`.
    pub(super) fn start(
        &self,
        engine: &Arc<Engine>,
        call: FunctionCall,
        functions: &Functions,
        deadline: Option<Deadline>,
    ) -> StartedCall {
        let is_background = call.is_background;
        let started = self.try_start(engine, call, functions, deadline);
        let stats = (!is_background).then(|| Arc::clone(&engine.stats));
        StartedCall { state: started, stats }
    }

    fn try_start(
        &self,
        engine: &Arc<Engine>,
        call: FunctionCall,
        functions: &Functions,
        deadline: Option<Deadline>,
    ) -> State {
        let Some(function) = functions.get(&call.name) else {
            return State::Ended(FunctionOutcome::not_found(call));
        };
        let args = match call.arguments() {
            Ok(args) => args,
            Err(error) => return State::Ended(FunctionOutcome::function_error(call, &error)),
        };
        let Ok(runtime) = Handle::try_current() else {
            return State::Ended(CallFailure::no_runtime().into_outcome(call));
        };
        if call.is_background {
            return State::Ended(start_background(engine, call, function, args, functions, &runtime));
        }
        if self.permits.is_closed() {
            return State::Ended(CallFailure::shut_down().into_outcome(call));
        }
        let (began, deadline) = (Instant::now(), self.deadline(engine, function, deadline));
        let permits = match function.body() {
            FunctionBody::Async(_) => self.permits.clone(),
            FunctionBody::Blocking(_) => engine.blocking.permits.clone(),
        };
        let context = engine.context(function, &call, Some(deadline), functions);
        let (engine, stop) = (Arc::clone(engine), self.stop.clone());
        let work = RegularCall { engine, permits, stop, context, began, deadline };
        let task = AbortOnDropHandle::new(runtime.spawn(work.run(args)));
        State::Running { call, task, began, deadline }
    }

    /// When a regular call of `function` times out.
    fn deadline(&self, engine: &Engine, function: &Function, turn: Option<Deadline>) -> Deadline {
        let own = Deadline::after(function.timeout().unwrap_or(engine.timeout));
        let parent = self.parent.as_ref().and_then(CallContext::deadline);
        [turn, parent].into_iter().flatten().fold(own, Deadline::min)
    }
}

fn start_background(
    engine: &Arc<Engine>,
    call: FunctionCall,
    function: &Function,
    args: Value,
    functions: &Functions,
    runtime: &Handle,
) -> FunctionOutcome {
    let deadline = function.timeout().map(Deadline::after);
    let context = engine.context(function, &call, deadline, functions);
    let work = {
        let (engine, context) = (Arc::clone(engine), context.clone());
        async move { engine.run(None, context, args).await }
    };
    engine.background.start(call, context, runtime, work)
}

/// A regular call, on its task.
struct RegularCall {
    engine: Arc<Engine>,
    permits: ResizableSemaphore,
    stop: CancellationToken,
    context: CallContext,
    began: Instant,
    deadline: Deadline,
}

impl RegularCall {
    async fn run(self, args: Value) -> CallResult {
        let Self { engine, permits, stop, context, began, deadline } = self;
        let _cancel_at_end = context.cancellation().clone().drop_guard();
        let mut is_queued = true;
        let work = async {
            let permit = engine.acquire(&permits).await?;
            is_queued = false;
            engine.run(Some(permit), context, args).await
        };
        match stop.run_until_cancelled(timeout_at(deadline.instant(), work)).await {
            None => Err(CallFailure::cancelled()),
            Some(Ok(result)) => result,
            Some(Err(_)) if is_queued => {
                Err(CallFailure::queue_timeout(deadline.instant() - began, &permits))
            }
            Some(Err(_)) => Err(CallFailure::timed_out(deadline.instant() - began)),
        }
    }
}

/// A call that was started, or failed to start. Dropping it cancels a regular call.
pub(super) struct StartedCall {
    state: State,
    /// Where the outcome is counted, for a regular call.
    stats: Option<Arc<Mutex<TaskStats>>>,
}

enum State {
    Ended(FunctionOutcome),
    Running { call: FunctionCall, task: AbortOnDropHandle<CallResult>, began: Instant, deadline: Deadline },
}

impl StartedCall {
    /// A call that repeats an id.
    pub(super) fn duplicate(engine: &Engine, call: FunctionCall) -> Self {
        let stats = (!call.is_background).then(|| Arc::clone(&engine.stats));
        Self { state: State::Ended(FunctionOutcome::duplicate(call)), stats }
    }

    /// Waits for the outcome and counts it.
    pub(super) async fn outcome(self) -> FunctionOutcome {
        let outcome = match self.state {
            State::Ended(outcome) => outcome,
            State::Running { call, mut task, began, deadline } => {
                match wait(&mut task, began, deadline).await {
                    Ok(output) => FunctionOutcome::completed(call, output),
                    Err(failure) => failure.into_outcome(call),
                }
            }
        };
        if let Some(stats) = self.stats {
            stats.lock().record(&outcome);
        }
        outcome
    }
}

async fn wait(task: &mut AbortOnDropHandle<CallResult>, began: Instant, deadline: Deadline) -> CallResult {
    if let Some(joined) = (&mut *task).now_or_never() {
        return joined.unwrap_or_else(|error| Err(error.into()));
    }
    let limit = Deadline::after(deadline.remaining() + REPORT_GRACE);
    match limit.run("tasks", "waiting for a call", task).await {
        Ok(joined) => joined.unwrap_or_else(|error| Err(error.into())),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            Err(CallFailure::blocked_worker(deadline.instant() - began))
        }
        Err(_) => Err(CallFailure::no_runtime()),
    }
}
