//! A client under an adaptive concurrency limit.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{
    AdaptiveLimiter, ChatEvent, ChatRequest, ChatResponse, ChatStream, DEFAULT_TIMEOUT, EmbedRequest,
    EmbedResponse, LlmClient, Modalities,
};
use crate::deadline::Deadline;
use crate::error::Result;

/// Limits the concurrent requests of any client to what its [`AdaptiveLimiter`] allows.
///
/// Waiting for a permit spends the request's deadline. A stream holds its permit until it is read to its end or
/// dropped. Put [`Retry`](super::Retry) outside of it, so that each attempt takes its own permit.
#[derive(Debug)]
pub struct AdaptiveConcurrency<C> {
    client: C,
    limiter: AdaptiveLimiter,
    timeout: Duration,
}

impl<C: LlmClient> AdaptiveConcurrency<C> {
    /// Decorates `client`. Clients with clones of one `limiter` share its limit.
    pub fn new(client: C, limiter: AdaptiveLimiter) -> Self {
        Self { client, limiter, timeout: DEFAULT_TIMEOUT }
    }

    /// Sets the deadline of requests without one. Default: 600 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn set_deadline(&self, deadline: &mut Option<Deadline>) -> Deadline {
        *deadline.get_or_insert_with(|| Deadline::after(self.timeout))
    }
}

#[async_trait]
impl<C: LlmClient> LlmClient for AdaptiveConcurrency<C> {
    async fn chat(&self, mut request: ChatRequest) -> Result<ChatResponse> {
        let permit = self.limiter.acquire(self.set_deadline(&mut request.deadline)).await?;
        permit.record(self.client.chat(request).await)
    }

    async fn stream(&self, mut request: ChatRequest) -> Result<ChatStream> {
        let permit = self.limiter.acquire(self.set_deadline(&mut request.deadline)).await?;
        let stream = match self.client.stream(request).await {
            Err(error) => return permit.record(Err(error)),
            Ok(stream) => stream,
        };
        let headers = stream.headers().clone();
        let mut permit = Some(permit);
        let events = stream.map(move |event| {
            let is_last = matches!(event, Err(_) | Ok(ChatEvent::Finished { .. }));
            match permit.take_if(|_| is_last) {
                Some(permit) => permit.record(event),
                None => event,
            }
        });
        Ok(ChatStream::new(events).with_headers(headers))
    }

    async fn embed(&self, mut request: EmbedRequest) -> Result<EmbedResponse> {
        let permit = self.limiter.acquire(self.set_deadline(&mut request.deadline)).await?;
        permit.record(self.client.embed(request).await)
    }

    fn model(&self) -> &str {
        self.client.model()
    }

    fn modalities(&self) -> Modalities {
        self.client.modalities()
    }
}
