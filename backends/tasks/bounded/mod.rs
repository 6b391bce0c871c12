//! The executor that enforces every limit.

mod background;
mod blocking;
mod builder;
mod engine;
mod failure;
mod scope;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashSet;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{ResizableSemaphore, counters, opaque_debug};
use crate::tasks::{
    CallContext, FunctionCall, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome,
    FunctionTask, Functions, TaskCapabilities, TaskExecutor, TaskStats,
};
use crate::{
    CloseReport, Component, Deadline, Health, LimitUsage, Result, ShutdownPhase, unsupported_limit_error,
};

pub use builder::BoundedExecutorBuilder;

use engine::Engine;
use scope::{Scope, StartedCall, Turn, WorkerWatch};

const COMPONENT: &str = "tasks";

/// Maximum number of functions that a health reason names.
const MAX_NAMED: usize = 10;

/// Runs functions within limits: concurrent calls, background tasks, threads, time and result size.
///
/// - Each call runs on its own tokio task. A regular async call waits for one of `max_concurrency` permits, shared by all
///   turns; waiting spends its deadline. A nested call through [`CallContext::executor`] runs under the permit of its
///   parent.
/// - Blocking functions, regular and background ones alike, run on at most `max_blocking_threads` threads of the
///   executor; waiting for one spends the deadline. When the deadline passes, the outcome is returned on time, the
///   thread continues and stays counted, and health and close reports name its function.
///
/// It needs a tokio runtime with time enabled and owns none. Dropping it aborts its calls and background tasks.
pub struct BoundedExecutor {
    scope: Arc<Scope>,
}

impl BoundedExecutor {
    fn root(engine: Arc<Engine>) -> Self {
        Self::new(engine, CancellationToken::new(), None)
    }

    /// The executor of calls nested in `parent`.
    fn child(engine: Arc<Engine>, parent: CallContext) -> Self {
        Self::new(engine, parent.cancellation().child_token(), Some(parent))
    }

    fn new(engine: Arc<Engine>, stop: CancellationToken, parent: Option<CallContext>) -> Self {
        let permits = ResizableSemaphore::new("tasks.max_concurrency", "calls", engine.max_concurrency);
        Self { scope: Arc::new(Scope { engine, permits, stop, parent }) }
    }

    fn is_child(&self) -> bool {
        self.scope.parent.is_some()
    }

    fn engine(&self) -> &Engine {
        &self.scope.engine
    }

    fn reject_further_calls(&self) {
        self.scope.permits.close();
        if !self.is_child() {
            self.engine().background.permits.close();
        }
    }

    async fn wait_idle(&self) {
        self.scope.permits.wait_idle().await;
        if !self.is_child() {
            self.engine().background.permits.wait_idle().await;
            self.engine().blocking.permits.wait_idle().await;
        }
    }

    fn abort_all(&self) {
        self.scope.stop.cancel();
        if !self.is_child() {
            self.engine().background.stop.cancel();
            self.engine().blocking.close();
        }
    }
}

/// Whether each call repeats the id of an earlier one.
fn repeat_ids(calls: &[FunctionCall]) -> Vec<bool> {
    let mut ids = HashSet::with_capacity(calls.len());
    calls.iter().map(|call| call.call_id.as_deref().is_some_and(|id| !ids.insert(id))).collect()
}

impl Drop for BoundedExecutor {
    fn drop(&mut self) {
        // The calls of a child end with their parent.
        if !self.is_child() {
            self.reject_further_calls();
            self.abort_all();
        }
    }
}

opaque_debug!(BoundedExecutor(self) {
    calls: self.scope.permits,
    background: self.engine().background.permits,
});

#[async_trait]
impl Component for BoundedExecutor {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(COMPONENT)
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Tasks
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let Engine { background, blocking, .. } = self.engine();
        vec![self.scope.permits.usage(), background.permits.usage(), blocking.permits.usage()]
    }

    fn counters(&self) -> Value {
        counters(&self.stats())
    }

    async fn health(&self, _: Deadline) -> Health {
        let background = &self.engine().background.permits;
        if self.scope.permits.is_closed() {
            return Health::unhealthy("executor is shut down");
        }
        let overdue = self.engine().blocking.overdue();
        if !overdue.is_empty() {
            let named = overdue[..overdue.len().min(MAX_NAMED)].join(", ");
            let count = overdue.len();
            return Health::degraded(format!(
                "{count} blocking functions still run after their deadline or cancellation: {named}"
            ));
        }
        let max = background.max();
        if max > 0 && background.used() >= max {
            return Health::degraded(format!("background task limit ({max}) reached"));
        }
        Health::Healthy
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        match key {
            "tasks.max_background_tasks" => {
                self.engine().background.set_max(usize::try_from(max).unwrap_or(usize::MAX));
                Ok(())
            }
            _ => Err(unsupported_limit_error(COMPONENT, key)),
        }
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        let background = || if self.is_child() { 0 } else { self.active_background_tasks_count() };
        let before = background();
        self.reject_further_calls();
        // Whether the deadline passed shows in what still runs.
        let _ = deadline.run(COMPONENT, "waiting for running calls", self.wait_idle()).await;
        let left = background();
        let aborted = left + self.scope.permits.used();
        self.abort_all();
        let lost = if self.is_child() { Vec::new() } else { self.engine().blocking.names() };
        CloseReport::new(before.saturating_sub(left), aborted, lost)
    }
}

#[async_trait]
impl TaskExecutor for BoundedExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        let is_duplicate = repeat_ids(&input.function_calls);
        let turn = Turn::new(&input.available_functions, &input.available_background_tasks, input.deadline);
        let start = |(call, is_duplicate): (FunctionCall, bool)| {
            let is_regular = !call.is_background;
            let started = match is_duplicate {
                true => StartedCall::Ended(FunctionOutcome::duplicate(call)),
                false => self.scope.start(call, &turn),
            };
            (started, is_regular)
        };
        let started: Vec<_> = input.function_calls.into_iter().zip(is_duplicate).map(start).collect();
        let mut result = FunctionExecutionResult::default();
        let mut watch = WorkerWatch::default();
        for (index, (call, is_regular)) in started.into_iter().enumerate() {
            result.push(index, self.scope.outcome(call, is_regular, &mut watch).await);
        }
        result
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask {
        let is_regular = !call.is_background;
        let turn = Turn::new(available_functions, available_background_tasks, deadline);
        let (started, scope) = (self.scope.start(call, &turn), Arc::clone(&self.scope));
        FunctionTask::new(
            async move { scope.outcome(started, is_regular, &mut WorkerWatch::default()).await },
        )
    }

    fn active_background_tasks_count(&self) -> usize {
        self.engine().background.permits.used()
    }

    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize {
        self.engine().background.wait(timeout).await
    }

    fn stats(&self) -> TaskStats {
        self.engine().stats.lock().clone()
    }

    fn capabilities(&self) -> TaskCapabilities {
        let mut capabilities = TaskCapabilities::default();
        capabilities.bounded = true;
        capabilities
    }
}
