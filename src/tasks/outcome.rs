//! The outcomes of calls.

use serde::Serialize;
use serde_json::Value;

use super::{FunctionCall, FunctionError, FunctionOutput};
use crate::llm::Attachment;
use crate::support::{json_excerpt, truncated};

/// Maximum number of bytes of a name, an id or arguments that a message repeats.
const MAX_REPEATED_BYTES: usize = 200;

/// The outcome of one call.
#[derive(Debug, Clone, PartialEq)]
pub enum FunctionOutcome {
    /// It returned a value.
    Completed(FunctionResult),
    /// It was started in the background.
    Initiated(BackgroundInitiated),
    /// It failed.
    Failed(FunctionFailure),
}

/// A regular call that returned a value.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FunctionResult {
    /// Index of the call in the input.
    pub index: usize,
    /// The function's name.
    pub name: String,
    /// The arguments it was called with.
    pub args: Value,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// The returned value.
    pub result: Value,
    /// Images, audio and files that were returned with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// A background call that was started.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BackgroundInitiated {
    /// Index of the call in the input.
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
    /// Index of the call in the input.
    pub index: usize,
    /// The function's name.
    pub name: String,
    /// The arguments it was called with.
    pub args: Value,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// The kind of failure.
    pub kind: FailureKind,
    /// An error message that the model can act on.
    pub error: String,
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no function of that name.
    NotFound,
    /// The arguments do not match the function's.
    BadArguments,
    /// The function returned an error.
    Failed,
    /// The function panicked.
    Panicked,
    /// Its deadline, or the turn's, passed.
    TimedOut,
    /// Its result exceeds the size limit.
    ResultTooLarge,
    /// The call id occurred before in the turn; only the first call was executed.
    DuplicateCallId,
    /// The background task limit was reached; nothing was started.
    NoBackgroundSlot,
    /// It was cancelled before it ended.
    Cancelled,
    /// The executor is shut down; nothing was started.
    ShutDown,
}

impl FunctionOutcome {
    /// `call` returned `output`.
    #[must_use]
    pub fn completed(call: FunctionCall, output: impl Into<FunctionOutput>) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        let FunctionOutput { value: result, attachments } = output.into();
        Self::Completed(FunctionResult { index: 0, name, args, call_id, result, attachments })
    }

    /// `call` was started in the background; worded as in Python arshai.
    #[must_use]
    pub fn initiated(call: FunctionCall) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        let excerpt = json_excerpt(&args, MAX_REPEATED_BYTES);
        let message = format!("Background task '{}' initiated with args {excerpt}", repeated(&name));
        Self::Initiated(BackgroundInitiated { index: 0, name, call_id, message })
    }

    /// `call` failed with a message that the model can act on.
    #[must_use]
    pub fn failed(call: FunctionCall, kind: FailureKind, error: impl Into<String>) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        Self::Failed(FunctionFailure { index: 0, name, args, call_id, kind, error: error.into() })
    }

    /// The function of `call` returned `error`.
    #[must_use]
    pub fn function_error(call: FunctionCall, error: &FunctionError) -> Self {
        Self::failed(call, error.kind(), error.message())
    }

    /// `call` names an unknown function; worded as in Python arshai.
    #[must_use]
    pub fn not_found(call: FunctionCall) -> Self {
        let set = if call.is_background { "available background tasks" } else { "available functions" };
        let error = format!("Function '{}' not found in {set}", repeated(&call.name));
        Self::failed(call, FailureKind::NotFound, error)
    }

    /// The id of `call` occurred before in its turn.
    #[must_use]
    pub fn duplicate(call: FunctionCall) -> Self {
        let id = repeated(call.call_id.as_deref().unwrap_or_default());
        let error = format!("duplicate call id {id:?}; only the first call was executed");
        Self::failed(call, FailureKind::DuplicateCallId, error)
    }
}

fn repeated(text: &str) -> std::borrow::Cow<'_, str> {
    truncated(text, MAX_REPEATED_BYTES)
}

/// The outcomes of a turn: exactly one entry per call, each list in the order of the calls.
///
/// Built from the outcomes of all calls in their order: `FunctionExecutionResult::from(outcomes)`.
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

impl FunctionExecutionResult {
    /// Adds the outcome of the call at `index`: for executors, in the order of the calls.
    pub fn push(&mut self, index: usize, outcome: FunctionOutcome) {
        match outcome {
            FunctionOutcome::Completed(result) => {
                self.regular_results.push(FunctionResult { index, ..result });
            }
            FunctionOutcome::Initiated(started) => {
                self.background_initiated.push(BackgroundInitiated { index, ..started });
            }
            FunctionOutcome::Failed(failure) => {
                self.failed_functions.push(FunctionFailure { index, ..failure });
            }
        }
    }
}

impl From<Vec<FunctionOutcome>> for FunctionExecutionResult {
    fn from(outcomes: Vec<FunctionOutcome>) -> Self {
        let mut lists = Self::default();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            lists.push(index, outcome);
        }
        lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_repeat_no_large_names_ids_or_arguments() {
        let large = "x".repeat(1 << 20);
        let call = || FunctionCall::new(large.clone(), json!({ "text": large })).with_call_id(large.clone());
        let message = |outcome| match outcome {
            FunctionOutcome::Completed(_) => unreachable!("no call completed"),
            FunctionOutcome::Initiated(started) => started.message,
            FunctionOutcome::Failed(failed) => failed.error,
        };
        let outcomes = [
            FunctionOutcome::initiated(call()),
            FunctionOutcome::not_found(call()),
            FunctionOutcome::duplicate(call()),
        ];
        for message in outcomes.map(message) {
            assert!(message.len() < 3 * MAX_REPEATED_BYTES, "{} bytes", message.len());
        }
    }
}
