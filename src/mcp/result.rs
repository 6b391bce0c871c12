//! Results of tool calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::llm::Attachment;
use crate::tasks::FunctionOutput;

/// The result of a tool call.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct McpToolResult {
    /// The content, in the server's order.
    pub content: Vec<McpContent>,
    /// The structured result, where the tool has an output schema.
    pub structured: Option<Value>,
    /// Whether the tool says that it failed.
    pub is_error: bool,
    /// Protocol-level metadata of the result (`_meta`).
    pub meta: Option<Map<String, Value>>,
}

/// One piece of a result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum McpContent {
    /// A text.
    Text(String),
    /// An image.
    Image {
        /// The decoded bytes.
        data: Bytes,
        /// For example `image/png`.
        mime_type: String,
    },
    /// A sound.
    Audio {
        /// The decoded bytes.
        data: Bytes,
        /// For example `audio/wav`.
        mime_type: String,
    },
    /// The contents of a resource.
    Resource {
        /// The resource's URI.
        uri: String,
        /// For example `text/plain`.
        mime_type: Option<String>,
        /// The text, for a text resource.
        text: Option<String>,
        /// The decoded bytes, for a binary one.
        blob: Option<Bytes>,
    },
    /// A link to a resource.
    ResourceLink {
        /// The resource's URI.
        uri: String,
        /// Its name.
        name: String,
        /// For example `text/plain`.
        mime_type: Option<String>,
    },
    /// A kind of content that this version does not know, as the server sent it.
    Other(Value),
}

impl McpToolResult {
    /// Reads a `CallToolResult` in JSON. Pieces of an unknown or malformed kind become [`McpContent::Other`], so that one
    /// odd piece never loses the rest.
    #[must_use]
    pub fn from_json(mut result: Map<String, Value>) -> Self {
        let content = match result.remove("content") {
            Some(Value::Array(pieces)) => pieces.into_iter().map(McpContent::from_json).collect(),
            _ => Vec::new(),
        };
        let meta = match result.remove("_meta") {
            Some(Value::Object(meta)) => Some(meta),
            _ => None,
        };
        Self {
            content,
            structured: result.remove("structuredContent"),
            is_error: result.get("isError").and_then(Value::as_bool).unwrap_or(false),
            meta,
        }
    }

    /// The first text, if any: what Python arshai returns of a call.
    #[must_use]
    pub fn first_text(&self) -> Option<&str> {
        self.content.iter().find_map(|content| match content {
            McpContent::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// All content as text, one piece per line; what is not text is described (`[image/png, 512 bytes]`).
    #[must_use]
    pub fn text(&self) -> String {
        self.content.iter().map(McpContent::describe).collect::<Vec<_>>().join("\n")
    }

    /// The result as the output of a function: the structured content where there is some, the text otherwise, and images,
    /// audio and documents as attachments. Of what models do not take as such, only a description is in the text.
    #[must_use]
    pub fn into_output(self) -> FunctionOutput {
        let is_structured = self.structured.is_some();
        let (mut texts, mut attachments) = (Vec::new(), Vec::new());
        for content in self.content {
            match content.into_attachment() {
                Ok(attachment) => attachments.push(attachment),
                // The text repeats the structured content.
                Err(McpContent::Text(_)) if is_structured => {}
                Err(content) => texts.push(content.describe()),
            }
        }
        let mut output = match self.structured {
            Some(structured) if texts.is_empty() => FunctionOutput::new(structured),
            Some(structured) => FunctionOutput::new(format!("{structured}\n{}", texts.join("\n"))),
            None => FunctionOutput::new(texts.join("\n")),
        };
        output.attachments = attachments;
        output
    }

    /// The result as the JSON that a function returns: the structured content where there is some, the text otherwise.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self.structured {
            Some(structured) => structured,
            None => Value::String(self.text()),
        }
    }
}

impl McpContent {
    fn from_json(piece: Value) -> Self {
        Self::known(&piece).unwrap_or(Self::Other(piece))
    }

    fn known(piece: &Value) -> Option<Self> {
        let text = |key: &str| piece.get(key).and_then(Value::as_str).map(str::to_owned);
        let bytes = |value: &Value| STANDARD.decode(value.as_str()?).ok().map(Bytes::from);
        match piece.get("type")?.as_str()? {
            "text" => text("text").map(Self::Text),
            "image" => Some(Self::Image { data: bytes(piece.get("data")?)?, mime_type: text("mimeType")? }),
            "audio" => Some(Self::Audio { data: bytes(piece.get("data")?)?, mime_type: text("mimeType")? }),
            "resource" => {
                let resource = piece.get("resource")?;
                let text = |key: &str| resource.get(key).and_then(Value::as_str).map(str::to_owned);
                let blob = resource.get("blob").and_then(bytes);
                Some(Self::Resource {
                    uri: text("uri")?,
                    mime_type: text("mimeType"),
                    text: text("text"),
                    blob,
                })
            }
            "resource_link" => Some(Self::ResourceLink {
                uri: text("uri")?,
                name: text("name").unwrap_or_default(),
                mime_type: text("mimeType"),
            }),
            _ => None,
        }
    }

    /// The content as an attachment; itself if it is not one.
    fn into_attachment(self) -> Result<Attachment, Self> {
        let (data, mime_type, name) = match &self {
            Self::Image { data, mime_type } | Self::Audio { data, mime_type } => (data, mime_type, ""),
            Self::Resource { blob: Some(data), mime_type: Some(mime_type), uri, .. } => {
                (data, mime_type, uri.rsplit('/').next().unwrap_or_default())
            }
            _ => return Err(self),
        };
        match mime_type.as_str() {
            "image/png" | "image/jpeg" | "image/gif" | "image/webp" => Ok(Attachment::image(mime_type, data)),
            "application/pdf" => Ok(Attachment::file(name, mime_type, data)),
            audio if audio.starts_with("audio/") => Ok(Attachment::audio(mime_type, data)),
            _ => Err(self),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Image { data, mime_type } | Self::Audio { data, mime_type } => {
                format!("[{mime_type}, {} bytes]", data.len())
            }
            Self::Resource { text: Some(text), .. } => text.clone(),
            Self::Resource { uri, blob, .. } => {
                format!("[{uri}, {} bytes]", blob.as_ref().map_or(0, Bytes::len))
            }
            Self::ResourceLink { uri, name, .. } => format!("[{name}: {uri}]"),
            Self::Other(value) => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> McpToolResult {
        McpToolResult::from_json(json.as_object().expect("an object").clone())
    }

    #[test]
    fn what_models_take_is_attached_and_the_rest_is_described() {
        let output = read(json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAEC", "mimeType": "image/png"},
            {"type": "image", "data": "AAEC", "mimeType": "image/tiff"},
            {"type": "audio", "data": "AAEC", "mimeType": "audio/wav"},
            {"type": "resource", "resource": {"uri": "file:///a/b.pdf", "blob": "AAEC", "mimeType": "application/pdf"}},
            {"type": "resource", "resource": {"uri": "file:///c", "blob": "AAEC"}},
        ]}))
        .into_output();
        assert_eq!(output.value, "one\n[image/tiff, 3 bytes]\n[file:///c, 3 bytes]");
        let bytes = [0, 1, 2];
        assert_eq!(
            output.attachments,
            [
                Attachment::image("image/png", &bytes),
                Attachment::audio("audio/wav", &bytes),
                Attachment::file("b.pdf", "application/pdf", &bytes),
            ]
        );
    }

    #[test]
    fn structured_content_stands_for_its_text_but_loses_nothing_else() {
        let content = json!([{"type": "text", "text": "{n: 2}"}, {"type": "image", "data": "AAEC", "mimeType": "image/png"}]);
        let output = read(json!({"structuredContent": {"n": 2}, "content": content})).into_output();
        assert_eq!((output.value, output.attachments.len()), (json!({"n": 2}), 1));
    }

    #[test]
    fn every_kind_of_content_is_kept_and_an_odd_one_loses_nothing() {
        let result =
            read(json!({ "isError": true, "_meta": {"k": 1}, "structuredContent": {"n": 2}, "content": [
                {"type": "text", "text": "one"},
                {"type": "image", "data": "AAEC", "mimeType": "image/png"},
                {"type": "image", "data": "not base64", "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "file:///a", "text": "two"}},
                {"type": "resource_link", "uri": "file:///b", "name": "b"},
                {"type": "hologram", "depth": 3},
            ]}));
        assert!(result.is_error);
        assert_eq!(result.first_text(), Some("one"));
        assert_eq!(
            result.content[1],
            McpContent::Image { data: Bytes::from_static(&[0, 1, 2]), mime_type: "image/png".into() }
        );
        assert!(matches!(result.content[2], McpContent::Other(_)));
        assert!(matches!(result.content[5], McpContent::Other(_)));
        assert!(result.text().starts_with("one\n[image/png, 3 bytes]\n"));
        assert_eq!(result.into_value(), json!({"n": 2}));
    }
}
