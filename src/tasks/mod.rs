//! Task execution: the tool calls of a model's turn, in parallel and limited.
//!
//! [`TaskExecutor`] is the backend trait. A [`Function`] is what a model may call; [`Functions`] is a set of them by
//! name. The calls of one turn go in as a [`FunctionExecutionInput`] and are returned as a
//! [`FunctionExecutionResult`] with exactly one outcome per call. A function that runs further calls, such as an agent
//! used as a tool, takes a [`CallContext`].

mod call;
mod context;
mod function;
mod functions;
mod offer;
mod outcome;
mod output;
mod progressive;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::component::Component;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::support::opaque_debug;

pub use call::{FunctionCall, FunctionExecutionInput};
pub use context::{CallContext, NestedExecution, Progress, ProgressListener};
pub use function::{Function, FunctionBody, FunctionError, FunctionFuture};
pub use functions::Functions;
pub use offer::FunctionOffer;
pub use outcome::{
    BackgroundInitiated, FailureKind, FunctionExecutionResult, FunctionFailure, FunctionOutcome,
    FunctionResult,
};
pub use output::FunctionOutput;
pub use progressive::{FunctionTask, StreamingExecutionState};
pub use provider::FunctionProvider;

// Debug output identifies the call only; arguments and results are parts of conversations and do not belong in logs.
opaque_debug!(FunctionCall { name, call_id, is_background });
opaque_debug!(FunctionResult { index, name, call_id });
opaque_debug!(BackgroundInitiated { index, name, call_id });
opaque_debug!(FunctionFailure { index, name, call_id, kind });

/// Runs the functions a model asks for (Python: `FunctionOrchestrator`).
///
/// # Contract
/// - **One outcome per call**, in the order of the calls: value, unknown function, bad arguments, error, panic, deadline,
///   result too large, cancellation. `execute_functions` itself does not fail, even if a panic's payload panics when it
///   is dropped. Messages repeat at most a few hundred bytes of names, ids and arguments.
/// - **Regular calls** run in parallel, each with a deadline: the function's timeout, else the executor's default, never
///   later than the input's. Async functions share a concurrency limit, blocking ones a limit of threads: blocking
///   functions that never return do not delay async ones, and [`health`](Component::health) names those that still run
///   after their deadline or cancellation. A call that times out while it waits says what it waits for. A panicking or
///   blocking function does not affect other calls.
/// - **Background calls** count against the background task limit. At the limit the call fails and nothing is spawned.
///   A task is no longer counted when it has ended. Background tasks are not cancelled with the turn that started them.
///   They have the function's timeout, if set, otherwise none, and end with the executor: closing it aborts them at the
///   deadline, and so does dropping it.
/// - **Nested calls.** Calls through [`CallContext::executor`] need no further permit, end by the deadline of their
///   parent call and are cancelled when it ends. Calls of a function through another handle of its executor wait for a
///   permit while the function holds one.
/// - **Duplicate call ids** within one turn run once: the first; the others fail as duplicates.
/// - **Cancellation.** Dropping the future of `execute_functions` or a [`FunctionTask`] cancels its regular calls: async
///   functions are dropped at their next await; a blocking function that has started runs to its end on its thread,
///   still counted. Calls cancelled this way are not counted as failed. Background tasks continue.
/// - **Closing** rejects further calls, waits for running ones until the deadline, then aborts the rest, and returns by
///   the deadline (plus scheduling) with a report.
/// - **Outside a tokio runtime** a call fails with an outcome that says so. Closing aborts immediately instead of waiting,
///   and `wait_for_background_tasks` with a timeout does not wait.
///
/// `arshai::contract::tasks` (feature `contract`) tests all of this on any backend.
#[doc(alias = "FunctionOrchestrator")]
#[async_trait]
pub trait TaskExecutor: Component {
    /// Runs the calls of one turn and waits for the regular ones.
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult;

    /// Starts one call now, while the model is still streaming.
    ///
    /// The task resolves to the outcome; dropping it cancels a regular call and leaves a background one running.
    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask;

    /// Waits for progressively started calls and gathers their outcomes in the given order.
    ///
    /// Dropping the future cancels the regular calls among them.
    async fn gather_progressive_results(&self, tasks: Vec<FunctionTask>) -> FunctionExecutionResult {
        progressive::gather(tasks).await
    }

    /// Number of running background tasks.
    fn active_background_tasks_count(&self) -> usize;

    /// Waits until no background task runs, or for `timeout`; returns the number of tasks that still run.
    ///
    /// Dropping the future stops waiting and has no other effect.
    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize;

    /// Changes the maximum number of background tasks: [`Component::set_limit`] of `tasks.max_background_tasks`. Lowering
    /// it lets running tasks complete.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when background tasks are unlimited.
    fn set_max_background_tasks(&self, max: usize) -> Result<()> {
        self.set_limit("tasks.max_background_tasks", max as u64)
    }

    /// A snapshot of the counters.
    fn stats(&self) -> TaskStats;

    /// Which parts of the contract this backend implements.
    fn capabilities(&self) -> TaskCapabilities;
}

/// Which parts of the contract a task backend implements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskCapabilities {
    /// Background tasks, concurrency, threads, default deadlines and result sizes are limited.
    pub bounded: bool,
}

/// Counters of a task executor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskStats {
    /// Regular calls that returned a value.
    pub succeeded: u64,
    /// Regular calls that failed for any reason.
    pub failed: u64,
    /// Regular calls among them that panicked.
    pub panicked: u64,
    /// Regular calls among them whose deadline passed.
    pub timed_out: u64,
    /// Background tasks started.
    pub background_started: u64,
    /// Background tasks that returned a value.
    pub background_succeeded: u64,
    /// Background tasks that failed, panicked, timed out or were aborted.
    pub background_failed: u64,
    /// Background calls rejected at the limit.
    pub background_rejected: u64,
}

impl TaskStats {
    /// Counts the outcome of a regular call: for executors.
    pub fn record(&mut self, outcome: &FunctionOutcome) {
        match outcome {
            FunctionOutcome::Completed(_) => self.succeeded += 1,
            FunctionOutcome::Initiated(_) => {}
            FunctionOutcome::Failed(failure) => {
                self.failed += 1;
                self.panicked += u64::from(failure.kind == FailureKind::Panicked);
                self.timed_out += u64::from(failure.kind == FailureKind::TimedOut);
            }
        }
    }
}

/// A failed background task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackgroundFailure {
    /// The function's name.
    pub name: String,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// The [metadata](Function::with_metadata) of the function.
    pub metadata: Value,
    /// The kind of failure.
    pub kind: FailureKind,
    /// The error message.
    pub error: String,
}

impl BackgroundFailure {
    /// A failure of the call of `function`.
    #[must_use]
    pub fn new(function: &Function, call_id: Option<String>, kind: FailureKind, error: String) -> Self {
        Self { name: function.name().to_owned(), call_id, metadata: function.metadata().clone(), kind, error }
    }
}

/// Called once for every background task that fails, after the task is no longer counted. It must be quick. Panics in
/// it are caught and logged.
pub type BackgroundFailureListener = Arc<dyn Fn(BackgroundFailure) + Send + Sync>;
