//! What servers ask of the application, and what it is told of them.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::McpToolChange;
use crate::error::{Error, ErrorKind, Result};

/// Answers what servers ask of the application while their tools run: input of the user (elicitation), an answer of a
/// language model (sampling), and the folders that they may work in (roots).
///
/// It also learns of [changed tools](Self::tool_changed).
///
/// Without a handler, and for what [`capabilities`](Self::capabilities) leaves out, servers are told that the client
/// cannot do it; a tool that asks all the same fails with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
///
/// # Contract
/// - **Trust.** What arrives was written by the server: show which server asks, and let the user decline.
/// - **Concurrency.** Methods may be called at the same time, at most `max_concurrency` times for each server.
/// - **Time.** The answer counts into the call's deadline. When that has passed, or the server cancels, the future is
///   dropped.
/// - **Errors** reach the server as a failed request, in this era's form: of a tool that asks in its result, the call
///   fails with the error itself.
#[async_trait]
pub trait McpClientHandler: Send + Sync {
    /// What this handler answers; announced to every server at connecting.
    fn capabilities(&self) -> McpClientCapabilities;

    /// Asks the user for input (`elicitation/create`). Default: declines.
    ///
    /// # Errors
    /// Whatever kept the handler from asking. A user who does not want to answer is no error but
    /// [`McpElicitationResult::Decline`].
    async fn elicit(&self, server: &str, request: McpElicitation) -> Result<McpElicitationResult> {
        let _ = (server, request);
        Ok(McpElicitationResult::Decline)
    }

    /// Asks a language model (`sampling/createMessage`): parameters and result are the protocol's in JSON. Default: an
    /// error.
    ///
    /// # Errors
    /// Those of the model, or that the application does not allow it.
    async fn create_message(&self, server: &str, params: Map<String, Value>) -> Result<Map<String, Value>> {
        let _ = params;
        Err(Error::new(ErrorKind::Unsupported, format!("mcp:{server}"), "sampling is not supported"))
    }

    /// The folders that the server may work in (`roots/list`). Default: none.
    ///
    /// # Errors
    /// Whatever kept the handler from listing them.
    async fn list_roots(&self, server: &str) -> Result<Vec<McpRoot>> {
        let _ = server;
        Ok(Vec::new())
    }

    /// The server changed a tool under the same name, or has another than its pin, with `mcp.tool_changes` other than
    /// `ignore`. Called once for each new definition, before it is offered, outside every lock: it may
    /// [accept](super::McpServerManager::accept_tool) the change. It must not block. A panic is logged.
    fn tool_changed(&self, server: &str, change: &McpToolChange) {
        let _ = (server, change);
    }
}

/// What an [`McpClientHandler`] answers. Default: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpClientCapabilities {
    /// Forms that the user fills in.
    pub elicitation_form: bool,
    /// URLs that the user opens.
    pub elicitation_url: bool,
    /// Answers of a language model.
    pub sampling: bool,
    /// Folders.
    pub roots: bool,
}

impl McpClientCapabilities {
    /// Forms and URLs.
    #[must_use]
    pub const fn elicitation() -> Self {
        Self { elicitation_form: true, elicitation_url: true, sampling: false, roots: false }
    }

    /// Adds answers of a language model.
    #[must_use]
    pub const fn with_sampling(mut self) -> Self {
        self.sampling = true;
        self
    }

    /// Adds folders.
    #[must_use]
    pub const fn with_roots(mut self) -> Self {
        self.roots = true;
        self
    }
}

/// Input that a server wants from the user.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum McpElicitation {
    /// Values of a form.
    Form {
        /// What to ask.
        message: String,
        /// The JSON schema of the values: an object whose properties are texts, numbers, booleans and choices.
        schema: Value,
    },
    /// A page to open, for input that the client must not see.
    Url {
        /// What to ask.
        message: String,
        /// The page.
        url: String,
    },
}

impl McpElicitation {
    /// Reads the parameters of `elicitation/create`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when they lack a message, a form's schema or a URL.
    pub fn from_json(server: &str, params: &Map<String, Value>) -> Result<Self> {
        let text = |key: &str| params.get(key).and_then(Value::as_str).map(str::to_owned);
        let missing = |key: &str| {
            let message = format!("elicitation/create without {key:?}");
            Error::new(ErrorKind::Protocol, format!("mcp:{server}"), message)
        };
        let message = text("message").ok_or_else(|| missing("message"))?;
        if params.get("mode").and_then(Value::as_str) == Some("url") {
            return Ok(Self::Url { message, url: text("url").ok_or_else(|| missing("url"))? });
        }
        let schema = params.get("requestedSchema").filter(|schema| schema.is_object());
        Ok(Self::Form { message, schema: schema.cloned().ok_or_else(|| missing("requestedSchema"))? })
    }

    /// The values that a form's schema gives as defaults: what its fields hold before the user changes them.
    #[must_use]
    pub fn defaults(&self) -> Map<String, Value> {
        let Self::Form { schema, .. } = self else { return Map::new() };
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let defaults = fields.filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())));
        defaults.collect()
    }
}

/// The user's answer to an [`McpElicitation`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum McpElicitationResult {
    /// The values of the form, by field; empty for a URL.
    Accept(Map<String, Value>),
    /// The user said no.
    Decline,
    /// The user closed the form without an answer.
    Cancel,
}

impl McpElicitationResult {
    /// The protocol's form of the answer.
    #[must_use]
    pub fn into_json(self) -> Value {
        match self {
            Self::Accept(values) if values.is_empty() => serde_json::json!({ "action": "accept" }),
            Self::Accept(values) => serde_json::json!({ "action": "accept", "content": values }),
            Self::Decline => serde_json::json!({ "action": "decline" }),
            Self::Cancel => serde_json::json!({ "action": "cancel" }),
        }
    }
}

/// A folder that a server may work in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct McpRoot {
    /// A `file://` URI.
    pub uri: String,
    /// What to call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl McpRoot {
    /// The folder at this URI.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), name: None }
    }

    /// Names it.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// Shows only its capabilities.
impl fmt::Debug for dyn McpClientHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpClientHandler").field("capabilities", &self.capabilities()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(params: Value) -> Result<McpElicitation> {
        McpElicitation::from_json("s", params.as_object().expect("an object"))
    }

    #[test]
    fn a_form_knows_its_defaults() {
        let form = read(json!({"message": "Who?", "requestedSchema": {"type": "object", "properties": {
            "name": {"type": "string", "default": "Ada"}, "age": {"type": "integer"}}}}));
        let form = form.expect("it is complete");
        assert_eq!(Value::from(form.defaults()), json!({"name": "Ada"}));
        assert_eq!(
            McpElicitationResult::Accept(form.defaults()).into_json(),
            json!({"action": "accept", "content": {"name": "Ada"}})
        );
    }

    #[test]
    fn a_page_has_no_defaults() {
        let page = read(json!({"mode": "url", "message": "Sign in", "url": "https://example.com/"}));
        assert_eq!(page.expect("it is complete").defaults(), Map::new());
    }

    #[test]
    fn incomplete_requests_say_what_is_missing() {
        for (params, missing) in [
            (json!({}), "message"),
            (json!({"message": "Who?"}), "requestedSchema"),
            (json!({"message": "Who?", "requestedSchema": "text"}), "requestedSchema"),
            (json!({"message": "Who?", "mode": "url"}), "url"),
        ] {
            let error = read(params).expect_err("it is incomplete");
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
