//! Chat completions, complete or in chunks: one set of structs reads both.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::lenient::{count, json_text, or_default, text};
use crate::llm::Usage;

/// A complete response (`chat.completion`) or a part of one (`chat.completion.chunk`).
#[derive(Default)]
pub(super) struct Completion {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
    /// Fields without a name here, if they were asked for.
    pub(super) extra: Map<String, Value>,
}

impl Completion {
    /// Parses JSON, fields without a name here only `with_extra`.
    pub(super) fn parse(json: &str, with_extra: bool) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let completion = deserializer.deserialize_map(CompletionVisitor { with_extra })?;
        deserializer.end().map(|()| completion)
    }

    /// Whether the response ends with this part.
    pub(super) fn is_last(&self) -> bool {
        let ends = |choice: &Choice| choice.finish_reason.is_some();
        self.usage.is_some() || self.choices.iter().flatten().any(ends)
    }
}

struct CompletionVisitor {
    with_extra: bool,
}

impl<'de> Visitor<'de> for CompletionVisitor {
    type Value = Completion;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a completion")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Completion, A::Error> {
        let mut completion = Completion::default();
        while let Some(Name(name)) = fields.next_key()? {
            match &*name {
                "choices" => completion.choices = fields.next_value()?,
                "usage" => completion.usage = fields.next_value::<LenientUsage>()?.0,
                "error" => completion.error = fields.next_value()?,
                // Padding against side channels; new in every chunk.
                name if self.with_extra && name != "obfuscation" => {
                    completion.extra.insert(name.to_owned(), fields.next_value()?);
                }
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(completion)
    }
}

/// A field's name, borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct LenientUsage(#[serde(deserialize_with = "or_default")] Option<WireUsage>);

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Choice {
    #[serde(deserialize_with = "or_default")]
    pub(super) index: Option<u64>,
    pub(super) message: Option<ResponseMessage>,
    pub(super) delta: Option<ResponseMessage>,
    #[serde(deserialize_with = "text")]
    pub(super) finish_reason: Option<String>,
}

#[derive(Default)]
pub(super) struct ResponseMessage {
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) tool_calls: Option<Vec<WireToolCall>>,
    /// Reasoning text, thought signatures, annotations, …
    pub(super) extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MessageField {
    Role,
    Content,
    Refusal,
    ToolCalls,
    Other(String),
}

/// Reads a message field by field: `serde(flatten)` would copy each of them first, for every token of a stream.
struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = ResponseMessage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ResponseMessage, A::Error> {
        let mut message = ResponseMessage::default();
        while let Some(field) = fields.next_key()? {
            match field {
                MessageField::Role => drop(fields.next_value::<IgnoredAny>()?),
                MessageField::Content => message.content = fields.next_value::<Text>()?.0,
                MessageField::Refusal => message.refusal = fields.next_value::<Text>()?.0,
                MessageField::ToolCalls => message.tool_calls = fields.next_value()?,
                MessageField::Other(name) => drop(message.extra.insert(name, fields.next_value()?)),
            }
        }
        Ok(message)
    }
}

impl<'de> Deserialize<'de> for ResponseMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

#[derive(Deserialize)]
struct Text(#[serde(deserialize_with = "text")] Option<String>);

impl ResponseMessage {
    /// Numbers the calls of a complete message, as a stream's are.
    pub(super) fn number_tool_calls(&mut self) {
        for (position, call) in self.tool_calls.iter_mut().flatten().enumerate() {
            call.index = Some(position as u64);
        }
    }
}

#[derive(Default)]
pub(super) struct WireToolCall {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) function: Option<WireFunction>,
    pub(super) extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum CallField {
    Index,
    Id,
    Type,
    Function,
    Other(String),
}

/// As [`MessageVisitor`].
struct CallVisitor;

impl<'de> Visitor<'de> for CallVisitor {
    type Value = WireToolCall;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tool call")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<WireToolCall, A::Error> {
        let mut call = WireToolCall::default();
        while let Some(field) = fields.next_key()? {
            match field {
                CallField::Index => call.index = fields.next_value::<Index>()?.0,
                CallField::Id => call.id = fields.next_value::<Text>()?.0,
                CallField::Type => drop(fields.next_value::<IgnoredAny>()?),
                CallField::Function => call.function = fields.next_value()?,
                CallField::Other(name) => drop(call.extra.insert(name, fields.next_value()?)),
            }
        }
        Ok(call)
    }
}

impl<'de> Deserialize<'de> for WireToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CallVisitor)
    }
}

#[derive(Deserialize)]
struct Index(#[serde(deserialize_with = "or_default")] Option<u64>);

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct WireFunction {
    #[serde(deserialize_with = "text")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "json_text")]
    pub(super) arguments: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    #[serde(deserialize_with = "count")]
    prompt_tokens: u64,
    #[serde(deserialize_with = "count")]
    completion_tokens: u64,
    #[serde(deserialize_with = "count")]
    total_tokens: u64,
    #[serde(deserialize_with = "or_default")]
    completion_tokens_details: TokenDetails,
    #[serde(deserialize_with = "or_default")]
    prompt_tokens_details: TokenDetails,
    /// DeepSeek's name for cached tokens.
    #[serde(deserialize_with = "count")]
    prompt_cache_hit_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct TokenDetails {
    #[serde(deserialize_with = "count")]
    reasoning_tokens: u64,
    #[serde(deserialize_with = "count")]
    cached_tokens: u64,
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let mut counted = Self::new(usage.prompt_tokens, usage.completion_tokens);
        counted.total_tokens = counted.total_tokens.max(usage.total_tokens);
        counted.thinking_tokens = usage.completion_tokens_details.reasoning_tokens;
        counted.cached_tokens = usage.prompt_tokens_details.cached_tokens.max(usage.prompt_cache_hit_tokens);
        counted
    }
}
