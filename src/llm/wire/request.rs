//! Requests, serialized from borrowed parts straight to bytes.

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::messages::wire_messages;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, EmbedRequest, Structure, ToolDefinition};

/// The body of a request for a response, complete or streamed.
pub(in crate::llm) fn encode_chat(
    component: &'static str,
    model: &str,
    request: &ChatRequest,
    stream: bool,
) -> Result<Bytes> {
    // The texts, their escapes, and the names of fields.
    let capacity = 1_024 + request.messages.iter().map(|message| message.bytes() * 9 / 8 + 64).sum::<usize>();
    encode(component, capacity, &request.extra_body, |fields| {
        fields.put("model", model)?;
        fields.put("messages", &wire_messages(&request.messages))?;
        if !request.tools.is_empty() {
            fields.put("tools", &request.tools.iter().map(WireTool::from).collect::<Vec<_>>())?;
        }
        fields.put_some("temperature", request.temperature)?;
        fields.put_some("top_p", request.top_p)?;
        fields.put_some(max_tokens_field(model), request.max_tokens)?;
        fields.put_some("reasoning_effort", request.reasoning_effort.as_deref())?;
        fields.put_some("response_format", request.structure.as_ref().map(ResponseFormat::from))?;
        if stream {
            fields.put("stream", &true)?;
            fields.put("stream_options", &StreamOptions { include_usage: true })?;
        }
        Ok(())
    })
}

/// The body of a request for embeddings.
pub(in crate::llm) fn encode_embed(
    component: &'static str,
    model: &str,
    request: &EmbedRequest,
) -> Result<Bytes> {
    let capacity = 128 + request.inputs.iter().map(|input| input.len() * 9 / 8 + 4).sum::<usize>();
    encode(component, capacity, &request.extra_body, |fields| {
        fields.put("model", model)?;
        fields.put("input", &request.inputs)?;
        fields.put("encoding_format", "float")?;
        fields.put_some("dimensions", request.dimensions)
    })
}

/// OpenAI's reasoning models reject `max_tokens`.
fn max_tokens_field(model: &str) -> &'static str {
    let name = model.rsplit('/').next().unwrap_or(model);
    let is_reasoning = ["o1", "o3", "o4", "gpt-5"].iter().any(|prefix| name.starts_with(prefix));
    if is_reasoning { "max_completion_tokens" } else { "max_tokens" }
}

type JsonMap<'a> = <&'a mut serde_json::Serializer<&'a mut Vec<u8>> as serde::Serializer>::SerializeMap;

/// The fields of a request, without those that `extra` overrides.
struct Fields<'a> {
    map: JsonMap<'a>,
    extra: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> serde_json::Result<()> {
        if self.extra.contains_key(name) { Ok(()) } else { self.map.serialize_entry(name, value) }
    }

    fn put_some<T: Serialize>(&mut self, name: &'static str, value: Option<T>) -> serde_json::Result<()> {
        value.map_or(Ok(()), |value| self.put(name, &value))
    }
}

fn encode(
    component: &'static str,
    capacity: usize,
    extra: &Map<String, Value>,
    put_fields: impl FnOnce(&mut Fields<'_>) -> serde_json::Result<()>,
) -> Result<Bytes> {
    let encode = || {
        let mut bytes = Vec::with_capacity(capacity);
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        let mut fields = Fields { map: serializer.serialize_map(None)?, extra };
        put_fields(&mut fields)?;
        for (name, value) in extra {
            fields.map.serialize_entry(name, value)?;
        }
        fields.map.end()?;
        Ok(Bytes::from(bytes))
    };
    encode().map_err(|cause: serde_json::Error| {
        Error::new(ErrorKind::InvalidInput, component, "failed to serialize the request")
            .with_source(cause)
            .not_sent()
    })
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: &'a ToolDefinition,
}

#[derive(Serialize)]
struct ResponseFormat<'a> {
    r#type: &'static str,
    json_schema: &'a Structure,
}

impl<'a> From<&'a ToolDefinition> for WireTool<'a> {
    fn from(function: &'a ToolDefinition) -> Self {
        Self { r#type: "function", function }
    }
}

impl<'a> From<&'a Structure> for ResponseFormat<'a> {
    fn from(json_schema: &'a Structure) -> Self {
        Self { r#type: "json_schema", json_schema }
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;
    use crate::llm::{ChatResponse, Message, ToolCall};
    use crate::tasks::{Function, Functions};

    fn body(request: &ChatRequest, stream: bool) -> Value {
        serde_json::from_slice(&encode_chat("test", "gpt-4o", request, stream).expect("JSON")).expect("JSON")
    }

    fn embed_body(request: &EmbedRequest) -> Value {
        let bytes = encode_embed("test", "text-embedding-3-small", request).expect("JSON");
        serde_json::from_slice(&bytes).expect("JSON")
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
            ChatResponse::from_tool_calls(vec![ToolCall::new("call_1", "search", "{\"query\":\"x\"}")])
                .to_message(),
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
    fn a_streamed_response_is_requested_with_its_usage() {
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
    fn extra_fields_are_sent_and_override() {
        let mut request = ChatRequest::new(Vec::new());
        request.max_tokens = Some(5);
        request.extra_body.insert("seed".into(), json!(7));
        request.extra_body.insert("max_tokens".into(), json!(9));
        let body = body(&request, false);
        assert_eq!((&body["seed"], &body["max_tokens"]), (&json!(7), &json!(9)));
        let request =
            EmbedRequest::new(["text"]).with_extra("input_type", "query").with_extra("dimensions", 3);
        let body = embed_body(&request.with_dimensions(256));
        assert_eq!((&body["input_type"], &body["dimensions"]), (&json!("query"), &json!(3)));
    }

    #[test]
    fn the_effort_of_reasoning_is_sent_as_written() {
        let mut request = ChatRequest::new(Vec::new());
        assert_eq!(body(&request, false).get("reasoning_effort"), None);
        request.reasoning_effort = Some("low".into());
        assert_eq!(body(&request, false)["reasoning_effort"], "low");
    }

    #[test]
    fn a_request_for_embeddings_has_the_shape_of_the_published_examples() {
        let request = EmbedRequest::new(["The food was delicious"]).with_dimensions(256);
        assert_eq!(
            embed_body(&request),
            json!({"model": "text-embedding-3-small", "input": ["The food was delicious"],
                   "encoding_format": "float", "dimensions": 256})
        );
    }

    #[test]
    fn numbers_are_sent_as_written() {
        let mut request = ChatRequest::new(Vec::new());
        (request.temperature, request.top_p) = (Some(0.7), Some(0.1));
        let bytes = encode_chat("test", "m", &request, false).expect("JSON");
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        assert!(text.contains(r#""temperature":0.7,"top_p":0.1"#), "{text}");
    }

    #[test]
    fn reasoning_models_of_openai_get_max_completion_tokens() {
        let mut request = ChatRequest::new(Vec::new());
        request.max_tokens = Some(5);
        for (model, field) in [
            ("gpt-4o", "max_tokens"),
            ("o3-mini", "max_completion_tokens"),
            ("openai/gpt-5", "max_completion_tokens"),
        ] {
            let body: Value =
                serde_json::from_slice(&encode_chat("test", model, &request, false).expect("JSON"))
                    .expect("JSON");
            assert_eq!(body[field], 5, "{model}");
        }
    }
}
