//! OpenAI-compatible chat completions.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use super::wire;
use super::{ChatRequest, ChatResponse, LlmClient};
use crate::config::OpenAiConfig;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{HttpRequest, HttpTransport, was_nothing_sent};

const COMPONENT: &str = "llm.openai";
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
/// The first pause between attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, unless the provider asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Talks to OpenAI, or to anything that speaks its chat completions protocol.
///
/// Connecting failures and the statuses 408, 409, 429 and 5xx are retried, up to `max_retries` times, with pauses of
/// 0.5 s doubling to 8 s, shortened at random by up to a half, or as long as `Retry-After` says. All attempts and
/// pauses spend the request's one deadline; a pause that would outlast it is not begun. An exchange that broke after
/// the request was sent is not retried: the provider may have answered, and charged, already.
pub struct OpenAiClient {
    transport: Arc<dyn HttpTransport>,
    url: http::Uri,
    key: SecretString,
    authorization: HeaderValue,
    model: String,
    max_retries: u32,
    timeout: Duration,
    jitter: Jitter,
}

impl OpenAiClient {
    /// A client of `model` as the configuration says where and with which key.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the key is missing or cannot be a header's value, or the base URL is not a URL.
    pub fn new(
        config: &OpenAiConfig,
        model: impl Into<String>,
        transport: Arc<dyn HttpTransport>,
    ) -> Result<Self> {
        let wrong = |message: &'static str| Error::new(ErrorKind::Config, COMPONENT, message);
        let key = config.api_key.as_ref().ok_or_else(|| {
            wrong("there is no key: set OPENAI_API_KEY, or llm.openai.api_key in the configuration")
        })?;
        let base = config.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL).trim_end_matches('/');
        let url = format!("{base}/chat/completions").parse();
        Ok(Self {
            transport,
            url: url.map_err(|_| {
                wrong("OPENAI_BASE_URL is not a URL; expected one like https://api.openai.com/v1")
            })?,
            key: key.clone(),
            authorization: bearer(key)?,
            model: model.into(),
            max_retries: 3,
            timeout: Duration::from_secs(600),
            jitter: Jitter::default(),
        })
    }

    /// Sets how often a safe failure is retried. Default: 3.
    #[must_use]
    pub fn with_max_retries(mut self, max: u32) -> Self {
        self.max_retries = max;
        self
    }

    /// Sets the deadline of requests that bring none of their own. Default: 600 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn attempt(
        &self,
        body: &Bytes,
        headers: &HeaderMap,
        deadline: Deadline,
    ) -> Result<ChatResponse, Failure> {
        let mut request = http::Request::post(self.url.clone()).body(body.clone()).map_err(|_| {
            Failure::last(Error::new(ErrorKind::Internal, COMPONENT, "the request could not be built"))
        })?;
        *request.headers_mut() = headers.clone();
        let request = HttpRequest::new(request).with_deadline(Some(deadline));
        let response = self.transport.send(request).await.map_err(|error| {
            // Only what failed before anything was sent is safe to send again.
            let safe = error.kind() == ErrorKind::Unavailable || was_nothing_sent(&error);
            Failure { error, retry: safe, after: None }
        })?;
        let (status, retry_after) = (response.status, retry_after(&response.headers));
        let body = deadline.bound(COMPONENT, "reading the answer", response.body.bytes()).await;
        let body = body.and_then(|read| read).map_err(Failure::last)?;
        if status.is_success() {
            return wire::response(&body).map_err(Failure::last);
        }
        let error = wire::provider_error(status, &body, retry_after, self.key.expose_secret());
        Err(Failure { error, retry: is_retryable(status), after: retry_after })
    }

    fn headers(&self, request: &ChatRequest) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &request.extra_headers {
            // The value may be a secret; the name is what helps to find it.
            let wrong = |what: &str| {
                let message = format!("the extra header {name:?} has a {what} that HTTP does not allow");
                Error::new(ErrorKind::InvalidInput, COMPONENT, message)
            };
            let key = HeaderName::try_from(name).map_err(|_| wrong("name"))?;
            headers.insert(key, HeaderValue::try_from(value).map_err(|_| wrong("value"))?);
        }
        Ok(headers)
    }

    /// How long to wait before attempt `attempt + 1`.
    fn pause(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_else(|| {
            let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
            pause.mul_f64(1.0 - self.jitter.next() / 2.0)
        })
    }
}

/// A failed attempt.
struct Failure {
    error: Error,
    retry: bool,
    after: Option<Duration>,
}

impl Failure {
    fn last(error: Error) -> Self {
        Self { error, retry: false, after: None }
    }
}

#[async_trait]
impl LlmClient for OpenAiClient {
    #[tracing::instrument(
        name = "chat", skip_all,
        fields(gen_ai.operation.name = "chat", gen_ai.request.model = %self.model)
    )]
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        let deadline = request.deadline.unwrap_or_else(|| Deadline::after(self.timeout));
        let headers = self.headers(&request)?;
        let body = wire::request(&self.model, &request)?;
        let mut attempt = 0;
        loop {
            let Failure { error, retry, after } = match self.attempt(&body, &headers, deadline).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let pause = self.pause(attempt, after);
            if !retry || attempt >= self.max_retries || pause >= deadline.remaining() {
                return Err(error.with_context("attempts", attempt + 1));
            }
            tracing::warn!(
                component = COMPONENT,
                attempt,
                pause_ms = pause.as_millis() as u64,
                "retrying: {error}"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    fn model(&self) -> &str {
        &self.model
    }
}

/// Shows the model and the host; never the key.
impl fmt::Debug for OpenAiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiClient")
            .field("model", &self.model)
            .field("host", &self.url.host().unwrap_or_default())
            .finish_non_exhaustive()
    }
}

fn bearer(key: &SecretString) -> Result<HeaderValue> {
    let value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()));
    let mut value = value.map_err(|_| {
        let message =
            "the key has characters that no header may hold; look for a line break in OPENAI_API_KEY";
        Error::new(ErrorKind::Config, COMPONENT, message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error()
}

/// The seconds of a `Retry-After` header. A date, its other form, is not used by the providers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A source of random pauses: a counter under a hasher that is seeded anew for each client.
#[derive(Debug, Default)]
struct Jitter {
    seed: RandomState,
    count: AtomicU64,
}

impl Jitter {
    /// A number from 0 to 1.
    fn next(&self) -> f64 {
        let hash = self.seed.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_nothing_and_all() {
        let jitter = Jitter::default();
        let drawn: Vec<_> = (0..1000).map(|_| jitter.next()).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(drawn.iter().any(|x| *x < 0.2) && drawn.iter().any(|x| *x > 0.8));
    }

    #[test]
    fn retry_after_in_seconds_is_understood_and_a_date_is_left_alone() {
        let headers = |value| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        assert_eq!(retry_after(&headers("2")), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&headers("0.5")), Some(Duration::from_millis(500)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(retry_after(&headers("-1")), None);
    }
}
