//! Messages of a conversation, their attachments, and a model's tool calls.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::support::truncated;
use crate::tasks::FunctionCall;

/// Bytes of a URL that a description repeats.
const MAX_DESCRIBED_URL_BYTES: usize = 200;

/// One message of a conversation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(tag = "role", rename_all = "snake_case", try_from = "MessageFields")]
pub enum Message {
    /// Instructions to the model.
    System {
        /// The text.
        content: String,
    },
    /// A message of the user.
    User {
        /// The text.
        content: String,
        /// Images and files.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<Attachment>,
    },
    /// A response of the model.
    Assistant {
        /// The text, if any.
        content: Option<String>,
        /// The tool calls it asks for.
        tool_calls: Vec<ToolCall>,
        /// Further fields, sent back to the provider unchanged: reasoning text, thought signatures, …
        #[serde(skip_serializing_if = "Map::is_empty")]
        extra: Map<String, Value>,
    },
    /// The result of a tool call.
    Tool {
        /// The id of the call.
        call_id: String,
        /// The result, or an error message.
        content: String,
        /// Images, audio and files that belong to the result.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<Attachment>,
    },
}

/// The fields of every message: an enum with a tag would buffer them until its tag is read.
#[derive(Deserialize)]
struct MessageFields {
    role: Role,
    content: Option<String>,
    call_id: Option<String>,
    #[serde(default)]
    attachments: Vec<Attachment>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
    #[serde(default)]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl TryFrom<MessageFields> for Message {
    type Error = &'static str;

    fn try_from(fields: MessageFields) -> Result<Self, Self::Error> {
        let MessageFields { role, content, call_id, attachments, tool_calls, extra } = fields;
        let text = |content: Option<String>| content.ok_or("missing field `content`");
        Ok(match role {
            Role::System => Self::System { content: text(content)? },
            Role::User => Self::User { content: text(content)?, attachments },
            Role::Assistant => Self::Assistant { content, tool_calls, extra },
            Role::Tool => {
                let call_id = call_id.ok_or("missing field `call_id`")?;
                Self::Tool { call_id, content: text(content)?, attachments }
            }
        })
    }
}

impl Message {
    /// Instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::System { content: content.into() }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::User { content: content.into(), attachments: Vec::new() }
    }

    /// Attaches an image, audio or a file to a user's message or the result of a tool call. Other messages are returned
    /// unchanged.
    #[must_use]
    pub fn with_attachment(mut self, attachment: Attachment) -> Self {
        if let Self::User { attachments, .. } | Self::Tool { attachments, .. } = &mut self {
            attachments.push(attachment);
        }
        self
    }

    /// A response of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::Assistant { content: Some(content.into()), tool_calls: Vec::new(), extra: Map::new() }
    }

    /// Bytes of its text, of the arguments of its tool calls and of its attachments.
    pub(crate) fn bytes(&self) -> usize {
        let urls = |attachments: &[Attachment]| attachments.iter().map(Attachment::url_bytes).sum::<usize>();
        match self {
            Self::System { content } => content.len(),
            Self::User { content, attachments } | Self::Tool { content, attachments, .. } => {
                content.len() + urls(attachments)
            }
            Self::Assistant { content, tool_calls, .. } => {
                let arguments: usize = tool_calls.iter().map(|call| call.arguments.len()).sum();
                content.as_ref().map_or(0, String::len) + arguments
            }
        }
    }

    /// The result of a tool call.
    pub fn tool(call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self::Tool { call_id: call_id.into(), content: content.into(), attachments: Vec::new() }
    }
}

/// Shows role and length only: conversations are private and do not belong in logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { content } => write!(f, "System({} bytes)", content.len()),
            Self::User { content, attachments } if attachments.is_empty() => {
                write!(f, "User({} bytes)", content.len())
            }
            Self::User { content, attachments } => {
                write!(f, "User({} bytes, {} attachments)", content.len(), attachments.len())
            }
            Self::Assistant { content, tool_calls, .. } => write!(
                f,
                "Assistant({} bytes, {} tool calls)",
                content.as_ref().map_or(0, String::len),
                tool_calls.len()
            ),
            Self::Tool { content, .. } => write!(f, "Tool({} bytes)", content.len()),
        }
    }
}

/// An attachment of a user's message or of the result of a tool call. Not every model can read every attachment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Attachment {
    /// An image.
    Image {
        /// Its URL, or a `data:` URL with its content.
        url: String,
    },
    /// A recording.
    Audio {
        /// A `data:` URL with its content.
        url: String,
    },
    /// A document.
    File {
        /// Its name.
        name: String,
        /// A `data:` URL with its content.
        url: String,
    },
}

impl Attachment {
    /// An image that the provider fetches from `url`.
    pub fn image_url(url: impl Into<String>) -> Self {
        Self::Image { url: url.into() }
    }

    /// An image's bytes; `media_type` is for example `image/png`.
    #[must_use]
    pub fn image(media_type: &str, bytes: &[u8]) -> Self {
        Self::Image { url: data_url(media_type, bytes) }
    }

    /// An image in base64, with or without a `data:` prefix (Python: `images_base64`); without one it counts as JPEG.
    #[must_use]
    pub fn image_base64(base64: &str) -> Self {
        Self::Image { url: with_prefix("image/jpeg", base64) }
    }

    /// A recording's bytes; `media_type` is for example `audio/wav`.
    #[must_use]
    pub fn audio(media_type: &str, bytes: &[u8]) -> Self {
        Self::Audio { url: data_url(media_type, bytes) }
    }

    /// A file's bytes; `media_type` is for example `application/pdf`.
    pub fn file(name: impl Into<String>, media_type: &str, bytes: &[u8]) -> Self {
        Self::File { name: name.into(), url: data_url(media_type, bytes) }
    }

    /// A PDF in base64, with or without a `data:` prefix (Python: `pdfs_base64`).
    pub fn pdf_base64(name: impl Into<String>, base64: &str) -> Self {
        Self::File { name: name.into(), url: with_prefix("application/pdf", base64) }
    }
}

impl Attachment {
    fn url(&self) -> &str {
        match self {
            Self::Image { url } | Self::Audio { url } | Self::File { url, .. } => url,
        }
    }

    /// Size of its URL, content included, in bytes.
    #[must_use]
    pub fn url_bytes(&self) -> usize {
        self.url().len()
    }

    /// Whether it holds its content, and not only a URL.
    pub(crate) fn is_data(&self) -> bool {
        self.url().starts_with("data:")
    }

    /// The media type and the content in base64 of a `data:` URL.
    pub(super) fn data(&self) -> Option<(&str, &str)> {
        self.url().strip_prefix("data:")?.split_once(";base64,")
    }

    /// Kind and size, for a model that is not shown it: `image/png, 512 bytes`.
    #[must_use]
    pub fn description(&self) -> String {
        match self.data() {
            Some((media_type, base64)) => format!("{media_type}, {} bytes", base64.len() / 4 * 3),
            None => truncated(self.url(), MAX_DESCRIBED_URL_BYTES).into_owned(),
        }
    }
}

/// Shows the type and the size; never the content.
impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { url } => write!(f, "Image({} bytes)", url.len()),
            Self::Audio { url } => write!(f, "Audio({} bytes)", url.len()),
            Self::File { url, .. } => write!(f, "File({} bytes)", url.len()),
        }
    }
}

fn data_url(media_type: &str, bytes: &[u8]) -> String {
    let mut url = format!("data:{media_type};base64,");
    STANDARD.encode_string(bytes, &mut url);
    url
}

fn with_prefix(media_type: &str, base64: &str) -> String {
    if base64.starts_with("data:") { base64.to_owned() } else { format!("data:{media_type};base64,{base64}") }
}

/// A tool call that a model asks for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// The model's id of the call.
    pub call_id: String,
    /// The function's name.
    pub name: String,
    /// The arguments as the model wrote them: a string that should be a JSON object.
    pub arguments: String,
    /// Further fields, sent back to the provider unchanged.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

impl ToolCall {
    /// A call of `name`.
    pub fn new(call_id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let (call_id, name, arguments) = (call_id.into(), name.into(), arguments.into());
        Self { call_id, name, arguments, extra: Map::new() }
    }

    /// The call for the executor, or `None` if the arguments are not a JSON object. An empty string counts as an empty
    /// object.
    #[must_use]
    pub fn to_function_call(&self) -> Option<FunctionCall> {
        let text = self.arguments.trim();
        let args = if text.is_empty() {
            Value::Object(Map::new())
        } else {
            serde_json::from_str(text).ok().filter(Value::is_object)?
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_read_wherever_its_role_stands_and_not_without_its_fields() {
        let read = |json: Value| serde_json::from_str::<Message>(&json.to_string());
        let calls = json!([{"call_id": "c", "name": "f", "arguments": "{}"}]);
        let asks =
            read(json!({"content": null, "tool_calls": calls, "role": "assistant"})).expect("a message");
        let Message::Assistant { content: None, tool_calls, .. } = asks else { panic!("{asks:?}") };
        assert_eq!(tool_calls, [ToolCall::new("c", "f", "{}")]);
        let result = json!({"call_id": "c", "content": "text", "role": "tool"});
        assert_eq!(read(result).expect("a message"), Message::tool("c", "text"));
        for incomplete in
            [json!({"role": "user"}), json!({"role": "tool", "content": "text"}), json!({"content": ""})]
        {
            assert!(read(incomplete.clone()).is_err(), "{incomplete}");
        }
    }
}
