//! A task executor that runs nothing: it remembers what it was asked and answers as told.

use std::collections::HashMap;
use std::future::ready;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use crate::tasks::{
    FailureKind, FunctionCall, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome,
    FunctionTask, Functions, TaskCapabilities, TaskExecutor, TaskShutdownReport, TaskStats,
};
use crate::{Deadline, Health, Result};

/// Answers calls by script and remembers them. The functions handed to it are never run.
///
/// A regular call without an answer fails as [`FailureKind::NotFound`]; a background call is always
/// initiated.
#[derive(Debug, Default)]
pub struct ScriptedExecutor {
    answers: HashMap<String, Result<Value, (FailureKind, String)>>,
    calls: Mutex<Vec<FunctionCall>>,
}

impl ScriptedExecutor {
    /// An executor without answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Regular calls of `name` return `value`.
    #[must_use]
    pub fn returning(mut self, name: impl Into<String>, value: Value) -> Self {
        self.answers.insert(name.into(), Ok(value));
        self
    }

    /// Regular calls of `name` fail.
    #[must_use]
    pub fn failing(mut self, name: impl Into<String>, kind: FailureKind, error: impl Into<String>) -> Self {
        self.answers.insert(name.into(), Err((kind, error.into())));
        self
    }

    /// Every call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<FunctionCall> {
        self.calls.lock().clone()
    }

    fn answer(&self, call: FunctionCall) -> FunctionOutcome {
        self.calls.lock().push(call.clone());
        if call.is_background {
            return FunctionOutcome::initiated(call);
        }
        match self.answers.get(&call.name).cloned() {
            None => FunctionOutcome::not_found(call),
            Some(Ok(value)) => FunctionOutcome::completed(call, value),
            Some(Err((kind, error))) => FunctionOutcome::failed(call, kind, error),
        }
    }
}

#[async_trait]
impl TaskExecutor for ScriptedExecutor {
    async fn execute_functions(&self, input: FunctionExecutionInput) -> FunctionExecutionResult {
        let mut result = FunctionExecutionResult::default();
        for (index, call) in input.function_calls.into_iter().enumerate() {
            result.push(index, self.answer(call));
        }
        result
    }

    fn execute_function_progressively(
        &self,
        call: FunctionCall,
        _available_functions: &Functions,
        _available_background_tasks: &Functions,
        _deadline: Option<Deadline>,
    ) -> FunctionTask {
        FunctionTask::new(ready(self.answer(call)))
    }

    fn active_background_tasks_count(&self) -> usize {
        0
    }

    async fn wait_for_background_tasks(&self, _timeout: Option<Duration>) -> usize {
        0
    }

    fn set_max_background_tasks(&self, _max: usize) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> TaskStats {
        TaskStats::default()
    }

    async fn health(&self) -> Health {
        Health::Healthy
    }

    fn capabilities(&self) -> TaskCapabilities {
        TaskCapabilities::default()
    }

    async fn shutdown(&self, _deadline: Deadline) -> TaskShutdownReport {
        TaskShutdownReport::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn it_answers_as_told_and_remembers_what_it_was_asked() {
        let executor = ScriptedExecutor::new().returning("search", json!(["a page"])).failing(
            "pay",
            FailureKind::Failed,
            "no money",
        );
        let calls = ["search", "pay", "fly"].map(|name| FunctionCall::new(name, json!({})));
        let input = FunctionExecutionInput::new(calls.to_vec(), Functions::new());
        let result = executor.execute_functions(input).await;
        assert_eq!(result.regular_results[0].result, json!(["a page"]));
        assert_eq!(result.failed_functions.iter().map(|failed| failed.index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(executor.calls(), calls);
    }
}
