//! The wire format of OpenAI-compatible chat completions.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ChatRequest, ChatResponse, Message, ToolCall, ToolDefinition, Usage};
use crate::error::{Error, ErrorKind, Result};

const COMPONENT: &str = "llm.openai";
/// Characters of a provider's own message that an error repeats.
const MESSAGE_CHARS: usize = 500;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

/// The body of a request.
pub(super) fn request(model: &str, request: &ChatRequest) -> Result<Bytes> {
    let body = Request {
        model,
        messages: request.messages.iter().map(message).collect(),
        tools: request.tools.iter().map(tool).collect(),
        temperature: request.temperature,
        max_tokens: request.max_tokens,
    };
    serde_json::to_vec(&body).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, COMPONENT, "the request is not JSON").with_source(error)
    })
}

fn message(message: &Message) -> Value {
    match message {
        Message::System { content } => json!({"role": "system", "content": content}),
        Message::User { content } => json!({"role": "user", "content": content}),
        Message::Tool { call_id, content } => {
            json!({"role": "tool", "tool_call_id": call_id, "content": content})
        }
        Message::Assistant { content, tool_calls } if tool_calls.is_empty() => {
            json!({"role": "assistant", "content": content})
        }
        Message::Assistant { content, tool_calls } => {
            let calls: Vec<_> = tool_calls
                .iter()
                .map(|call| {
                    json!({"id": call.call_id, "type": "function",
                           "function": {"name": call.name, "arguments": call.arguments}})
                })
                .collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
    }
}

fn tool(tool: &ToolDefinition) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters,
    }})
}

#[derive(Deserialize)]
struct Response {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Tokens>,
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
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    total_tokens: u64,
}

/// The answer in a response's body.
pub(super) fn response(body: &[u8]) -> Result<ChatResponse> {
    let protocol = |message: &'static str| Error::new(ErrorKind::Protocol, COMPONENT, message);
    let response: Response = serde_json::from_slice(body).map_err(|error| {
        // Its own text could repeat the answer's.
        let place =
            format!("{:?} error at byte {} of line {}", error.classify(), error.column(), error.line());
        protocol("the answer is not a chat completion").with_context("json", place)
    })?;
    let choice = response.choices.into_iter().next().ok_or_else(|| protocol("the answer has no choices"))?;
    if choice.finish_reason.as_deref() == Some("content_filter") {
        let message = "the provider's content filter stopped the answer";
        return Err(Error::new(ErrorKind::ContentFilter, COMPONENT, message));
    }
    let calls = choice.message.tool_calls.unwrap_or_default().into_iter();
    Ok(ChatResponse {
        content: choice.message.content,
        tool_calls: calls
            .map(|call| ToolCall::new(call.id, call.function.name, call.function.arguments))
            .collect(),
        finish_reason: choice.finish_reason,
        usage: response.usage.map_or_else(Usage::default, |tokens| Usage {
            input_tokens: tokens.prompt_tokens,
            output_tokens: tokens.completion_tokens,
            total_tokens: tokens.total_tokens.max(tokens.prompt_tokens + tokens.completion_tokens),
        }),
    })
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize, Default)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: Option<Value>,
}

/// What the provider says went wrong. Its words are left out where they may hold the key.
pub(super) fn provider_error(
    status: StatusCode,
    body: &[u8],
    retry_after: Option<Duration>,
    key: &str,
) -> Error {
    let detail = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error).unwrap_or_default();
    let code = detail.code.as_ref().and_then(Value::as_str).unwrap_or_default();
    let kind = match (status.as_u16(), code) {
        (_, "context_length_exceeded") => ErrorKind::ContextLength,
        (_, "content_filter" | "content_policy_violation") => ErrorKind::ContentFilter,
        (401 | 403, _) => ErrorKind::Authentication,
        (429, _) => ErrorKind::RateLimited,
        (404, _) => ErrorKind::NotFound,
        (408, _) => ErrorKind::Timeout,
        (500.., _) => ErrorKind::Overloaded,
        _ => ErrorKind::BadRequest,
    };
    let mut error = Error::new(kind, COMPONENT, format!("the provider answered {status}"));
    // A message about credentials may repeat a part of the key.
    let is_told = kind != ErrorKind::Authentication && !detail.message.contains(key);
    if is_told && !detail.message.is_empty() {
        let message: String = detail.message.chars().take(MESSAGE_CHARS).collect();
        error = error.with_context("provider", message);
    }
    if let Some(after) = retry_after {
        error = error.with_context("retry_after", format!("{:.1}s", after.as_secs_f64()));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Function, Functions};

    #[test]
    fn a_request_has_the_shape_of_the_published_examples() {
        let functions = Functions::new().with(
            Function::new("search", |_: Value| async { Ok::<_, std::io::Error>(Value::Null) })
                .with_description("Searches")
                .with_parameters(json!({"type": "object", "properties": {"query": {"type": "string"}}})),
        );
        let messages = vec![
            Message::system("be brief"),
            Message::user("hello"),
            ChatResponse::tools(vec![ToolCall::new("call_1", "search", "{\"query\":\"x\"}")]).message(),
            Message::tool("call_1", "found"),
        ];
        let body = request("gpt-4o", &ChatRequest::new(messages).with_tools(&functions)).expect("JSON");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            body,
            json!({
                "model": "gpt-4o",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": "hello"},
                    {"role": "assistant", "content": null, "tool_calls": [{
                        "id": "call_1", "type": "function",
                        "function": {"name": "search", "arguments": "{\"query\":\"x\"}"},
                    }]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "found"},
                ],
                "tools": [{"type": "function", "function": {
                    "name": "search", "description": "Searches",
                    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
                }}],
            })
        );
    }

    #[test]
    fn an_answer_gives_text_calls_and_usage() {
        let body = json!({"id": "x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": null,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }}], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}});
        let answer = response(body.to_string().as_bytes()).expect("a completion");
        assert_eq!(answer.tool_calls, [ToolCall::new("c", "f", "{}")]);
        assert_eq!(answer.usage, Usage::new(9, 3));
    }

    #[test]
    fn what_is_no_completion_is_a_protocol_error() {
        for body in ["", "not json", "{}", "{\"choices\":[]}", "[1,2]"] {
            assert_eq!(response(body.as_bytes()).expect_err(body).kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn provider_errors_are_typed() {
        let kind = |status: u16, code: &str| {
            let body = json!({"error": {"message": "m", "code": code}}).to_string();
            provider_error(StatusCode::from_u16(status).expect("valid"), body.as_bytes(), None, "sk-sentinel")
                .kind()
        };
        assert_eq!(kind(401, "invalid_api_key"), ErrorKind::Authentication);
        assert_eq!(kind(429, ""), ErrorKind::RateLimited);
        assert_eq!(kind(400, "context_length_exceeded"), ErrorKind::ContextLength);
        assert_eq!(kind(400, "content_filter"), ErrorKind::ContentFilter);
        assert_eq!(kind(400, "x"), ErrorKind::BadRequest);
        assert_eq!(kind(503, "x"), ErrorKind::Overloaded);
    }

    #[test]
    fn a_key_in_the_providers_words_is_not_repeated() {
        let body = json!({"error": {"message": "bad header: Bearer sk-sentinel"}}).to_string();
        for status in [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST] {
            let error = provider_error(status, body.as_bytes(), None, "sk-sentinel");
            assert!(!format!("{error} {error:?}").contains("sentinel"), "{error:?}");
        }
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_not_repeated() {
        let error = response(b"{\"choices\": \"private words\"}").expect_err("not a list");
        assert!(!format!("{error} {error:?}").contains("private"), "{error:?}");
    }
}
