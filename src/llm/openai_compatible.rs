//! The client of OpenAI-compatible endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use tracing::Span;

use super::secrets::Secrets;
use super::wire;
use super::{
    ChatRequest, ChatResponse, ChatStream, DEFAULT_TIMEOUT, EmbedRequest, EmbedResponse, LlmClient,
    Modalities, Usage,
};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpTransport};
use crate::support::opaque_debug;

/// Bytes of an error response that are read.
const MAX_ERROR_BODY_BYTES: usize = 64 * 1024;

/// A client of one model at an OpenAI-compatible endpoint: OpenAI, Azure OpenAI, OpenRouter, Gemini or a server of your
/// own.
///
/// It sends each request once. [`HttpClientFactory`](super::HttpClientFactory) adds retries and a concurrency limit;
/// [`Retry`](super::Retry) and [`AdaptiveConcurrency`](super::AdaptiveConcurrency) do so by hand.
pub struct OpenAiCompatibleClient {
    endpoint: Endpoint,
    model: String,
    timeout: Duration,
    modalities: Modalities,
    transport: Arc<dyn HttpTransport>,
}

/// A provider's address and headers.
pub(super) struct Endpoint {
    /// The client's name in errors.
    pub(super) component: &'static str,
    /// The provider's name in traces.
    pub(super) provider: &'static str,
    pub(super) chat_url: Uri,
    pub(super) embeddings_url: Uri,
    /// Sent with every request; the one with the API key is marked as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) api_key: Option<SecretString>,
}

impl OpenAiCompatibleClient {
    pub(super) fn new(endpoint: Endpoint, model: String, transport: Arc<dyn HttpTransport>) -> Self {
        Self {
            endpoint,
            model,
            timeout: DEFAULT_TIMEOUT,
            modalities: Modalities::IMAGES_AND_FILES,
            transport,
        }
    }

    /// Sets the deadline of requests without one. Default: 600 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the attachments that the model accepts. Default: images and files.
    #[must_use]
    pub fn with_modalities(mut self, modalities: Modalities) -> Self {
        self.modalities = modalities;
        self
    }

    fn prepare_chat(&self, request: &ChatRequest, stream: bool) -> Result<PreparedRequest<'_>> {
        let body = wire::encode_chat(self.endpoint.component, &self.model, request, stream)?;
        self.prepare(&self.endpoint.chat_url, body, &request.extra_headers, request.deadline)
    }

    fn prepare<'a>(
        &'a self,
        url: &'a Uri,
        body: Bytes,
        extra_headers: &BTreeMap<String, String>,
        deadline: Option<Deadline>,
    ) -> Result<PreparedRequest<'a>> {
        let component = self.endpoint.component;
        let mut headers = self.endpoint.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in extra_headers {
            let (name, mut value) = parse_header(component, name, value)?;
            // It may be a key or identify a person.
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let api_key = self.endpoint.api_key.iter().map(|key| key.expose_secret());
        let secrets = Secrets::new(api_key.chain(extra_headers.values().map(String::as_str)));
        let deadline = deadline.unwrap_or_else(|| Deadline::after(self.timeout));
        let transport = self.transport.as_ref();
        Ok(PreparedRequest { component, transport, url, body, headers, deadline, secrets })
    }
}

#[async_trait]
impl LlmClient for OpenAiCompatibleClient {
    #[tracing::instrument(
        name = "chat", skip_all,
        fields(gen_ai.operation.name = "chat", gen_ai.request.model = %self.model,
               gen_ai.provider.name = self.endpoint.provider,
               gen_ai.usage.input_tokens, gen_ai.usage.output_tokens)
    )]
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let mut prepared = self.prepare_chat(&request, false)?;
        // The encoded body is enough from here on.
        drop(request);
        let response = prepared.chat().await?;
        let span = Span::current();
        span.record("gen_ai.usage.input_tokens", response.usage.input_tokens);
        span.record("gen_ai.usage.output_tokens", response.usage.output_tokens);
        Ok(response)
    }

    #[tracing::instrument(
        name = "chat", skip_all,
        fields(gen_ai.operation.name = "chat", gen_ai.request.model = %self.model,
               gen_ai.provider.name = self.endpoint.provider)
    )]
    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let mut prepared = self.prepare_chat(&request, true)?;
        drop(request);
        prepared.stream().await
    }

    #[tracing::instrument(
        name = "embeddings", skip_all,
        fields(gen_ai.operation.name = "embeddings", gen_ai.request.model = %self.model,
               gen_ai.provider.name = self.endpoint.provider)
    )]
    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse> {
        if request.inputs.is_empty() {
            return Ok(EmbedResponse::new(Vec::new(), Usage::default()));
        }
        let body = wire::encode_embed(self.endpoint.component, &self.model, &request)?;
        let url = &self.endpoint.embeddings_url;
        let mut prepared = self.prepare(url, body, &request.extra_headers, request.deadline)?;
        let (_, body) = prepared.fetch().await?;
        wire::decode_embeddings(prepared.component, &body, request.inputs.len(), &prepared.secrets)
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn modalities(&self) -> Modalities {
        self.modalities
    }
}

// Shows the model and the host; never the API key.
opaque_debug!(OpenAiCompatibleClient(self) {
    provider: self.endpoint.provider,
    model: self.model,
    host: self.endpoint.chat_url.host().unwrap_or_default(),
});

/// An encoded request, ready to be sent once.
struct PreparedRequest<'a> {
    component: &'static str,
    transport: &'a dyn HttpTransport,
    url: &'a Uri,
    body: Bytes,
    headers: HeaderMap,
    deadline: Deadline,
    secrets: Secrets,
}

impl PreparedRequest<'_> {
    async fn chat(&mut self) -> Result<ChatResponse> {
        let (headers, body) = self.fetch().await?;
        let mut response = wire::decode_chat(self.component, &body, &self.secrets)?;
        (response.headers, response.body) = (headers, Some(body));
        Ok(response)
    }

    async fn stream(&mut self) -> Result<ChatStream> {
        let response = self.send().await?;
        let content_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if content_type.is_some_and(|value| value.starts_with("application/json")) {
            // Not a stream: an error with status 200, or a server that does not stream.
            let body = self.read(response.body).await?;
            let complete = wire::decode_chat(self.component, &body, &self.secrets)?;
            return Ok(ChatStream::from_response(complete).with_headers(response.headers));
        }
        let secrets = self.secrets.clone();
        let stream = ChatStream::from_body(self.component, response.body, self.deadline, secrets);
        Ok(stream.with_headers(response.headers))
    }

    /// The headers and body of a successful response.
    async fn fetch(&mut self) -> Result<(HeaderMap, Bytes)> {
        let response = self.send().await?;
        Ok((response.headers, self.read(response.body).await?))
    }

    /// Sends the request and returns the response, if its status is a success.
    async fn send(&mut self) -> Result<HttpResponse> {
        let mut request = http::Request::new(std::mem::take(&mut self.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = std::mem::take(&mut self.headers);
        let request = HttpRequest::new(request).with_deadline(Some(self.deadline));
        let response = self.transport.send(request).await.map_err(|error| {
            let port = self.url.port().map_or_else(String::new, |port| format!(":{port}"));
            error.with_context("host", format!("{}{port}", self.url.host().unwrap_or_default()))
        })?;
        if response.status.is_success() {
            return Ok(response);
        }
        let body = self.read_error_body(response.body).await;
        Err(wire::status_error(self.component, response.status, &response.headers, &body, &self.secrets))
    }

    async fn read(&self, body: HttpBody) -> Result<Bytes> {
        self.deadline.run(self.component, "reading the response", body.bytes()).await?
    }

    /// As much of an error's body as can be read: the status says enough.
    async fn read_error_body(&self, mut body: HttpBody) -> BytesMut {
        let mut read = BytesMut::new();
        let reading = async {
            while read.len() < MAX_ERROR_BODY_BYTES
                && let Ok(Some(chunk)) = body.chunk().await
            {
                read.extend_from_slice(&chunk);
            }
        };
        let _ = self.deadline.run(self.component, "reading the response", reading).await;
        read.truncate(MAX_ERROR_BODY_BYTES);
        read
    }
}

/// A header that the application passes. Errors show its name; its value may be a secret.
pub(super) fn parse_header(
    component: &'static str,
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue)> {
    let invalid = |what: &str| {
        let message = format!("invalid {what} for HTTP header {name:?}");
        Error::new(ErrorKind::InvalidInput, component, message)
    };
    let parsed_name = HeaderName::try_from(name).map_err(|_| invalid("name"))?;
    Ok((parsed_name, HeaderValue::try_from(value).map_err(|_| invalid("value"))?))
}
