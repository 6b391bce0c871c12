//! The executor as it was before there were bounds.

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase};
use std::borrow::Cow;
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::background::Background;
use super::call::{Counters, Ended, Failure, Spawned, duplicate, duplicates, outcome, resolve, stopped};
use crate::registry::BuildContext;
use crate::support::ResizableSemaphore;
use crate::tasks::{
    BackgroundFailureListener, Function, FunctionBody, FunctionCall, FunctionExecutionInput,
    FunctionExecutionResult, FunctionOutcome, FunctionTask, Functions, TaskCapabilities, TaskExecutor,
    TaskStats,
};
use crate::{Deadline, Error, ErrorKind, Health, Result};

/// Runs functions as Python arshai 1.15.0 does: every call at once, any number of background tasks, no
/// deadlines, no cap on results, and blocking functions on the runtime's shared blocking threads.
///
/// It is what `ARSHAI_DISABLE_OPTIMIZATIONS` goes back to. Of the deadlines it keeps those that somebody asks
/// for: a turn's own and a function's own. Dropping it aborts what it still runs, as far as that can be
/// aborted.
pub struct LegacyExecutor {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

struct Shared {
    /// Counted, not bounded.
    calls: ResizableSemaphore,
    background: Arc<Background>,
    counters: Arc<Counters>,
}

impl LegacyExecutor {
    /// Its name in the configuration: `tasks.backend = "legacy"`.
    pub const NAME: &'static str = "legacy";

    /// An executor without bounds, and who is told about background tasks that fail.
    #[must_use]
    pub fn new(listener: Option<BackgroundFailureListener>) -> Self {
        let counters = Arc::default();
        let shared = Shared {
            calls: ResizableSemaphore::new("tasks.max_concurrency", "calls", ResizableSemaphore::MAX),
            background: Arc::new(Background::new(ResizableSemaphore::MAX, 0, listener, &counters)),
            counters,
        };
        Self { shared: Arc::new(shared), stop: watch::Sender::new(false) }
    }

    /// The executor for a runtime.
    #[must_use]
    pub fn from_context(context: &BuildContext) -> Self {
        Self::new(context.background_failure_listener.clone())
    }
}

impl Drop for LegacyExecutor {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for LegacyExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyExecutor")
            .field("calls", &self.shared.calls)
            .field("background", &self.shared.background)
            .finish()
    }
}

impl Shared {
    /// Starts a call, regular or background, on a task of its own.
    fn start(
        self: &Arc<Self>,
        call: FunctionCall,
        functions: &Functions,
        deadline: Option<Deadline>,
        stop: watch::Receiver<bool>,
    ) -> FunctionTask {
        let is_background = call.is_background;
        let refused = |outcome: FunctionOutcome| {
            if !is_background {
                self.counters.count(&outcome);
            }
            FunctionTask::new(ready(outcome))
        };
        let (function, args) = match resolve(&call, functions) {
            Ok((function, args)) => (function.clone(), args),
            Err(unresolved) => return refused(unresolved.of(call)),
        };
        if is_background {
            let work = run(function.clone(), args);
            return refused(self.background.start(call, &function, stop, work));
        }
        let Ok(runtime) = Handle::try_current() else { return refused(Failure::no_runtime().of(call)) };
        let Some(slot) = self.calls.try_acquire_owned() else {
            return refused(Failure::shut_down().of(call));
        };
        let mut task = Spawned(runtime.spawn(async move {
            let _slot = slot;
            let own = function.timeout().map(Deadline::after);
            let until = deadline.into_iter().chain(own).min();
            tokio::select! {
                biased;
                () = stopped(stop) => Err(Failure::cancelled()),
                ended = within(until, run(function, args)) => ended,
            }
        }));
        let shared = Arc::clone(self);
        FunctionTask::new(async move {
            let ended = (&mut task).await.unwrap_or_else(|error| Err(error.into()));
            let outcome = outcome(call, ended);
            shared.counters.count(&outcome);
            outcome
        })
    }

    fn close(&self) {
        self.calls.close();
        self.background.slots().close();
    }
}

async fn run(function: Function, args: Value) -> Ended {
    match function.body() {
        FunctionBody::Async(body) => Ok(body(args).await?),
        FunctionBody::Blocking(body) => {
            let body = Arc::clone(body);
            Ok(tokio::task::spawn_blocking(move || body(args)).await??)
        }
    }
}

async fn within(deadline: Option<Deadline>, work: impl Future<Output = Ended>) -> Ended {
    let Some(deadline) = deadline else { return work.await };
    let left = deadline.remaining();
    tokio::time::timeout_at(deadline.instant(), work).await.unwrap_or_else(|_| Err(Failure::timed_out(left)))
}

#[async_trait]
impl Component for LegacyExecutor {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("tasks")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    fn limits(&self) -> Vec<LimitUsage> {
        vec![self.shared.calls.usage(), self.shared.background.slots().usage()]
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.shared.calls.is_closed() {
            true => Health::Unhealthy { reason: "the task executor is shut down".into() },
            false => Health::Healthy,
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let (calls, background) = (&self.shared.calls, self.shared.background.slots());
        self.shared.close();
        let before = background.used();
        let all = async {
            calls.wait_idle().await;
            background.wait_idle().await;
        };
        // Whether time ran out shows in what still runs.
        let _ = deadline.run("tasks", "running calls", all).await;
        let left = background.used();
        let aborted = left + calls.used();
        self.stop.send_replace(true);
        CloseReport::new(before.saturating_sub(left), aborted, Vec::new())
    }
}

#[async_trait]
impl TaskExecutor for LegacyExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        let duplicates = duplicates(&input.function_calls);
        let mut tasks = Vec::with_capacity(input.function_calls.len());
        for (index, call) in input.function_calls.into_iter().enumerate() {
            tasks.push(if duplicates.binary_search(&index).is_ok() {
                let is_background = call.is_background;
                let outcome = duplicate(call);
                if !is_background {
                    self.shared.counters.count(&outcome);
                }
                FunctionTask::new(ready(outcome))
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
        self.shared.start(call, functions, deadline, self.stop.subscribe())
    }

    fn active_background_tasks_count(&self) -> usize {
        self.shared.background.slots().used()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        self.shared.background.wait(timeout).await
    }

    fn stats(&self) -> TaskStats {
        self.shared.counters.stats()
    }

    fn capabilities(&self) -> TaskCapabilities {
        TaskCapabilities::default()
    }
}
