//! Model clients: messages in, an answer or tool calls out.
//!
//! [`LlmClient`] is the seam. Clients are thin: they translate to a provider's wire format and send it over
//! an [`HttpTransport`](crate::http::HttpTransport); running tools and keeping memory is an agent's work.

mod openai;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::tasks::{Function, FunctionCall, Functions};

pub use openai::OpenAiClient;

/// Talks to one model (Python: `ILLM`).
///
/// # Contract
/// - One call of [`chat`](Self::chat) is one exchange with the model; tools it asks for are returned, not run.
/// - All waiting and retrying spends the request's deadline and never extends it.
/// - Only what is safe is retried, and never after a byte of the answer was seen.
/// - Dropping the future closes the exchange's connection.
/// - No key appears in any error, Debug output or log.
#[doc(alias = "ILLM")]
#[async_trait]
pub trait LlmClient: Send + Sync + fmt::Debug {
    /// Sends the conversation and waits for the whole answer.
    ///
    /// # Errors
    /// `Authentication`, `RateLimited`, `ContextLength`, `ContentFilter`, `Overloaded` and `BadRequest` as the
    /// provider says; `Timeout`, `Transport`, `Protocol` and `Capacity` as the exchange fails.
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse>;

    /// The model's name, for logs and statistics.
    fn model(&self) -> &str;
}

/// What to send to a model.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The conversation so far, oldest first.
    pub messages: Vec<Message>,
    /// The tools the model may ask for.
    pub tools: Vec<ToolDefinition>,
    /// Sampling temperature; the provider's default if unset.
    pub temperature: Option<f32>,
    /// The most tokens to answer with; the provider's default if unset.
    pub max_tokens: Option<u32>,
    /// Headers for this call alone.
    pub extra_headers: BTreeMap<String, String>,
    /// When the exchange must have ended.
    pub deadline: Option<Deadline>,
}

impl ChatRequest {
    /// A request with `messages` and nothing else.
    #[must_use]
    pub fn new(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// Offers `functions` to the model.
    #[must_use]
    pub fn with_tools(mut self, functions: &Functions) -> Self {
        self.tools.extend(functions.iter().map(ToolDefinition::from));
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Shows the extra headers' names only: their values may be secrets.
impl fmt::Debug for ChatRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatRequest")
            .field("messages", &self.messages)
            .field("tools", &self.tools.iter().map(|tool| &tool.name).collect::<Vec<_>>())
            .field("extra_headers", &self.extra_headers.keys().collect::<Vec<_>>())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Instructions to the model.
    System {
        /// The text.
        content: String,
    },
    /// What the user said.
    User {
        /// The text.
        content: String,
    },
    /// What the model answered or asked for.
    Assistant {
        /// The text, if any.
        content: Option<String>,
        /// The tools it asked for.
        #[serde(default)]
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool {
        /// Which call this answers.
        call_id: String,
        /// The result, or what went wrong.
        content: String,
    },
}

impl Message {
    /// Instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::System { content: content.into() }
    }

    /// What the user said.
    pub fn user(content: impl Into<String>) -> Self {
        Self::User { content: content.into() }
    }

    /// What the model answered.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::Assistant { content: Some(content.into()), tool_calls: Vec::new() }
    }

    /// What a tool answered.
    pub fn tool(call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self::Tool { call_id: call_id.into(), content: content.into() }
    }
}

/// Shows role and length only: conversations are private and do not belong in logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { content } => write!(f, "System({} bytes)", content.len()),
            Self::User { content } => write!(f, "User({} bytes)", content.len()),
            Self::Assistant { content, tool_calls } => write!(
                f,
                "Assistant({} bytes, {} tool calls)",
                content.as_ref().map_or(0, String::len),
                tool_calls.len()
            ),
            Self::Tool { content, .. } => write!(f, "Tool({} bytes)", content.len()),
        }
    }
}

/// A tool a model asked for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// The model's id of the call.
    pub call_id: String,
    /// The function's name.
    pub name: String,
    /// The arguments as the model wrote them: text that should be a JSON object.
    pub arguments: String,
}

impl ToolCall {
    /// A call of `name`.
    pub fn new(call_id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { call_id: call_id.into(), name: name.into(), arguments: arguments.into() }
    }

    /// The call for the executor; its arguments are `Null` where the text is not JSON, and empty text counts
    /// as an empty object.
    #[must_use]
    pub fn to_function_call(&self) -> Option<FunctionCall> {
        let text = self.arguments.trim();
        let args = if text.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_str(text).ok()?
        };
        Some(FunctionCall::new(self.name.clone(), args).with_call_id(self.call_id.clone()))
    }
}

/// Shows the arguments' length only: they are part of a conversation.
impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall")
            .field("call_id", &self.call_id)
            .field("name", &self.name)
            .field("argument_bytes", &self.arguments.len())
            .finish()
    }
}

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolDefinition {
    /// The function's name.
    pub name: String,
    /// What it is for.
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

/// What a model answered.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatResponse {
    /// The answer's text, if any.
    pub content: Option<String>,
    /// The tools it asked for.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped, as the provider says: `stop`, `tool_calls`, `length`, …
    pub finish_reason: Option<String>,
    /// What it cost.
    pub usage: Usage,
}

impl ChatResponse {
    /// An answer of `content`: for test doubles.
    pub fn text(content: impl Into<String>) -> Self {
        Self {
            content: Some(content.into()),
            tool_calls: Vec::new(),
            finish_reason: Some("stop".into()),
            usage: Usage::default(),
        }
    }

    /// An answer that asks for tools: for test doubles.
    #[must_use]
    pub fn tools(tool_calls: Vec<ToolCall>) -> Self {
        Self { content: None, tool_calls, finish_reason: Some("tool_calls".into()), usage: Usage::default() }
    }

    /// The message to append to the conversation.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::Assistant { content: self.content.clone(), tool_calls: self.tool_calls.clone() }
    }
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for ChatResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatResponse")
            .field("content_bytes", &self.content.as_ref().map_or(0, String::len))
            .field("tool_calls", &self.tool_calls.len())
            .field("finish_reason", &self.finish_reason)
            .field("usage", &self.usage)
            .finish()
    }
}

/// Tokens used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens sent.
    pub input_tokens: u64,
    /// Tokens answered.
    pub output_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.total_tokens += other.total_tokens;
    }
}

impl Usage {
    /// Tokens sent and answered.
    #[must_use]
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens }
    }
}
