//! The wire format of OpenAI-compatible chat completions and embeddings, as all four providers speak it.

mod refusal;
mod request;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::assembly::{id_or_new, too_many};
use super::{ChatResponse, EmbedResponse, MAX_TOOL_CALLS, ToolCall, Usage};
use crate::error::{Error, ErrorKind, Result};

pub(super) use refusal::{Refusal, filtered, provider_error, refused};
pub(super) use request::{chat, embed};

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Answer,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    id: Option<String>,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    completion_tokens_details: Option<TokenDetails>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct TokenDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            input_tokens: tokens.prompt_tokens,
            output_tokens: tokens.completion_tokens,
            total_tokens: tokens.total_tokens.max(tokens.prompt_tokens + tokens.completion_tokens),
            thinking_tokens: tokens
                .completion_tokens_details
                .and_then(|details| details.reasoning_tokens)
                .unwrap_or(0),
        }
    }
}

/// The answer in a response's body.
pub(super) fn response(component: &'static str, body: &[u8]) -> Result<ChatResponse, Refusal> {
    let protocol = |message: &'static str| Error::new(ErrorKind::Protocol, component, message);
    let response: Response = read(component, body, "the answer is not a chat completion")?;
    if let Some(error) = response.error.filter(|error| !error.is_null()) {
        return Err(Refusal::Said(error));
    }
    let choices = response.choices.ok_or_else(|| protocol("the answer is not a chat completion"))?;
    let choice = choices.into_iter().next().ok_or_else(|| protocol("the answer has no choices"))?;
    if choice.finish_reason.as_deref() == Some("content_filter") {
        return Err(filtered(component).into());
    }
    if choice.message.refusal.is_some_and(|refusal| !refusal.is_empty()) {
        return Err(refused(component).into());
    }
    let calls = choice.message.tool_calls.unwrap_or_default();
    if calls.len() > MAX_TOOL_CALLS {
        return Err(too_many(component).into());
    }
    let call = |call: Call| {
        let id = id_or_new(call.id.as_deref().unwrap_or_default());
        ToolCall::new(id, call.function.name, call.function.arguments.unwrap_or_default())
    };
    Ok(ChatResponse {
        content: choice.message.content,
        tool_calls: calls.into_iter().map(call).collect(),
        finish_reason: choice.finish_reason,
        usage: response.usage.unwrap_or_default().into(),
    })
}

/// One chunk of a streamed answer.
#[derive(Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) choices: Vec<ChunkChoice>,
    #[serde(default)]
    pub(super) usage: Option<Tokens>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct ChunkChoice {
    #[serde(default)]
    pub(super) delta: Option<Delta>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct Delta {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) refusal: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
pub(super) struct CallDelta {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) function: Option<FunctionDelta>,
}

#[derive(Deserialize, Default)]
pub(super) struct FunctionDelta {
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) arguments: Option<String>,
}

/// The chunk in an event's data.
pub(super) fn chunk(component: &'static str, data: &str) -> Result<Chunk, Refusal> {
    let chunk: Chunk = serde_json::from_str(data).map_err(|error| {
        unreadable(component, &error, "the stream holds something that is no chunk of an answer")
    })?;
    match chunk.error.as_ref().filter(|error| !error.is_null()) {
        Some(error) => Err(Refusal::Said(error.clone())),
        None => Ok(chunk),
    }
}

#[derive(Deserialize)]
struct Embeddings {
    #[serde(default)]
    data: Option<Vec<Embedding>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Embedding {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// The vectors in a response's body, one for each of `count` texts and in their order.
pub(super) fn embeddings(
    component: &'static str,
    body: &[u8],
    count: usize,
) -> Result<EmbedResponse, Refusal> {
    let read: Embeddings = read(component, body, "the answer is not a list of embeddings")?;
    if let Some(error) = read.error.filter(|error| !error.is_null()) {
        return Err(Refusal::Said(error));
    }
    let data = read.data.unwrap_or_default();
    let mut ordered = vec![None; count];
    for (place, embedding) in data.into_iter().enumerate() {
        if let Some(slot) = ordered.get_mut(embedding.index.unwrap_or(place)) {
            *slot = Some(embedding.embedding);
        }
    }
    let embeddings = ordered.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
        let message = "the answer has not one embedding for each text";
        Error::new(ErrorKind::Protocol, component, message).with_context("texts", count)
    })?;
    Ok(EmbedResponse::new(embeddings, read.usage.unwrap_or_default().into()))
}

fn read<T: DeserializeOwned>(component: &'static str, body: &[u8], message: &'static str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| unreadable(component, &error, message))
}

/// An answer of the wrong shape. The parser's own text could repeat the answer's.
fn unreadable(component: &'static str, error: &serde_json::Error, message: &'static str) -> Error {
    let place = format!("{:?} error at byte {} of line {}", error.classify(), error.column(), error.line());
    Error::new(ErrorKind::Protocol, component, message).with_context("json", place)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::compatible::Secrets;

    fn answer(body: &str) -> Result<ChatResponse> {
        response("test", body.as_bytes())
            .map_err(|refusal| refusal.into_failure("test", &Secrets::default()).error)
    }

    #[test]
    fn an_answer_gives_text_calls_and_usage() {
        let body = json!({"id": "x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": null, "refusal": null,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }}], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
                       "completion_tokens_details": {"reasoning_tokens": 2}}});
        let answer = answer(&body.to_string()).expect("a completion");
        assert_eq!(answer.tool_calls, [ToolCall::new("c", "f", "{}")]);
        let mut usage = Usage::new(9, 3);
        usage.thinking_tokens = 2;
        assert_eq!(answer.usage, usage);
    }

    #[test]
    fn what_is_no_completion_is_a_protocol_error() {
        for body in ["", "not json", "{}", "{\"choices\":[]}", "[1,2]"] {
            assert_eq!(answer(body).expect_err(body).kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_not_repeated() {
        let error = answer("{\"choices\": \"private words\"}").expect_err("not a list");
        assert!(!format!("{error} {error:?}").contains("private"), "{error:?}");
    }

    #[test]
    fn a_thousand_tool_calls_in_one_answer_are_too_many() {
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let calls = vec![call; 1000];
        let body = json!({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]});
        assert_eq!(answer(&body.to_string()).expect_err("too many").kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn an_error_that_comes_with_success_is_still_an_error() {
        let body = json!({"error": {"code": 429, "message": "slow down"}}).to_string();
        assert_eq!(answer(&body).expect_err("an error").kind(), ErrorKind::RateLimited);
        let refusal = chunk("test", &body).err().expect("an error");
        assert_eq!(refusal.into_failure("test", &Secrets::default()).error.kind(), ErrorKind::RateLimited);
    }

    #[test]
    fn vectors_come_in_the_texts_order_one_for_each() {
        let body = json!({"data": [{"index": 1, "embedding": [3.0]}, {"index": 0, "embedding": [1.0, 2.0]}],
                          "usage": {"prompt_tokens": 4, "total_tokens": 4}})
        .to_string();
        let read = |count| {
            embeddings("test", body.as_bytes(), count)
                .map_err(|refusal| refusal.into_failure("test", &Secrets::default()).error)
        };
        let response = read(2).expect("two");
        assert_eq!(response.embeddings, [vec![1.0, 2.0], vec![3.0]]);
        assert_eq!(response.usage, Usage::new(4, 0));
        assert_eq!(read(3).expect_err("one is missing").kind(), ErrorKind::Protocol);
    }
}
