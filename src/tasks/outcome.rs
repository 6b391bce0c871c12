//! What became of one call, and of all calls of a turn.

use serde_json::Value;

use super::{
    BackgroundInitiated, FailureKind, FunctionCall, FunctionExecutionResult, FunctionFailure, FunctionResult,
};

/// What became of one call.
#[derive(Debug, Clone, PartialEq)]
pub enum FunctionOutcome {
    /// It returned a value.
    Completed(FunctionResult),
    /// It was started in the background.
    Initiated(BackgroundInitiated),
    /// It failed.
    Failed(FunctionFailure),
}

impl FunctionOutcome {
    /// `call` returned `result`. The index is set by [`FunctionExecutionResult::push`].
    #[must_use]
    pub fn completed(call: FunctionCall, result: Value) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        Self::Completed(FunctionResult { index: 0, name, args, call_id, result })
    }

    /// `call` was started in the background; the message is worded as Python arshai words it.
    #[must_use]
    pub fn initiated(call: FunctionCall) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        let message = format!("Background task '{name}' initiated with args {args}");
        Self::Initiated(BackgroundInitiated { index: 0, name, call_id, message })
    }

    /// `call` failed: `error` is in words the model can act on.
    #[must_use]
    pub fn failed(call: FunctionCall, kind: FailureKind, error: impl Into<String>) -> Self {
        let FunctionCall { name, args, call_id, .. } = call;
        Self::Failed(FunctionFailure { index: 0, name, args, call_id, kind, error: error.into() })
    }

    /// `call` names a function that there is not; worded as Python arshai words it.
    #[must_use]
    pub fn not_found(call: FunctionCall) -> Self {
        let place = if call.is_background { "available background tasks" } else { "available functions" };
        let error = format!("Function '{}' not found in {place}", call.name);
        Self::failed(call, FailureKind::NotFound, error)
    }
}

impl FunctionExecutionResult {
    /// Adds the outcome of the call at `index`, in whatever order calls end;
    /// [`in_call_order`](Self::in_call_order) puts them right.
    pub fn push(&mut self, index: usize, outcome: FunctionOutcome) {
        match outcome {
            FunctionOutcome::Completed(mut result) => {
                result.index = index;
                self.regular_results.push(result);
            }
            FunctionOutcome::Initiated(mut started) => {
                started.index = index;
                self.background_initiated.push(started);
            }
            FunctionOutcome::Failed(mut failure) => {
                failure.index = index;
                self.failed_functions.push(failure);
            }
        }
    }

    /// The same with each list in the order of the calls.
    #[must_use]
    pub fn in_call_order(mut self) -> Self {
        self.regular_results.sort_by_key(|result| result.index);
        self.background_initiated.sort_by_key(|started| started.index);
        self.failed_functions.sort_by_key(|failure| failure.index);
        self
    }
}
