//! An answer as it comes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};

use super::assembly::{Assembly, Piece, whole};
use super::compatible::Secrets;
use super::sse::{SseEvent, SseParser};
use super::wire::{self, Chunk};
use super::{ChatResponse, ToolCall, Usage};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpBody;

/// The most bytes of one event. Providers send a few hundred; a tool's whole arguments may come in one.
const MAX_EVENT_BYTES: usize = 2 << 20;

/// How long the end of the body is waited for after the end of the answer. With it the connection can be used again.
const ENDING: Duration = Duration::from_millis(100);

/// One thing that a streamed answer says.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ChatEvent {
    /// More of the text.
    Text(String),
    /// The model begins to ask for a tool; its arguments are still to come.
    ToolCallStarted {
        /// Its place among the answer's tool calls.
        index: usize,
        /// The model's id of the call.
        call_id: String,
        /// The function's name.
        name: String,
    },
    /// A tool call is complete and can be run, while the rest of the answer is still to come.
    ToolCall {
        /// Its place among the answer's tool calls.
        index: usize,
        /// The call; its arguments are a JSON object, or empty.
        call: ToolCall,
    },
    /// A tool call cannot be run.
    ToolCallFailed {
        /// Its place among the answer's tool calls.
        index: usize,
        /// The call as far as it came.
        call: ToolCall,
        /// What is wrong with its arguments.
        problem: ArgumentProblem,
    },
    /// What the answer cost. At most once, before [`Finished`](Self::Finished).
    Usage(Usage),
    /// The answer is complete. The last event.
    Finished {
        /// Why the model stopped, as the provider says: `stop`, `tool_calls`, `length`, …
        reason: String,
    },
}

/// Why a tool call cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentProblem {
    /// The answer ended within the arguments.
    Unfinished,
    /// The arguments are not a JSON object.
    NotAnObject,
}

impl fmt::Display for ArgumentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "the answer ended before the arguments did; ask for less in one answer",
            Self::NotAnObject => "the arguments are not JSON, or not an object",
        })
    }
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for ChatEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::ToolCallStarted { index, name, .. } => write!(f, "ToolCallStarted({index}: {name})"),
            Self::ToolCall { index, call } => write!(f, "ToolCall({index}: {call:?})"),
            Self::ToolCallFailed { index, call, problem } => {
                write!(f, "ToolCallFailed({index}: {call:?}, {problem:?})")
            }
            Self::Usage(usage) => write!(f, "{usage:?}"),
            Self::Finished { reason } => write!(f, "Finished({reason})"),
        }
    }
}

/// An answer as it comes: a stream of [`ChatEvent`]s.
///
/// A complete answer ends with [`ChatEvent::Finished`]; anything else ends with one error, after which there is
/// nothing. Reading is bounded by the request's deadline. Dropping the stream closes the exchange's connection.
#[must_use = "a stream does nothing unless it is read"]
pub struct ChatStream(Option<Pin<Box<dyn Stream<Item = Result<ChatEvent>> + Send>>>);

impl ChatStream {
    /// A stream of `events`, which must end as the type's documentation says: for clients and decorators.
    pub fn new(events: impl Stream<Item = Result<ChatEvent>> + Send + 'static) -> Self {
        Self(Some(Box::pin(events)))
    }

    /// The events of an answer that is all there.
    pub fn whole(response: ChatResponse) -> Self {
        let mut events = VecDeque::new();
        if let Some(text) = response.content.filter(|text| !text.is_empty()) {
            events.push_back(ChatEvent::Text(text));
        }
        events.extend(response.tool_calls.into_iter().enumerate().flat_map(|(n, call)| whole(n, call)));
        if response.usage != Usage::default() {
            events.push_back(ChatEvent::Usage(response.usage));
        }
        let reason = response.finish_reason.unwrap_or_else(|| "stop".to_owned());
        events.push_back(ChatEvent::Finished { reason });
        Self::new(stream::iter(events.into_iter().map(Ok)))
    }

    /// The answer in `body`, read until `deadline`. The provider's own words are kept out of errors where they hold
    /// one of the `secrets`.
    pub(super) fn read(
        component: &'static str,
        body: HttpBody,
        deadline: Deadline,
        secrets: Secrets,
    ) -> Self {
        let (parser, answer) = (SseParser::new(MAX_EVENT_BYTES), Answer::new(component, secrets));
        let reader = Reader { body, parser, deadline, answer };
        Self::new(stream::try_unfold(reader, async |mut reader| {
            Ok(reader.next().await?.map(|event| (event, reader)))
        }))
    }

    /// The next event; nothing once the answer is complete or has failed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`LlmClient::chat`](super::LlmClient::chat), once.
    pub async fn next(&mut self) -> Result<Option<ChatEvent>> {
        StreamExt::next(self).await.transpose()
    }

    /// Reads the whole answer.
    ///
    /// Tool calls that cannot be run are among the response's, as far as they came.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<ChatResponse> {
        let mut response = ChatResponse::tools(Vec::new());
        while let Some(event) = self.next().await? {
            response.add(event);
        }
        Ok(response)
    }
}

impl ChatResponse {
    /// Adds what a streamed answer says.
    pub(crate) fn add(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Text(text) => self.content.get_or_insert_default().push_str(&text),
            ChatEvent::ToolCallStarted { call_id, name, .. } => {
                self.tool_calls.push(ToolCall::new(call_id, name, ""));
            }
            ChatEvent::ToolCall { index, call } | ChatEvent::ToolCallFailed { index, call, .. } => {
                if let Some(started) = self.tool_calls.get_mut(index) {
                    *started = call;
                }
            }
            ChatEvent::Usage(usage) => self.usage = usage,
            ChatEvent::Finished { reason } => self.finish_reason = Some(reason),
        }
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.0 else { return Poll::Ready(None) };
        let next = events.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            // The connection is closed or given back now, however long this value lives.
            self.0 = None;
        }
        next
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChatStream")
    }
}

/// Reads an answer from a body.
struct Reader {
    body: HttpBody,
    parser: SseParser,
    deadline: Deadline,
    answer: Answer,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ChatEvent>> {
        loop {
            if let Some(event) = self.answer.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.answer.is_complete {
                return Ok(None);
            }
            let component = self.answer.component;
            let chunk = self.deadline.run(component, "reading the answer", self.body.chunk()).await??;
            self.take(&chunk.ok_or_else(|| self.answer.cut_short())?)?;
            if self.answer.is_complete {
                self.drain().await;
            }
        }
    }

    fn take(&mut self, chunk: &Bytes) -> Result<()> {
        let (answer, mut taken) = (&mut self.answer, Ok(()));
        self.parser.feed(chunk, |event| {
            if taken.is_ok() {
                taken = answer.take(event);
            }
        })?;
        taken
    }

    /// Reads on to the end of the body, which should be here already.
    async fn drain(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.body.chunk().await {} };
        // A body that does not end costs its connection and nothing else.
        let _ = tokio::time::timeout_at(self.deadline.capped(ENDING).instant(), rest).await;
    }
}

/// What the answer has said so far.
struct Answer {
    component: &'static str,
    secrets: Secrets,
    assembly: Assembly,
    ready: VecDeque<ChatEvent>,
    usage: Option<Usage>,
    finish_reason: Option<String>,
    is_complete: bool,
}

impl Answer {
    fn new(component: &'static str, secrets: Secrets) -> Self {
        Self {
            component,
            secrets,
            assembly: Assembly::new(component),
            ready: VecDeque::new(),
            usage: None,
            finish_reason: None,
            is_complete: false,
        }
    }

    fn take(&mut self, event: SseEvent<'_>) -> Result<()> {
        if self.is_complete {
            return Ok(());
        }
        if event.data == "[DONE]" {
            return self.complete();
        }
        let Chunk { choices, usage, .. } = wire::chunk(self.component, event.data)
            .map_err(|refusal| refusal.into_failure(self.component, &self.secrets).error)?;
        // Some providers count up in every chunk.
        self.usage = usage.map(Usage::from).or(self.usage);
        // One answer was asked for; the first chunk of some providers has none.
        let Some(choice) = choices.into_iter().next() else { return Ok(()) };
        let delta = choice.delta.unwrap_or_default();
        if delta.refusal.is_some_and(|refusal| !refusal.is_empty()) {
            return Err(wire::refused(self.component));
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.ready.push_back(ChatEvent::Text(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let function = call.function.unwrap_or_default();
            let piece = Piece {
                index: call.index,
                id: call.id.as_deref().unwrap_or_default(),
                name: function.name.as_deref().unwrap_or_default(),
                arguments: function.arguments.as_deref().unwrap_or_default(),
            };
            self.assembly.add(&piece, &mut self.ready)?;
        }
        if let Some(reason) = choice.finish_reason {
            if reason == "content_filter" {
                return Err(wire::filtered(self.component));
            }
            self.assembly.finish(&mut self.ready);
            self.finish_reason = Some(reason);
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        let reason = self.finish_reason.take().ok_or_else(|| {
            let message = "the stream ended without saying why the model stopped";
            Error::new(ErrorKind::Protocol, self.component, message)
        })?;
        self.ready.extend(self.usage.map(ChatEvent::Usage));
        self.ready.push_back(ChatEvent::Finished { reason });
        self.is_complete = true;
        Ok(())
    }

    fn cut_short(&self) -> Error {
        let message = "the stream ended before the answer did: [DONE] is missing";
        Error::new(ErrorKind::Transport, self.component, message)
    }
}
