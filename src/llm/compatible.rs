//! What all OpenAI-compatible clients share: everything but addresses and headers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};

use super::retry::{Failure, Retries};
use super::wire::{self, Refusal};
use super::{ChatRequest, ChatResponse, ChatStream, EmbedRequest, EmbedResponse};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{HttpRequest, HttpResponse, HttpTransport, was_nothing_sent};

/// Secrets shorter than this are not looked for in a provider's words: they would be found in any text.
const SHORTEST_SECRET: usize = 6;

/// Where a provider is and how it wants to be asked.
pub(super) struct Endpoint {
    /// The client's name in errors and logs.
    pub(super) component: &'static str,
    /// The provider's name in statistics.
    pub(super) provider: &'static str,
    pub(super) chat: Uri,
    pub(super) embeddings: Uri,
    /// Sent with every request; the one that holds the key is marked as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) key: SecretString,
}

/// Talks to an endpoint about one model.
pub(super) struct Compatible {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) retries: Retries,
    pub(super) timeout: Duration,
    transport: Arc<dyn HttpTransport>,
}

impl Compatible {
    pub(super) fn new(endpoint: Endpoint, model: String, transport: Arc<dyn HttpTransport>) -> Self {
        let timeout = Duration::from_secs(600);
        Self { endpoint, model, retries: Retries::new(3), timeout, transport }
    }

    pub(super) async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let component = self.endpoint.component;
        let body = wire::chat(component, &self.model, &request, false)?;
        let call = self.call(&self.endpoint.chat, body, &request.extra_headers, request.deadline)?;
        let understand = |body: &[u8]| wire::response(component, body);
        let attempt = || call.whole(&understand);
        self.retries.run(component, call.deadline, &request.retry_listener, attempt).await
    }

    pub(super) async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let component = self.endpoint.component;
        let body = wire::chat(component, &self.model, &request, true)?;
        let call = self.call(&self.endpoint.chat, body, &request.extra_headers, request.deadline)?;
        let attempt = || call.stream();
        self.retries.run(component, call.deadline, &request.retry_listener, attempt).await
    }

    pub(super) async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse> {
        let component = self.endpoint.component;
        if request.inputs.is_empty() {
            return Ok(EmbedResponse::new(Vec::new(), super::Usage::default()));
        }
        let body = wire::embed(component, &self.model, &request)?;
        let call = self.call(&self.endpoint.embeddings, body, &request.extra_headers, request.deadline)?;
        let count = request.inputs.len();
        let understand = |body: &[u8]| wire::embeddings(component, body, count);
        let attempt = || call.whole(&understand);
        self.retries.run(component, call.deadline, &request.retry_listener, attempt).await
    }

    fn call<'a>(
        &'a self,
        url: &'a Uri,
        body: Bytes,
        extra: &std::collections::BTreeMap<String, String>,
        deadline: Option<Deadline>,
    ) -> Result<Call<'a>> {
        let mut headers = self.endpoint.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in extra {
            let (name, mut value) = header(self.endpoint.component, name, value)?;
            // It may be a key or somebody's identity.
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Call {
            component: self.endpoint.component,
            transport: self.transport.as_ref(),
            url,
            body,
            headers,
            deadline: deadline.unwrap_or_else(|| Deadline::after(self.timeout)),
            secrets: Secrets::of(
                [self.endpoint.key.expose_secret()].into_iter().chain(extra.values().map(|v| &**v)),
            ),
        })
    }
}

/// Shows the model and the host; never the key.
impl fmt::Debug for Compatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.endpoint.provider)
            .field("model", &self.model)
            .field("host", &self.endpoint.chat.host().unwrap_or_default())
            .finish_non_exhaustive()
    }
}

/// One request, as it is sent at each attempt.
struct Call<'a> {
    component: &'static str,
    transport: &'a dyn HttpTransport,
    url: &'a Uri,
    body: Bytes,
    headers: HeaderMap,
    deadline: Deadline,
    secrets: Secrets,
}

impl Call<'_> {
    /// Sends the request and gives the response, if it is one of success.
    async fn send(&self) -> Result<HttpResponse, Failure> {
        let mut request = http::Request::post(self.url.clone()).body(self.body.clone()).map_err(|_| {
            let message = "the request could not be built";
            Failure::last(Error::new(ErrorKind::Internal, self.component, message))
        })?;
        request.headers_mut().clone_from(&self.headers);
        let request = HttpRequest::new(request).with_deadline(Some(self.deadline));
        let response = self.transport.send(request).await.map_err(|error| {
            // Only what failed before anything was sent is safe to send again.
            let safe = error.kind() == ErrorKind::Unavailable || was_nothing_sent(&error);
            Failure { error, retry: safe, after: None }
        })?;
        if response.status.is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status, response.headers.clone());
        let body = self.read(response).await?;
        Err(wire::provider_error(self.component, status, &headers, &body, &self.secrets))
    }

    async fn read(&self, response: HttpResponse) -> Result<Bytes, Failure> {
        let body = self.deadline.run(self.component, "reading the answer", response.body.bytes()).await;
        body.and_then(|read| read).map_err(Failure::last)
    }

    async fn whole<T>(
        &self,
        understand: &(impl Fn(&[u8]) -> Result<T, Refusal> + Sync),
    ) -> Result<T, Failure> {
        let response = self.send().await?;
        let body = self.read(response).await?;
        understand(&body).map_err(|refusal| refusal.into_failure(self.component, &self.secrets))
    }

    async fn stream(&self) -> Result<ChatStream, Failure> {
        let response = self.send().await?;
        let kind = response.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/json") {
            // Not a stream: an error that came with success, or a server that does not stream.
            let body = self.read(response).await?;
            let answer = wire::response(self.component, &body);
            return answer
                .map(ChatStream::whole)
                .map_err(|refusal| refusal.into_failure(self.component, &self.secrets));
        }
        Ok(ChatStream::read(self.component, response.body, self.deadline, self.secrets.clone()))
    }
}

/// A header that the application gives. Its value may be a secret; its name is what helps to find a wrong one.
pub(super) fn header(component: &'static str, name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let wrong = |what: &str| {
        let message = format!("the header {name:?} has a {what} that HTTP does not allow");
        Error::new(ErrorKind::InvalidInput, component, message)
    };
    let key = HeaderName::try_from(name).map_err(|_| wrong("name"))?;
    Ok((key, HeaderValue::try_from(value).map_err(|_| wrong("value"))?))
}

/// What a provider's own words must not hold for an error to repeat them.
#[derive(Clone, Default)]
pub(super) struct Secrets(Arc<[SecretString]>);

impl Secrets {
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
        Self(long.map(SecretString::from).collect())
    }

    pub(super) fn are_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.expose_secret()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
