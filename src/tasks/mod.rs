//! Task execution: the tool calls of a model's turn, in parallel and bounded.
//!
//! [`TaskExecutor`] is the seam. A [`Function`] is what a model may call; [`Functions`] is a set of them by
//! name. One model turn's calls go in as a [`FunctionExecutionInput`] and come back as a
//! [`FunctionExecutionResult`] with exactly one outcome per call.

mod function;
mod outcome;
mod pace;
mod progressive;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::component::Component;
use crate::deadline::Deadline;
use crate::error::Result;

pub use function::{Function, FunctionBody, FunctionError, FunctionFuture, Functions};
pub use outcome::FunctionOutcome;
pub use pace::Pace;
pub use progressive::{FunctionTask, StreamingExecutionState};

/// One call a model asked for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: a JSON object.
    #[serde(default)]
    pub args: Value,
    /// The model's id of this call, given back with the outcome.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Start it and do not wait for it.
    #[serde(default)]
    pub is_background: bool,
}

impl FunctionCall {
    /// A call of `name` with `args`, to be waited for.
    pub fn new(name: impl Into<String>, args: Value) -> Self {
        Self { name: name.into(), args, call_id: None, is_background: false }
    }

    /// Sets the model's id of the call.
    #[must_use]
    pub fn with_call_id(mut self, call_id: impl Into<String>) -> Self {
        self.call_id = Some(call_id.into());
        self
    }

    /// Makes it a background call.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.is_background = true;
        self
    }
}

/// The calls of one turn and the functions they may use.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FunctionExecutionInput {
    /// What to call, in the model's order.
    pub function_calls: Vec<FunctionCall>,
    /// What regular calls may use.
    pub available_functions: Functions,
    /// What background calls may use.
    pub available_background_tasks: Functions,
    /// When all regular calls must have ended, besides each function's own deadline.
    pub deadline: Option<Deadline>,
}

impl FunctionExecutionInput {
    /// Regular `calls` of `functions`.
    #[must_use]
    pub fn new(function_calls: Vec<FunctionCall>, available_functions: Functions) -> Self {
        Self { function_calls, available_functions, ..Self::default() }
    }

    /// Sets what background calls may use.
    #[must_use]
    pub fn with_background_tasks(mut self, tasks: Functions) -> Self {
        self.available_background_tasks = tasks;
        self
    }

    /// Sets when all regular calls must have ended.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// What became of the calls of one turn: exactly one entry per call, each list in the calls' order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FunctionExecutionResult {
    /// Regular calls that returned a value.
    pub regular_results: Vec<FunctionResult>,
    /// Background calls that were started.
    pub background_initiated: Vec<BackgroundInitiated>,
    /// Calls that failed, regular and background.
    pub failed_functions: Vec<FunctionFailure>,
}

/// A regular call that returned a value.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FunctionResult {
    /// The call's place in the input, from zero.
    pub index: usize,
    /// The function's name.
    pub name: String,
    /// The arguments it was called with.
    pub args: Value,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// What it returned.
    pub result: Value,
}

/// A background call that was started.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BackgroundInitiated {
    /// The call's place in the input, from zero.
    pub index: usize,
    /// The function's name.
    pub name: String,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// "Background task 'x' initiated with args …", for the model.
    pub message: String,
}

/// A call that failed.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FunctionFailure {
    /// The call's place in the input, from zero.
    pub index: usize,
    /// The function's name.
    pub name: String,
    /// The arguments it was called with.
    pub args: Value,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// What sort of failure.
    pub kind: FailureKind,
    /// What went wrong, in words the model can act on.
    pub error: String,
}

/// Shows which call it is; arguments and results are parts of conversations and do not belong in logs.
macro_rules! debug_without_arguments {
    ($($name:ident: $($shown:ident),+;)+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($shown), &self.$shown))+.finish_non_exhaustive()
            }
        }
    )+};
}

debug_without_arguments! {
    FunctionCall: name, call_id, is_background;
    FunctionResult: index, name, call_id;
    BackgroundInitiated: index, name, call_id;
    FunctionFailure: index, name, call_id, kind;
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no function of that name.
    NotFound,
    /// The arguments do not fit the function.
    BadArguments,
    /// The function returned an error.
    Failed,
    /// The function panicked.
    Panicked,
    /// Its deadline, or the turn's, passed.
    TimedOut,
    /// Its result is larger than the cap.
    ResultTooLarge,
    /// The same call id came twice in one turn; only the first ran.
    DuplicateCallId,
    /// No background slot was free; nothing was started.
    NoBackgroundSlot,
    /// It was cancelled before it ended.
    Cancelled,
    /// The executor is shutting down; nothing was started.
    ShutDown,
}

/// Runs the functions a model asks for (Python: `FunctionOrchestrator`).
///
/// # Contract
/// - **One outcome per call**, in the order of the calls, whatever happens: unknown function, bad
///   arguments, error, panic, deadline, result too large, cancellation. `execute_functions` itself
///   does not fail.
/// - **Regular calls** run in parallel, at most as many at once as the concurrency limit, each with a
///   deadline: the function's own, else the executor's default, never later than the input's. A
///   panicking or blocking function does not disturb its neighbours.
/// - **Background calls** take a slot. With none free the call fails and nothing is spawned. A slot is free
///   again the moment its task ends. They are not cancelled with the turn that started them. They have the
///   function's own deadline if it has one and otherwise none, but end with the executor: a shutdown aborts
///   them at its deadline, and so does dropping the executor.
/// - **Duplicate call ids** within one turn run once: the first; the others fail as duplicates.
/// - **Cancellation.** Dropping the future of `execute_functions` or a [`FunctionTask`] cancels the regular
///   calls in it: async functions are dropped at their next await; a blocking function that has begun runs
///   on to its end on its own thread, still counted. Background calls already started live on.
/// - **Shutdown** stops accepting calls, waits for background tasks until the deadline, then aborts the
///   rest, and always returns by the deadline (plus scheduling) with a report.
///
/// `arshai::contract::tasks` (feature `contract`) tests all of this on any backend.
#[doc(alias = "FunctionOrchestrator")]
#[async_trait]
pub trait TaskExecutor: Component {
    /// Runs the calls of one turn and waits for the regular ones.
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult;

    /// Starts one call now, while the model is still streaming.
    ///
    /// Within a tokio runtime; outside one the call fails and says so. The task's outcome says what became of the call; dropping the
    /// task cancels a regular call and leaves a background one running.
    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        available_functions: &Functions,
        available_background_tasks: &Functions,
        deadline: Option<Deadline>,
    ) -> FunctionTask;

    /// Waits for calls started progressively and gathers their outcomes in the given order.
    ///
    /// Dropping the future cancels the regular calls among them.
    async fn gather_progressive_results(&self, tasks: Vec<FunctionTask>) -> FunctionExecutionResult {
        progressive::gather(tasks).await
    }

    /// Background tasks running now.
    fn active_background_tasks_count(&self) -> usize;

    /// Waits until no background task runs, or for `timeout`; gives how many still run.
    ///
    /// Dropping the future stops waiting and nothing else.
    async fn wait_for_background_tasks(&self, timeout: Option<Duration>) -> usize;

    /// Changes the number of background tasks: [`Component::set_limit`] of `tasks.max_background_tasks`. Lowering lets
    /// running tasks complete.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when background tasks are unbounded.
    fn set_max_background_tasks(&self, max: usize) -> Result<()> {
        self.set_limit("tasks.max_background_tasks", max as u64)
    }

    /// Counters and bounds, as of now.
    fn stats(&self) -> TaskStats;

    /// What this backend does beyond or short of the contract.
    fn capabilities(&self) -> TaskCapabilities;
}

/// What a task backend does beyond or short of the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskCapabilities {
    /// Background tasks, concurrency, deadlines and result sizes are bounded.
    pub bounded: bool,
}

impl TaskCapabilities {
    /// Sets whether the backend holds bounds.
    #[must_use]
    pub const fn bounded(mut self, yes: bool) -> Self {
        self.bounded = yes;
        self
    }
}

/// What a task executor is doing and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskStats {
    /// Regular calls that returned a value.
    pub succeeded: u64,
    /// Regular calls that failed, whatever the reason.
    pub failed: u64,
    /// Regular calls among them that panicked.
    pub panicked: u64,
    /// Regular calls among them whose deadline passed.
    pub timed_out: u64,
    /// Background tasks started.
    pub background_started: u64,
    /// Background tasks that returned a value.
    pub background_succeeded: u64,
    /// Background tasks that failed, panicked, passed their deadline or were aborted.
    pub background_failed: u64,
    /// Background calls refused because no slot was free.
    pub background_rejected: u64,
}

/// A background task that failed, as a [`BackgroundFailureListener`] sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackgroundFailure {
    /// The function's name.
    pub name: String,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// The function's metadata, as set on the [`Function`].
    pub metadata: Value,
    /// What sort of failure.
    pub kind: FailureKind,
    /// What went wrong.
    pub error: String,
}

impl BackgroundFailure {
    /// A failure of the call of `function`.
    #[must_use]
    pub fn new(function: &Function, call_id: Option<String>, kind: FailureKind, error: String) -> Self {
        Self { name: function.name().to_owned(), call_id, metadata: function.metadata().clone(), kind, error }
    }
}

/// Called once for every background task that fails, after its slot is free again. It must be quick. A panic
/// in it is caught and logged.
pub type BackgroundFailureListener = Arc<dyn Fn(BackgroundFailure) + Send + Sync>;
