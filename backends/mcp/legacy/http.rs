//! JSON-RPC over HTTP: a POST for each message.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::config::McpServerConfig;
use crate::http::{HttpRequest, HttpResponse, HttpTransport};
use crate::mcp::McpCall;
use crate::{Error, ErrorKind, Outcome, Result};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

pub(super) struct HttpSession {
    component: String,
    url: String,
    http: Arc<dyn HttpTransport>,
    headers: HeaderMap,
    deny_private_addresses: bool,
    /// Headers of the session: its id and the protocol version.
    session: Mutex<HeaderMap>,
}

impl HttpSession {
    pub(super) fn new(
        config: &McpServerConfig,
        url: &str,
        http: Option<Arc<dyn HttpTransport>>,
        deny_private_addresses: bool,
    ) -> Result<Self> {
        let component = format!("mcp:{}", config.name);
        let http = http.ok_or_else(|| {
            let message =
                "no HTTP transport: enable the cargo feature \"ureq\" or pass a transport to the builder";
            Error::new(ErrorKind::Unsupported, component.clone(), message).not_sent()
        })?;
        let headers = headers(&component, &config.headers, config.token.as_ref())?;
        let url = url.to_owned();
        Ok(Self { component, url, http, headers, deny_private_addresses, session: Mutex::default() })
    }

    pub(super) fn set_version(&self, version: &str) {
        if let Ok(version) = HeaderValue::from_str(version) {
            self.session.lock().insert(VERSION, version);
        }
    }

    /// Sends a message; the answer, where it has an id.
    pub(super) async fn request(&self, message: &Value, call: Option<&McpCall>) -> Result<Option<Value>> {
        let mut request = http::Request::post(&self.url)
            .body(Bytes::from(message.to_string()))
            .map_err(|_| self.error(ErrorKind::InvalidInput, "invalid URL").not_sent())?;
        let all = request.headers_mut();
        all.extend(self.headers.clone());
        if let Some(call) = call {
            all.extend(headers(&self.component, &call.headers, call.token.as_ref())?);
        }
        // Last, so that nothing else sets them.
        all.extend(self.session.lock().clone());
        all.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = HttpRequest::new(request).with_deny_private_addresses(self.deny_private_addresses);
        let response = self.http.send(request).await?;
        if let Some(id) = response.headers.get(SESSION_ID) {
            self.session.lock().insert(SESSION_ID, id.clone());
        }
        self.check_status(response.status)?;
        match message.get("id") {
            Some(id) => self.read(response, id).await.map(Some),
            None => Ok(None),
        }
    }

    fn check_status(&self, status: StatusCode) -> Result<()> {
        let (kind, outcome) = match status {
            status if status.is_success() => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                (ErrorKind::Authentication, Outcome::Rejected)
            }
            _ => (ErrorKind::Unavailable, Outcome::Unknown),
        };
        let message = format!("the server answered HTTP {}", status.as_u16());
        Err(self.error(kind, message).with_outcome(outcome))
    }

    /// The answer to `id`, which is the body, or one event of it.
    async fn read(&self, response: HttpResponse, id: &Value) -> Result<Value> {
        let content_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_stream = content_type.is_some_and(|value| value.starts_with("text/event-stream"));
        let mut body = response.body;
        if !is_stream {
            let answer = serde_json::from_slice(&body.bytes().await?).ok();
            return answer.ok_or_else(|| self.error(ErrorKind::Protocol, "the answer is not JSON"));
        }
        let mut text = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            // Lines may end in CR LF; within a message it is escaped.
            text.extend(chunk.iter().filter(|byte| **byte != b'\r'));
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                if let Some(answer) = answer(&event, id) {
                    return Ok(answer);
                }
            }
        }
        answer(&text, id)
            .ok_or_else(|| self.error(ErrorKind::Unavailable, "the stream ended without an answer"))
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, self.component.clone(), message)
    }
}

/// The message in an event, if it answers `id`.
fn answer(event: &[u8], id: &Value) -> Option<Value> {
    let event = String::from_utf8_lossy(event);
    let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let message: Value = serde_json::from_str(&data.join("\n")).ok()?;
    (message.get("id") == Some(id) && message.get("method").is_none()).then_some(message)
}

fn headers(
    component: &str,
    headers: &std::collections::BTreeMap<String, SecretString>,
    token: Option<&SecretString>,
) -> Result<HeaderMap> {
    let invalid = |name: &str| {
        let message = format!("invalid HTTP header {name:?}");
        Error::new(ErrorKind::InvalidInput, component.to_owned(), message).not_sent()
    };
    let bearer = token.map(|token| ("authorization", format!("Bearer {}", token.expose_secret())));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret().to_owned()));
    let headers = headers.chain(bearer).map(|(name, value)| {
        let mut value = HeaderValue::from_str(&value).map_err(|_| invalid(name))?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| invalid(name))?, value))
    });
    headers.collect()
}
