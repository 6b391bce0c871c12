//! A model with scripted responses.

use std::collections::VecDeque;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::llm::{
    ChatRequest, ChatResponse, ChatStream, EmbedRequest, EmbedResponse, LlmClient, Modalities, Usage,
};

/// A model that returns its responses in order and records the requests. With no response left it fails with
/// [`ErrorKind::Unavailable`].
///
/// A streamed response is the next of its [streams](Self::with_streams), or, with none left, the next of its complete
/// responses. Its embeddings are the lengths of the inputs in bytes.
///
/// ```
/// use arshai::contract::doubles::ScriptedLlm;
/// use arshai::llm::{ChatRequest, ChatResponse, LlmClient, Message};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let model = ScriptedLlm::new([Ok(ChatResponse::from_text("hello"))]);
/// let answer = model.chat(ChatRequest::new(vec![Message::user("hi")])).await?;
/// assert_eq!(answer.content.as_deref(), Some("hello"));
/// assert_eq!(model.requests().len(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct ScriptedLlm {
    responses: Mutex<VecDeque<Result<ChatResponse>>>,
    streams: Mutex<VecDeque<ChatStream>>,
    requests: Mutex<Vec<ChatRequest>>,
    modalities: Modalities,
}

impl ScriptedLlm {
    /// A model with these responses, in order.
    pub fn new(responses: impl IntoIterator<Item = Result<ChatResponse>>) -> Self {
        Self { responses: Mutex::new(responses.into_iter().collect()), ..Self::default() }
    }

    /// Adds streamed responses, in order.
    #[must_use]
    pub fn with_streams(mut self, streams: impl IntoIterator<Item = ChatStream>) -> Self {
        self.streams.get_mut().extend(streams);
        self
    }

    /// Sets what the model takes besides text. Default: nothing.
    #[must_use]
    pub fn with_modalities(mut self, modalities: Modalities) -> Self {
        self.modalities = modalities;
        self
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().clone()
    }
}

#[async_trait]
impl LlmClient for ScriptedLlm {
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        self.requests.lock().push(request);
        let none = || Err(Error::new(ErrorKind::Unavailable, "scripted_llm", "no scripted response left"));
        self.responses.lock().pop_front().unwrap_or_else(none)
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let next = self.streams.lock().pop_front();
        match next {
            Some(stream) => {
                self.requests.lock().push(request);
                Ok(stream)
            }
            None => Ok(ChatStream::from_response(self.chat(request).await?)),
        }
    }

    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse> {
        let embeddings = request.inputs.iter().map(|input| vec![input.len() as f32]).collect();
        Ok(EmbedResponse::new(embeddings, Usage::default()))
    }

    fn model(&self) -> &str {
        "scripted"
    }

    fn modalities(&self) -> Modalities {
        self.modalities
    }
}
