//! HTTP headers of a server and of a single call.

use std::collections::{BTreeMap, HashMap};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest};
use secrecy::{ExposeSecret, SecretString};

use crate::config::McpServerConfig;
use crate::mcp::McpCall;
use crate::{Error, ErrorKind, Result};

/// Headers that the protocol or HTTP itself sets, besides those that begin with `mcp-`.
const RESERVED: [&str; 10] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// The headers that every request to the server carries.
pub(super) fn server_headers(config: &McpServerConfig) -> Result<HashMap<HeaderName, HeaderValue>> {
    let headers = parse(&config.headers)
        .map_err(|message| Error::new(ErrorKind::Config, format!("mcp:{}", config.name), message))?;
    Ok(headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect())
}

/// The headers of one request, which travel inside the message so that no other request can get them.
#[derive(Debug, Clone, Default)]
pub(super) struct CallHeaders(HeaderMap);

impl CallHeaders {
    /// The headers and the token of a call.
    pub(super) fn new(call: &McpCall) -> Result<Self> {
        let invalid =
            |message| Error::new(ErrorKind::InvalidInput, format!("mcp:{}", call.server), message).not_sent();
        let mut headers = parse(&call.headers).map_err(invalid)?;
        if let Some(token) = &call.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
            let mut value = value.map_err(|_| invalid("invalid token".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self(headers))
    }

    /// Those that a message carries.
    pub(super) fn of(message: &ClientJsonRpcMessage) -> Self {
        match message {
            ClientJsonRpcMessage::Request(request) => match &request.request {
                ClientRequest::CallToolRequest(call) => call.extensions.get::<Self>().cloned(),
                _ => None,
            },
            _ => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the call has credentials of its own.
    pub(super) fn has_credentials(&self) -> bool {
        self.0.contains_key(AUTHORIZATION)
    }

    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        headers.extend(self.0);
    }
}

fn parse(headers: &BTreeMap<String, SecretString>) -> Result<HeaderMap, String> {
    let headers = headers.iter().map(|(name, value)| {
        let header =
            HeaderName::try_from(name).map_err(|_| format!("invalid name for HTTP header {name:?}"))?;
        if header.as_str().starts_with("mcp-") || RESERVED.contains(&header.as_str()) {
            return Err(format!("HTTP header {name:?} belongs to the protocol and cannot be set"));
        }
        let value = HeaderValue::from_str(value.expose_secret());
        let mut value = value.map_err(|_| format!("invalid value for HTTP header {name:?}"))?;
        value.set_sensitive(true);
        Ok((header, value))
    });
    headers.collect()
}
