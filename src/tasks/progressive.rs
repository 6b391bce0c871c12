//! Calls that start while the model is still streaming.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{FunctionCall, FunctionExecutionResult, FunctionOutcome, Functions, TaskExecutor};
use crate::deadline::Deadline;

/// One call that has been started; a future of its outcome.
///
/// Dropping it cancels a regular call and leaves a background one running.
#[must_use = "dropping the task cancels the call"]
pub struct FunctionTask {
    outcome: Pin<Box<dyn Future<Output = FunctionOutcome> + Send>>,
}

impl FunctionTask {
    /// A task whose outcome `outcome` resolves to: for executors. The future must cancel its regular call
    /// when it is dropped.
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

impl fmt::Debug for FunctionTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionTask")
    }
}

/// Waits for `tasks` and sorts their outcomes, numbered by their place among `tasks`.
pub(super) async fn gather(tasks: Vec<FunctionTask>) -> FunctionExecutionResult {
    let mut result = FunctionExecutionResult::default();
    for (index, outcome) in futures_util::future::join_all(tasks).await.into_iter().enumerate() {
        result.push(index, outcome);
    }
    result
}

/// Keeps the calls of a streaming turn, and makes sure that no call id runs twice in a conversation's turns
/// (Python: `StreamingExecutionState`).
#[derive(Debug, Default)]
pub struct StreamingExecutionState {
    active: Vec<FunctionTask>,
    executed: HashSet<String>,
}

impl StreamingExecutionState {
    /// Nothing started yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a call of this id was started before. A call without an id never counts as the same.
    #[must_use]
    pub fn is_already_executed(&self, call: &FunctionCall) -> bool {
        call.call_id.as_ref().is_some_and(|id| self.executed.contains(id))
    }

    /// Starts `call` on `executor` and keeps it, unless a call of the same id was started before. Gives
    /// whether it was started.
    ///
    /// Within a tokio runtime, as [`TaskExecutor::execute_function_progressively`].
    pub fn start(
        &mut self,
        executor: &dyn TaskExecutor,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> bool {
        if self.is_already_executed(&call) {
            return false;
        }
        let call_id = call.call_id.clone();
        let task = executor.execute_function_progressively(
            call,
            available_functions,
            available_background_tasks,
            deadline,
        );
        self.add_function_task(task, call_id);
        true
    }

    /// Keeps a started call and remembers its id.
    pub fn add_function_task(&mut self, task: FunctionTask, call_id: Option<String>) {
        self.active.push(task);
        self.executed.extend(call_id);
    }

    /// Takes the started calls, to gather their results; ids stay remembered across turns.
    #[must_use]
    pub fn take_active(&mut self) -> Vec<FunctionTask> {
        std::mem::take(&mut self.active)
    }

    /// Cancels what is still active before the next turn; ids stay remembered.
    pub fn clear_for_next_turn(&mut self) {
        self.active.clear();
    }
}
