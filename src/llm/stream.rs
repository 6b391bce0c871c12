//! A response as it arrives.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::HeaderMap;
use serde_json::{Map, Value};

use super::secrets::Secrets;
use super::sse::SseParser;
use super::tool_call_assembler::complete_call_events;
use super::wire::StreamState;
use super::{ChatResponse, ToolCall, Usage};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::http::HttpBody;
use crate::support::opaque_debug;

/// Maximum size in bytes of one event. Providers send a few hundred; all arguments of a tool call may come in one.
const MAX_EVENT_BYTES: usize = 2 << 20;

/// Timeout for the end of the body after the end of the response. With it the connection can be reused.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// One event of a streamed response.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum ChatEvent {
    /// More of the text.
    Text(String),
    /// More of the reasoning text that precedes the response, where the provider sends it.
    Reasoning(String),
    /// A tool call begins; its arguments follow.
    ToolCallStarted {
        /// Its index among the response's tool calls.
        index: usize,
        /// The model's id of the call.
        call_id: String,
        /// The function's name.
        name: String,
    },
    /// A tool call is complete and can be run while the response goes on.
    ToolCall {
        /// Its index among the response's tool calls.
        index: usize,
        /// The call; its arguments are a JSON object, or empty.
        call: ToolCall,
    },
    /// A tool call that cannot be run.
    ToolCallFailed {
        /// Its index among the response's tool calls.
        index: usize,
        /// The call as far as it was received.
        call: ToolCall,
        /// The error in its arguments.
        error: ArgumentError,
    },
    /// Fields without a name here: [`ChatResponse::message_extra`] and [`ChatResponse::extra`]. At most once, near the
    /// end.
    ExtraFields {
        /// Fields of the message, reasoning text included.
        message: Map<String, Value>,
        /// Fields of the response.
        response: Map<String, Value>,
    },
    /// Token counts. At most once, before [`Finished`](Self::Finished).
    Usage(Usage),
    /// The response is complete. The last event.
    Finished {
        /// Why the model stopped, as reported by the provider: `stop`, `tool_calls`, `length`, …
        reason: String,
    },
}

/// Why a tool call cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentError {
    /// The response ended inside the arguments.
    Truncated,
    /// The arguments are not a JSON object.
    NotAnObject,
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "response truncated inside the arguments; request less per response",
            Self::NotAnObject => "arguments are not a JSON object",
        })
    }
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for ChatEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Reasoning(text) => write!(f, "Reasoning({} bytes)", text.len()),
            Self::ToolCallStarted { index, name, .. } => write!(f, "ToolCallStarted({index}: {name})"),
            Self::ToolCall { index, call } => write!(f, "ToolCall({index}: {call:?})"),
            Self::ToolCallFailed { index, call, error } => {
                write!(f, "ToolCallFailed({index}: {call:?}, {error:?})")
            }
            Self::ExtraFields { message, response } => {
                let names = (message.keys().collect::<Vec<_>>(), response.keys().collect::<Vec<_>>());
                write!(f, "ExtraFields{names:?}")
            }
            Self::Usage(usage) => write!(f, "{usage:?}"),
            Self::Finished { reason } => write!(f, "Finished({reason})"),
        }
    }
}

/// A response as it arrives: a stream of [`ChatEvent`]s.
///
/// A complete response ends with [`ChatEvent::Finished`]; any other ends with one error, after the events received
/// before it. Reading is bounded by the request's deadline. Dropping the stream closes the request's connection.
#[must_use = "a stream does nothing unless it is read"]
pub struct ChatStream {
    events: Option<Pin<Box<dyn Stream<Item = Result<ChatEvent>> + Send>>>,
    headers: HeaderMap,
}

impl ChatStream {
    /// A stream of `events`, which must end as the type's documentation says: for clients and decorators.
    pub fn new(events: impl Stream<Item = Result<ChatEvent>> + Send + 'static) -> Self {
        Self { events: Some(Box::pin(events)), headers: HeaderMap::new() }
    }

    /// Sets the headers of the HTTP response.
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Headers of the HTTP response; rate limits and request ids are there.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The events of a complete response.
    pub fn from_response(response: ChatResponse) -> Self {
        let mut events = VecDeque::new();
        events.extend(response.reasoning().map(|text| ChatEvent::Reasoning(text.to_owned())));
        events.extend(response.content.filter(|text| !text.is_empty()).map(ChatEvent::Text));
        let has_tool_calls = !response.tool_calls.is_empty();
        let calls = response.tool_calls.into_iter().enumerate();
        events.extend(calls.flat_map(|(index, call)| complete_call_events(index, call)));
        let (message, extra) = (response.message_extra, response.extra);
        if !message.is_empty() || !extra.is_empty() {
            events.push_back(ChatEvent::ExtraFields { message, response: extra });
        }
        if response.usage != Usage::default() {
            events.push_back(ChatEvent::Usage(response.usage));
        }
        let default_reason = if has_tool_calls { "tool_calls" } else { "stop" };
        let reason = response.finish_reason.unwrap_or_else(|| default_reason.to_owned());
        events.push_back(ChatEvent::Finished { reason });
        Self::new(stream::iter(events.into_iter().map(Ok))).with_headers(response.headers)
    }

    /// The response in `body`, read until `deadline`. Errors do not repeat a provider's message that holds one of the
    /// `secrets`.
    pub(super) fn from_body(
        component: &'static str,
        body: HttpBody,
        deadline: Deadline,
        secrets: Secrets,
    ) -> Self {
        let parser = SseParser::new(MAX_EVENT_BYTES);
        let state = StreamState::new(component, secrets);
        let reader = SseResponseReader { component, body, parser, deadline, state, failure: None };
        Self::new(stream::try_unfold(reader, async |mut reader| {
            Ok(reader.next().await?.map(|event| (event, reader)))
        }))
    }

    /// The next event; `None` once the response is complete or has failed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`LlmClient::chat`](super::LlmClient::chat), once.
    pub async fn next(&mut self) -> Result<Option<ChatEvent>> {
        StreamExt::next(self).await.transpose()
    }

    /// Reads the complete response.
    ///
    /// Tool calls that cannot be run are among the response's, as far as they were received.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<ChatResponse> {
        let mut response =
            ChatResponse { headers: std::mem::take(&mut self.headers), ..ChatResponse::default() };
        while let Some(event) = self.next().await? {
            response.apply_event(event);
        }
        Ok(response)
    }
}

impl Stream for ChatStream {
    type Item = Result<ChatEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let next = events.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            // Closes or returns the connection now, however long this value lives.
            self.events = None;
        }
        next
    }
}

opaque_debug!(ChatStream {});

/// Reads a response from server-sent events.
struct SseResponseReader {
    component: &'static str,
    body: HttpBody,
    parser: SseParser,
    deadline: Deadline,
    state: StreamState,
    /// Returned after the events that were received before it.
    failure: Option<Error>,
}

impl SseResponseReader {
    async fn next(&mut self) -> Result<Option<ChatEvent>> {
        loop {
            if let Some(event) = self.state.pending_events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if self.state.is_complete {
                return Ok(None);
            }
            let chunk =
                self.deadline.run(self.component, "reading the response", self.body.chunk()).await??;
            let fed = match chunk {
                Some(chunk) => self.feed(&chunk),
                None => self.state.end_of_body(),
            };
            self.failure = fed.err();
            if self.state.is_complete {
                self.drain().await;
            }
        }
    }

    fn feed(&mut self, chunk: &Bytes) -> Result<()> {
        let (state, mut result) = (&mut self.state, Ok(()));
        self.parser.feed(chunk, |data| {
            if result.is_ok() {
                result = state.feed(data);
            }
        })?;
        result
    }

    /// Reads on to the end of the body, which should have been received already.
    async fn drain(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.body.chunk().await {} };
        // A body that does not end costs its connection and nothing else.
        let _ = tokio::time::timeout_at(self.deadline.capped(DRAIN_TIMEOUT).instant(), rest).await;
    }
}
