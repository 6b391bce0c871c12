//! Messages of a request, borrowed.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::llm::{Attachment, Message, ToolCall};

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum WireMessage<'a> {
    System {
        content: &'a str,
    },
    User {
        content: UserContent<'a>,
    },
    Assistant {
        content: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<WireToolCall<'a>>,
        #[serde(flatten)]
        extra: &'a Map<String, Value>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum UserContent<'a> {
    Text(&'a str),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: ImageUrl<'a> },
    InputAudio { input_audio: InputAudio<'a> },
    File { file: FileData<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
}

#[derive(Serialize)]
struct InputAudio<'a> {
    data: &'a str,
    format: &'a str,
}

#[derive(Serialize)]
struct FileData<'a> {
    filename: &'a str,
    file_data: &'a str,
}

#[derive(Serialize)]
struct WireToolCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// The messages. A tool's message takes text only: what belongs to the results of one response follows them in a message
/// of the user.
pub(super) fn wire_messages(messages: &[Message]) -> impl Serialize {
    let is_tool = |message: &Message| matches!(message, Message::Tool { .. });
    let mut wire = Vec::with_capacity(messages.len());
    for run in messages.chunk_by(|one, next| is_tool(one) && is_tool(next)) {
        wire.extend(run.iter().map(WireMessage::from));
        let parts: Vec<_> = run.iter().flat_map(tool_attachments).collect();
        if !parts.is_empty() {
            wire.push(WireMessage::User { content: UserContent::Parts(parts) });
        }
    }
    wire
}

/// The attachments of a tool's result, after a text that says whose they are.
fn tool_attachments(message: &Message) -> Vec<ContentPart<'_>> {
    match message {
        Message::Tool { call_id, attachments, .. } if !attachments.is_empty() => {
            let text = ContentPart::Text {
                text: format!("Attachments of the result of tool call {call_id}:").into(),
            };
            [text].into_iter().chain(attachments.iter().map(ContentPart::from)).collect()
        }
        _ => Vec::new(),
    }
}

impl<'a> From<&'a Message> for WireMessage<'a> {
    fn from(message: &'a Message) -> Self {
        match message {
            Message::System { content } => Self::System { content },
            Message::User { content, attachments } if attachments.is_empty() => {
                Self::User { content: UserContent::Text(content) }
            }
            Message::User { content, attachments } => {
                let text = ContentPart::Text { text: content.into() };
                let parts = attachments.iter().map(ContentPart::from);
                Self::User { content: UserContent::Parts([text].into_iter().chain(parts).collect()) }
            }
            Message::Assistant { content, tool_calls, extra } => Self::Assistant {
                content: content.as_deref(),
                tool_calls: tool_calls.iter().map(WireToolCall::from).collect(),
                extra,
            },
            Message::Tool { call_id, content, .. } => Self::Tool { tool_call_id: call_id, content },
        }
    }
}

impl<'a> From<&'a Attachment> for ContentPart<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        match attachment {
            Attachment::Image { url } => Self::ImageUrl { image_url: ImageUrl { url } },
            Attachment::Audio { url } => {
                let (media_type, data) = attachment.data().unwrap_or(("", url));
                let format = media_type.rsplit(['/', '-']).next().unwrap_or_default();
                let format = if format == "mpeg" { "mp3" } else { format };
                Self::InputAudio { input_audio: InputAudio { data, format } }
            }
            Attachment::File { name, url } => {
                Self::File { file: FileData { filename: name, file_data: url } }
            }
        }
    }
}

impl<'a> From<&'a ToolCall> for WireToolCall<'a> {
    fn from(call: &'a ToolCall) -> Self {
        let function = CalledFunction { name: &call.name, arguments: &call.arguments };
        Self { id: &call.call_id, r#type: "function", function, extra: &call.extra }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wire(messages: &[Message]) -> Value {
        serde_json::to_value(wire_messages(messages)).expect("JSON")
    }

    #[test]
    fn images_and_files_have_the_shape_of_the_published_examples() {
        let message = Message::user("What is in this image?")
            .with_attachment(Attachment::image_url("https://example.com/boardwalk.jpg"))
            .with_attachment(Attachment::image("image/png", b"png"))
            .with_attachment(Attachment::pdf_base64("draconomicon.pdf", "cGRm"));
        assert_eq!(
            wire(&[message])[0]["content"],
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
    fn attachments_of_results_follow_all_results_of_a_response() {
        let messages = vec![
            Message::tool("call_1", "a plot").with_attachment(Attachment::image("image/png", b"png")),
            Message::tool("call_2", "a sound").with_attachment(Attachment::audio("audio/mpeg", b"mp3")),
            Message::user("thanks"),
            Message::tool("call_3", "text"),
        ];
        assert_eq!(
            wire(&messages),
            json!([
                {"role": "tool", "tool_call_id": "call_1", "content": "a plot"},
                {"role": "tool", "tool_call_id": "call_2", "content": "a sound"},
                {"role": "user", "content": [
                    {"type": "text", "text": "Attachments of the result of tool call call_1:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
                    {"type": "text", "text": "Attachments of the result of tool call call_2:"},
                    {"type": "input_audio", "input_audio": {"data": "bXAz", "format": "mp3"}},
                ]},
                {"role": "user", "content": "thanks"},
                {"role": "tool", "tool_call_id": "call_3", "content": "text"},
            ])
        );
    }

    #[test]
    fn unnamed_fields_of_a_response_go_back_with_the_next_request() {
        let body = json!({"choices": [{"message": {"role": "assistant", "reasoning_content": "hm", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"},
             "extra_content": {"google": {"thought_signature": "sig"}}}]}}]});
        let response =
            crate::llm::wire::decode_chat("test", body.to_string().as_bytes(), &Default::default());
        let response = response.expect("a completion");
        assert_eq!(response.reasoning(), Some("hm"));
        let sent = wire(&[response.to_message()]);
        let mut expected = body["choices"][0]["message"].clone();
        expected["content"] = Value::Null;
        assert_eq!(sent[0], expected);
    }
}
