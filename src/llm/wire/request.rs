//! Requests.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::llm::{Attachment, ChatRequest, EmbedRequest, Message, ToolDefinition};

#[derive(Serialize)]
struct Chat<'a> {
    model: &'a str,
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
}

/// The body of a request for an answer, whole or as it comes.
pub(in crate::llm) fn chat(
    component: &'static str,
    model: &str,
    request: &ChatRequest,
    stream: bool,
) -> Result<Bytes> {
    let body = Chat {
        model,
        messages: request.messages.iter().map(message).collect(),
        tools: request.tools.iter().map(tool).collect(),
        temperature: request.temperature,
        top_p: request.top_p,
        max_tokens: request.max_tokens,
        reasoning_effort: request.reasoning_effort.as_deref(),
        response_format: request.structure.as_ref().map(|structure| {
            json!({"type": "json_schema", "json_schema": {
                "name": structure.name, "schema": structure.schema, "strict": structure.strict,
            }})
        }),
        stream: stream.then_some(true),
        stream_options: stream.then(|| json!({"include_usage": true})),
    };
    to_bytes(component, &with_extra(component, &body, &request.extra_body)?)
}

/// The body of a request for vectors.
pub(in crate::llm) fn embed(component: &'static str, model: &str, request: &EmbedRequest) -> Result<Bytes> {
    let mut body = json!({"model": model, "input": request.inputs, "encoding_format": "float"});
    if let Some(dimensions) = request.dimensions {
        body["dimensions"] = dimensions.into();
    }
    to_bytes(component, &body)
}

/// `body` with `extra` fields over its own.
fn with_extra(component: &'static str, body: &impl Serialize, extra: &Map<String, Value>) -> Result<Value> {
    let mut body = serde_json::to_value(body).map_err(|cause| not_json(component, cause))?;
    if let Some(body) = body.as_object_mut() {
        body.extend(extra.clone());
    }
    Ok(body)
}

fn to_bytes(component: &'static str, body: &Value) -> Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|cause| not_json(component, cause))
}

fn not_json(component: &'static str, cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::InvalidInput, component, "the request is not JSON").with_source(cause)
}

fn message(message: &Message) -> Value {
    match message {
        Message::System { content } => json!({"role": "system", "content": content}),
        Message::User { content, attachments } if attachments.is_empty() => {
            json!({"role": "user", "content": content})
        }
        Message::User { content, attachments } => {
            let text = json!({"type": "text", "text": content});
            let parts: Vec<_> = [text].into_iter().chain(attachments.iter().map(part)).collect();
            json!({"role": "user", "content": parts})
        }
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

fn part(attachment: &Attachment) -> Value {
    match attachment {
        Attachment::Image { url } => json!({"type": "image_url", "image_url": {"url": url}}),
        Attachment::File { name, url } => {
            json!({"type": "file", "file": {"filename": name, "file_data": url}})
        }
    }
}

fn tool(tool: &ToolDefinition) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters,
    }})
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;
    use crate::llm::{ChatResponse, ToolCall};
    use crate::tasks::{Function, Functions};

    fn body(request: &ChatRequest, stream: bool) -> Value {
        serde_json::from_slice(&chat("test", "gpt-4o", request, stream).expect("JSON")).expect("JSON")
    }

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
        assert_eq!(
            body(&ChatRequest::new(messages).with_tools(&functions), false),
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
    fn images_and_files_have_the_shape_of_the_published_examples() {
        let message = Message::user("What is in this image?")
            .with_attachment(Attachment::image_url("https://example.com/boardwalk.jpg"))
            .with_attachment(Attachment::image("image/png", b"png"))
            .with_attachment(Attachment::pdf_base64("draconomicon.pdf", "cGRm"));
        assert_eq!(
            body(&ChatRequest::new(vec![message]), false)["messages"][0]["content"],
            json!([
                {"type": "text", "text": "What is in this image?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/boardwalk.jpg"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
                {"type": "file", "file": {"filename": "draconomicon.pdf",
                                          "file_data": "data:application/pdf;base64,cGRm"}},
            ])
        );
    }

    #[test]
    fn a_streamed_answer_is_asked_for_with_its_usage() {
        let body = body(&ChatRequest::new(Vec::new()), true);
        assert_eq!(
            (&body["stream"], &body["stream_options"]),
            (&json!(true), &json!({"include_usage": true}))
        );
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct CalendarEvent {
        name: String,
        participants: Vec<String>,
    }

    #[test]
    fn structured_output_has_the_shape_of_the_published_examples() {
        let body = body(&ChatRequest::new(Vec::new()).with_structure::<CalendarEvent>(), false);
        assert_eq!(
            body["response_format"],
            json!({"type": "json_schema", "json_schema": {"name": "CalendarEvent", "strict": true, "schema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "participants": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["name", "participants"],
                "additionalProperties": false,
            }}})
        );
    }

    #[test]
    fn extra_fields_are_sent_and_win() {
        let mut request = ChatRequest::new(Vec::new());
        request.max_tokens = Some(5);
        request.extra_body.insert("seed".into(), json!(7));
        request.extra_body.insert("max_tokens".into(), json!(9));
        let body = body(&request, false);
        assert_eq!((&body["seed"], &body["max_tokens"]), (&json!(7), &json!(9)));
    }

    #[test]
    fn a_request_for_vectors_has_the_shape_of_the_published_examples() {
        let request = EmbedRequest::new(["The food was delicious"]).with_dimensions(256);
        let body: Value =
            serde_json::from_slice(&embed("test", "text-embedding-3-small", &request).expect("JSON"))
                .expect("JSON");
        assert_eq!(
            body,
            json!({"model": "text-embedding-3-small", "input": ["The food was delicious"],
                   "encoding_format": "float", "dimensions": 256})
        );
    }
}
