//! Model clients: messages in; a response, tool calls or a stream of both out.
//!
//! [`LlmClient`] is the trait. Clients are thin: they translate to a provider's wire format and send it over an
//! [`HttpTransport`](crate::http::HttpTransport); running tools and keeping memory is an agent's work.
//!
//! [`HttpClientFactory`] builds an [`OpenAiCompatibleClient`] for each of the four providers, decorated as
//! `Retry<AdaptiveConcurrency<_>>`. [`Retry`] and [`AdaptiveConcurrency`] work over any client. Retry goes outside, so
//! that each attempt takes its own permit and a request that backs off holds none.

mod adaptive;
mod embedding;
mod factory;
mod limiter;
mod message;
mod modalities;
mod openai_compatible;
mod providers;
mod request;
mod response;
mod retry;
mod secrets;
mod sse;
mod stream;
mod structure;
mod tool_call_assembler;
mod wire;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};

pub use adaptive::AdaptiveConcurrency;
pub use embedding::{EmbedRequest, EmbedResponse};
pub use factory::HttpClientFactory;
pub use limiter::{AdaptiveLimiter, AdaptiveLimiterConfig, LimiterStats};
pub use message::{Attachment, Message, ToolCall};
pub use modalities::Modalities;
pub use openai_compatible::OpenAiCompatibleClient;
pub use request::{ChatRequest, ToolDefinition};
pub use response::{ChatResponse, Usage};
pub use retry::Retry;
pub use stream::{ArgumentError, ChatEvent, ChatStream};
pub use structure::Structure;

/// Maximum number of tool calls in one response. More is an error.
pub const MAX_TOOL_CALLS: usize = 128;

/// Maximum size in bytes of the arguments of one response's tool calls together.
pub const MAX_ARGUMENT_BYTES: usize = 1 << 20;

/// Deadline of requests without one, unless a client or decorator is given another.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// A client of one model (Python: `ILLM`).
///
/// # Contract
/// - One call of [`chat`](Self::chat) or [`stream`](Self::stream) is one model response; the tools it asks for are
///   returned, not run.
/// - All waiting, retrying and reading spends the request's deadline and never extends it.
/// - A client sends a request once. It sets the [`Outcome`](crate::error::Outcome) and `retry_after` of its errors, from which
///   [`Retry`] decides.
/// - Dropping the future, or the stream, closes the request's connection.
/// - No key appears in any error, Debug output or log.
#[doc(alias = "ILLM")]
#[async_trait]
pub trait LlmClient: Send + Sync + fmt::Debug {
    /// Sends the conversation and waits for the complete response.
    ///
    /// # Errors
    /// `Authentication`, `RateLimited`, `ContextLength`, `ContentFilter`, `Overloaded` and `BadRequest` as reported by
    /// the provider, with its `retry_after`; `Timeout`, `Transport`, `Protocol` and `Capacity` otherwise.
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse>;

    /// Sends the conversation and returns the response as it arrives. Resolves when the response begins.
    ///
    /// The default, for clients that cannot stream, returns the complete response as one stream.
    ///
    /// # Errors
    /// As [`chat`](Self::chat), from here or from the stream.
    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        Ok(ChatStream::from_response(self.chat(request).await?))
    }

    /// Returns one vector for each input.
    ///
    /// # Errors
    /// As [`chat`](Self::chat); `Unsupported` by default.
    async fn embed(&self, _: EmbedRequest) -> Result<EmbedResponse> {
        Err(Error::new(ErrorKind::Unsupported, "llm", "this client does not support embeddings"))
    }

    /// The model's name, for logs and statistics.
    fn model(&self) -> &str;

    /// The attachments that the client accepts in messages; by default none. Agents describe other attachments of tool
    /// results in words.
    fn modalities(&self) -> Modalities {
        Modalities::TEXT
    }
}

#[async_trait]
impl<C: LlmClient + ?Sized> LlmClient for std::sync::Arc<C> {
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        (**self).chat(request).await
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        (**self).stream(request).await
    }

    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse> {
        (**self).embed(request).await
    }

    fn model(&self) -> &str {
        (**self).model()
    }

    fn modalities(&self) -> Modalities {
        (**self).modalities()
    }
}
