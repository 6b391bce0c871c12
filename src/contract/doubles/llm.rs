//! A model that answers from a script.

use std::collections::VecDeque;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, ChatResponse, ChatStream, EmbedRequest, EmbedResponse, LlmClient, Usage};

/// A model that gives its answers in order and keeps the requests it was sent. With no answer left it fails with
/// [`ErrorKind::Unavailable`].
///
/// A streamed answer is the next of its [streams](Self::streaming), or, with none left, the next of its whole answers.
/// Its embeddings are the numbers of bytes of the texts.
///
/// ```
/// use arshai::contract::doubles::ScriptedLlm;
/// use arshai::llm::{ChatRequest, ChatResponse, LlmClient, Message};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let model = ScriptedLlm::new([Ok(ChatResponse::text("hello"))]);
/// let answer = model.chat(ChatRequest::new(vec![Message::user("hi")])).await?;
/// assert_eq!(answer.content.as_deref(), Some("hello"));
/// assert_eq!(model.requests().len(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct ScriptedLlm {
    answers: Mutex<VecDeque<Result<ChatResponse>>>,
    streams: Mutex<VecDeque<ChatStream>>,
    requests: Mutex<Vec<ChatRequest>>,
}

impl ScriptedLlm {
    /// A model that will answer with `answers`, in order.
    pub fn new(answers: impl IntoIterator<Item = Result<ChatResponse>>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    /// Streams these answers, in order, where it is asked to stream.
    #[must_use]
    pub fn streaming(mut self, streams: impl IntoIterator<Item = ChatStream>) -> Self {
        self.streams.get_mut().extend(streams);
        self
    }

    /// The requests it was sent so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().clone()
    }
}

#[async_trait]
impl LlmClient for ScriptedLlm {
    async fn chat(&self, request: ChatRequest) -> Result<ChatResponse> {
        self.requests.lock().push(request);
        let none =
            || Err(Error::new(ErrorKind::Unavailable, "scripted_llm", "the script has no answer left"));
        self.answers.lock().pop_front().unwrap_or_else(none)
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream> {
        let next = self.streams.lock().pop_front();
        match next {
            Some(stream) => {
                self.requests.lock().push(request);
                Ok(stream)
            }
            None => Ok(ChatStream::whole(self.chat(request).await?)),
        }
    }

    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse> {
        let embeddings = request.inputs.iter().map(|text| vec![text.len() as f32]).collect();
        Ok(EmbedResponse::new(embeddings, Usage::default()))
    }

    fn model(&self) -> &str {
        "scripted"
    }
}
