//! Model clients: messages in; an answer, tool calls or a stream of both out.
//!
//! [`LlmClient`] is the seam. Clients are thin: they translate to a provider's wire format and send it over
//! an [`HttpTransport`](crate::http::HttpTransport); running tools and keeping memory is an agent's work.
//!
//! [`HttpClientFactory`] makes clients of the four providers: [`OpenAiClient`], [`AzureOpenAiClient`],
//! [`OpenRouterClient`] and [`GeminiClient`]. [`AdaptiveClient`] decorates any client with a concurrency that follows
//! what the provider bears.

mod adaptive;
mod assembly;
mod compatible;
mod embedding;
mod factory;
mod limits;
mod message;
mod providers;
mod retry;
pub mod sse;
mod stream;
mod structure;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::tasks::{Function, Functions};

pub use adaptive::{AdaptiveClient, Concurrency, ConcurrencySettings, LlmStats};
pub use embedding::{EmbedRequest, EmbedResponse};
pub use factory::{ClientLevel, HttpClientFactory};
pub use limits::{MAX_ARGUMENT_BYTES, MAX_TOOL_CALLS};
pub use message::{Attachment, Message, ToolCall};
pub use providers::{AzureOpenAiClient, GeminiClient, OpenAiClient, OpenRouterClient};
pub use retry::{RetryListener, retry_after};
pub use stream::{ArgumentProblem, ChatEvent, ChatStream};
pub use structure::Structure;

/// Talks to one model (Python: `ILLM`).
///
/// # Contract
/// - One call of [`chat`](Self::chat) or [`stream`](Self::stream) is one exchange with the model; tools it asks for
///   are returned, not run.
/// - All waiting, retrying and reading spends the request's deadline and never extends it.
/// - Only what is safe is retried, and never after a byte of the answer was seen.
/// - Dropping the future, or the stream, closes the exchange's connection.
/// - No key appears in any error, Debug output or log.
#[doc(alias = "ILLM")]
#[async_trait]
pub trait LlmClient: Send + Sync + fmt::Debug {
    /// Sends the conversation and waits for the whole answer.
    ///
    /// # Errors
    /// `Authentication`, `RateLimited`, `ContextLength`, `ContentFilter`, `Overloaded` and `BadRequest` as the
    /// provider says; `Timeout`, `Transport`, `Protocol` and `Capacity` as the exchange fails. Where the provider
    /// says when to come back, the context `retry_after` has it in seconds.
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse>;

    /// Sends the conversation and gives the answer as it comes. Resolves when the answer begins.
    ///
    /// A client that cannot stream gives the whole answer at once; that is the default.
    ///
    /// # Errors
    /// As [`chat`](Self::chat), from here or from the stream.
    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        Ok(ChatStream::whole(self.chat(request).await?))
    }

    /// Gives one vector for each text.
    ///
    /// # Errors
    /// As [`chat`](Self::chat); `Unsupported` where the client has no embeddings, which is the default.
    async fn embed(&self, _: EmbedRequest) -> Result<EmbedResponse> {
        Err(Error::new(ErrorKind::Unsupported, "llm", "this client has no embeddings"))
    }

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
    /// The share of likely tokens to sample from; the provider's default if unset.
    pub top_p: Option<f32>,
    /// The most tokens to answer with; the provider's default if unset.
    pub max_tokens: Option<u32>,
    /// How hard a reasoning model thinks: `low`, `medium`, `high`, …
    pub reasoning_effort: Option<String>,
    /// The form the answer must have.
    pub structure: Option<Structure>,
    /// Whatever else the provider understands; fields of the same name as one above win over it.
    pub extra_body: Map<String, Value>,
    /// Headers for this call alone.
    pub extra_headers: BTreeMap<String, String>,
    /// When the exchange must have ended.
    pub deadline: Option<Deadline>,
    /// Told of every failed attempt that is tried again.
    pub retry_listener: RetryListener,
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

    /// Asks for an answer of the form of `T`; [`ChatResponse::parse`] reads it.
    #[must_use]
    pub fn with_structure<T: JsonSchema>(mut self) -> Self {
        self.structure = Some(Structure::of::<T>());
        self
    }

    /// Sends a header with this call alone.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra_headers.insert(name.into(), value.into());
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

    /// The answer as a `T`, which it was asked to be by [`ChatRequest::with_structure`].
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it has another form, or there is none; the answer is not repeated.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        structure::parse(self.content.as_deref().unwrap_or_default())
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
    /// Tokens among those answered that the model spent on thinking.
    #[serde(default)]
    pub thinking_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.total_tokens += other.total_tokens;
        self.thinking_tokens += other.thinking_tokens;
    }
}

impl Usage {
    /// Tokens sent and answered.
    #[must_use]
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        let total_tokens = input_tokens + output_tokens;
        Self { input_tokens, output_tokens, total_tokens, ..Self::default() }
    }
}
