//! Requests for a model's response.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Message, Structure};
use crate::deadline::Deadline;
use crate::support::opaque_debug;
use crate::tasks::{Function, Functions};

/// A request to a model. Cloning shares the conversation and the tools.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The conversation so far, oldest first.
    pub messages: Arc<Vec<Message>>,
    /// The tools offered to the model.
    pub tools: Arc<Vec<ToolDefinition>>,
    /// Sampling temperature; the provider's default if unset.
    pub temperature: Option<f32>,
    /// Nucleus sampling: the probability mass to sample from; the provider's default if unset.
    pub top_p: Option<f32>,
    /// Maximum number of tokens in the response; the provider's default if unset.
    pub max_tokens: Option<u32>,
    /// Effort of a reasoning model: `low`, `medium`, `high`, …
    pub reasoning_effort: Option<String>,
    /// JSON schema of the response.
    pub structure: Option<Structure>,
    /// Further fields of the request; they override fields of the same name.
    pub extra_body: Map<String, Value>,
    /// Headers for this call only.
    pub extra_headers: BTreeMap<String, String>,
    /// Deadline of the call, retries included.
    pub deadline: Option<Deadline>,
}

impl ChatRequest {
    /// A request with `messages` and nothing else.
    #[must_use]
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages: Arc::new(messages), ..Self::default() }
    }

    /// Offers `functions` to the model, except for those that are not [offered](Function::is_offered) yet.
    #[must_use]
    pub fn with_tools(mut self, functions: &Functions) -> Self {
        Arc::make_mut(&mut self.tools).extend(functions.offered().map(ToolDefinition::from));
        self
    }

    /// Requests a response that matches the JSON schema of `T`; [`ChatResponse::parse`](super::ChatResponse::parse)
    /// reads it.
    #[must_use]
    pub fn with_structure<T: JsonSchema>(mut self) -> Self {
        self.structure = Some(Structure::for_type::<T>());
        self
    }

    /// Sends a header with this call only.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra_headers.insert(name.into(), value.into());
        self
    }

    /// Sends a further field, instead of any field of the same name.
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra_body.insert(name.into(), value.into());
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Appends a message. Copies the conversation only if a clone of this request still exists.
    pub fn push(&mut self, message: Message) {
        Arc::make_mut(&mut self.messages).push(message);
    }
}

// Shows only the names of the extra headers: their values may be secrets.
opaque_debug!(ChatRequest(self) {
    messages: self.messages,
    tools: self.tools.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
    extra_headers: self.extra_headers.keys().collect::<Vec<_>>(),
    deadline: self.deadline,
});

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolDefinition {
    /// The function's name.
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
}

impl From<&Function> for ToolDefinition {
    fn from(function: &Function) -> Self {
        Self {
            name: function.name().to_owned(),
            description: function.description().to_owned(),
            parameters: function.parameters().clone(),
        }
    }
}
