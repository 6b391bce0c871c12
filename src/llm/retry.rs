//! Retries.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    ChatRequest, ChatResponse, ChatStream, DEFAULT_TIMEOUT, EmbedRequest, EmbedResponse, LlmClient,
    Modalities,
};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::support::Backoff;

const COMPONENT: &str = "llm.retry";

/// Repeats the failed requests of any client that are safe to repeat.
///
/// An error is retried if it [is retryable](Error::is_retryable) and its [outcome](Error::outcome) is `NotSent` or
/// `Rejected`. One whose outcome is `Unknown` is not: the provider may have answered, and charged, already. Nor is
/// `Capacity`: a full queue stays full when rejected callers come back. A stream is retried until it begins, never
/// afterwards.
///
/// Delays are exponential with jitter (0.5 s doubling to 8 s), or the error's [`retry_after`](Error::retry_after). All
/// attempts and delays spend one deadline; a delay that would exceed it is not begun, and the last error is returned.
#[derive(Debug)]
pub struct Retry<C> {
    client: C,
    max_retries: u32,
    backoff: Backoff,
    timeout: Duration,
}

impl<C: LlmClient> Retry<C> {
    /// Decorates `client`; each request is retried at most `max_retries` times.
    pub fn new(client: C, max_retries: u32) -> Self {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
        Self { client, max_retries, backoff, timeout: DEFAULT_TIMEOUT }
    }

    /// Sets the delays between attempts.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the deadline of requests without one. Default: 600 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        deadline: Option<Deadline>,
        mut attempt: impl FnMut(Deadline) -> F,
    ) -> Result<T> {
        let deadline = deadline.unwrap_or_else(|| Deadline::after(self.timeout));
        let mut failed = 0;
        loop {
            let error = match attempt(deadline).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failed += 1;
            let delay = self.delay(failed, &error);
            if failed > self.max_retries || !is_safe(&error) || delay >= deadline.remaining() {
                return Err(if failed == 1 { error } else { error.with_context("attempts", failed) });
            }
            let delay_ms = delay.as_millis() as u64;
            tracing::warn!(
                component = COMPONENT,
                model = self.client.model(),
                failed,
                delay_ms,
                "retrying: {error}"
            );
            tokio::time::sleep(delay).await;
        }
    }

    /// The provider's `Retry-After`, if it is later than now; exponential backoff otherwise.
    fn delay(&self, failed: u32, error: &Error) -> Duration {
        let requested = error.retry_after().filter(|after| !after.is_zero());
        requested.unwrap_or_else(|| self.backoff.delay(failed))
    }
}

/// Whether repeating the request can help and cannot do anything twice.
fn is_safe(error: &Error) -> bool {
    error.is_retryable() && error.outcome() != Outcome::Unknown && error.kind() != ErrorKind::Capacity
}

#[async_trait]
impl<C: LlmClient> LlmClient for Retry<C> {
    async fn chat(&self, mut request: ChatRequest) -> Result<ChatResponse> {
        self.run(request.deadline, |deadline| {
            request.deadline = Some(deadline);
            self.client.chat(request.clone())
        })
        .await
    }

    async fn stream(&self, mut request: ChatRequest) -> Result<ChatStream> {
        self.run(request.deadline, |deadline| {
            request.deadline = Some(deadline);
            self.client.stream(request.clone())
        })
        .await
    }

    async fn embed(&self, mut request: EmbedRequest) -> Result<EmbedResponse> {
        self.run(request.deadline, |deadline| {
            request.deadline = Some(deadline);
            self.client.embed(request.clone())
        })
        .await
    }

    fn model(&self) -> &str {
        self.client.model()
    }

    fn modalities(&self) -> Modalities {
        self.client.modalities()
    }
}
