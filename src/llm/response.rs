//! A model's complete response.

use bytes::Bytes;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ChatEvent, Message, ToolCall, structure};
use crate::error::Result;
use crate::support::opaque_debug;

/// Names under which providers send reasoning text.
pub(super) const REASONING_FIELDS: [&str; 2] = ["reasoning_content", "reasoning"];

/// A model's complete response.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatResponse {
    /// The text, if any.
    pub content: Option<String>,
    /// The tool calls it asks for.
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped, as reported by the provider: `stop`, `tool_calls`, `length`, …
    pub finish_reason: Option<String>,
    /// Token counts.
    pub usage: Usage,
    /// Further fields of the message, reasoning text included; [`to_message`](Self::to_message) keeps them, so that
    /// the provider gets them back unchanged.
    #[serde(default)]
    pub message_extra: Map<String, Value>,
    /// Further fields of the response: `id`, `model`, `system_fingerprint`, …
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// Headers of the HTTP response; rate limits and request ids are there.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// Body of the HTTP response as received. None for a response that was streamed.
    #[serde(skip)]
    pub body: Option<Bytes>,
}

impl ChatResponse {
    /// A response of text.
    pub fn from_text(content: impl Into<String>) -> Self {
        Self { content: Some(content.into()), finish_reason: Some("stop".into()), ..Self::default() }
    }

    /// A response that asks for tools.
    #[must_use]
    pub fn from_tool_calls(tool_calls: Vec<ToolCall>) -> Self {
        Self { tool_calls, finish_reason: Some("tool_calls".into()), ..Self::default() }
    }

    /// The reasoning text that preceded the response, where the provider sends it.
    #[must_use]
    pub fn reasoning(&self) -> Option<&str> {
        REASONING_FIELDS.iter().find_map(|name| self.message_extra.get(*name)?.as_str())
    }

    /// Deserializes the text as a `T`, as requested with
    /// [`ChatRequest::with_structure`](super::ChatRequest::with_structure).
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) when it does not match or there is no text. The error does
    /// not repeat the text.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        structure::parse(self.content.as_deref().unwrap_or_default())
    }

    /// The message to append to the conversation, with all fields that the provider sent.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message::Assistant {
            content: self.content.clone(),
            tool_calls: self.tool_calls.clone(),
            extra: self.message_extra.clone(),
        }
    }

    /// Adds an event of a stream.
    pub(crate) fn apply_event(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Text(text) => self.content.get_or_insert_default().push_str(&text),
            // Complete in `ExtraFields`.
            ChatEvent::Reasoning(_) => {}
            ChatEvent::ToolCallStarted { index, call_id, name } => {
                self.set_tool_call(index, ToolCall::new(call_id, name, ""));
            }
            ChatEvent::ToolCall { index, call } | ChatEvent::ToolCallFailed { index, call, .. } => {
                self.set_tool_call(index, call);
            }
            ChatEvent::ExtraFields { message, response } => {
                (self.message_extra, self.extra) = (message, response);
            }
            ChatEvent::Usage(usage) => self.usage = usage,
            ChatEvent::Finished { reason } => self.finish_reason = Some(reason),
        }
    }

    fn set_tool_call(&mut self, index: usize, call: ToolCall) {
        while self.tool_calls.len() <= index {
            self.tool_calls.push(ToolCall::new("", "", ""));
        }
        self.tool_calls[index] = call;
    }
}

// Shows lengths only: conversations are private and do not belong in logs.
opaque_debug!(ChatResponse(self) {
    content_bytes: self.content.as_ref().map_or(0, String::len),
    tool_calls: self.tool_calls.len(),
    finish_reason: self.finish_reason,
    usage: self.usage,
});

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the response.
    pub output_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Output tokens that the model spent on reasoning.
    pub thinking_tokens: u64,
    /// Input tokens that the provider read from its cache.
    pub cached_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.total_tokens = self.total_tokens.saturating_add(other.total_tokens);
        self.thinking_tokens = self.thinking_tokens.saturating_add(other.thinking_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
    }
}

impl Usage {
    /// Token counts of a request and its response.
    #[must_use]
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        let total_tokens = input_tokens.saturating_add(output_tokens);
        Self { input_tokens, output_tokens, total_tokens, ..Self::default() }
    }
}
