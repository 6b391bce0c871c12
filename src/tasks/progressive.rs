//! Calls that start while the model is still streaming.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{FunctionCall, FunctionExecutionResult, FunctionOutcome, Functions, TaskExecutor};
use crate::deadline::Deadline;
use crate::support::opaque_debug;

/// A started call; a future of its outcome.
///
/// The call runs whether or not this is polled. Dropping it cancels a regular call and leaves a background one running.
#[must_use = "dropping the task cancels the call"]
pub struct FunctionTask {
    outcome: Pin<Box<dyn Future<Output = FunctionOutcome> + Send>>,
}

impl FunctionTask {
    /// A task that resolves to `outcome`: for executors. Dropping the future must cancel its regular call.
    pub fn new(outcome: impl Future<Output = FunctionOutcome> + Send + 'static) -> Self {
        Self { outcome: Box::pin(outcome) }
    }
}

impl Future for FunctionTask {
    type Output = FunctionOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FunctionOutcome> {
        self.outcome.as_mut().poll(cx)
    }
}

opaque_debug!(FunctionTask {});

/// Waits for all of `tasks`; their index among `tasks` is that of their outcome.
pub(super) async fn gather(tasks: Vec<FunctionTask>) -> FunctionExecutionResult {
    let mut result = FunctionExecutionResult::default();
    // One after the other: they run by themselves.
    for (index, task) in tasks.into_iter().enumerate() {
        result.push(index, task.await);
    }
    result
}

/// Keeps the calls of a streaming turn, and ensures that no call id runs twice in the turns of a conversation.
#[derive(Debug, Default)]
pub struct StreamingExecutionState {
    active: Vec<FunctionTask>,
    executed: HashSet<String>,
}

impl StreamingExecutionState {
    /// A state without calls.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `call` on `executor` and keeps its task, unless a call with the same id was started before. Calls without
    /// an id are never the same. Returns whether it was started.
    pub fn start(
        &mut self,
        executor: &dyn TaskExecutor,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> bool {
        if call.call_id.as_ref().is_some_and(|id| !self.executed.insert(id.clone())) {
            return false;
        }
        self.active.push(executor.execute_function_progressively(
            call,
            available_functions,
            available_background_tasks,
            deadline,
        ));
        true
    }

    /// Takes the started calls, to gather their results. Ids are remembered across turns.
    #[must_use]
    pub fn take_active(&mut self) -> Vec<FunctionTask> {
        std::mem::take(&mut self.active)
    }
}
