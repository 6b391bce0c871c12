//! Function calls, and the input of a turn.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{FunctionError, Functions};
use crate::deadline::Deadline;

/// A call requested by a model.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments: a JSON object.
    #[serde(default)]
    pub args: Value,
    /// The model's id of this call, repeated in the outcome.
    #[serde(default)]
    pub call_id: Option<String>,
    /// Start it without waiting for it.
    #[serde(default)]
    pub is_background: bool,
}

impl FunctionCall {
    /// A regular call of `name` with `args`.
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

    /// The arguments to call the function with: for executors. Null becomes an empty object.
    ///
    /// # Errors
    /// Bad arguments, if they are anything else than an object.
    pub fn arguments(&self) -> Result<Value, FunctionError> {
        match &self.args {
            Value::Object(_) => Ok(self.args.clone()),
            // Models omit the arguments of functions without parameters.
            Value::Null => Ok(Value::Object(Map::new())),
            _ => Err(FunctionError::bad_arguments("invalid arguments: expected a JSON object")),
        }
    }
}

/// The calls of one turn and the functions they may use.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FunctionExecutionInput {
    /// The calls, in the model's order.
    pub function_calls: Vec<FunctionCall>,
    /// Functions for regular calls.
    pub available_functions: Functions,
    /// Functions for background calls.
    pub available_background_tasks: Functions,
    /// When all regular calls must have ended, in addition to each function's timeout.
    pub deadline: Option<Deadline>,
}

impl FunctionExecutionInput {
    /// Regular `calls` of `functions`.
    #[must_use]
    pub fn new(function_calls: Vec<FunctionCall>, available_functions: Functions) -> Self {
        Self { function_calls, available_functions, ..Self::default() }
    }

    /// Sets the functions for background calls.
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
