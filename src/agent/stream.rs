//! Events of a turn.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::AgentOutput;
use crate::error::Result;
use crate::support::opaque_debug;
use crate::tasks::FunctionOutcome;

/// Maximum number of unread events; the turn waits when it is reached.
const EVENT_BUFFER: usize = 16;

/// One event of a turn.
#[derive(Clone)]
#[non_exhaustive]
pub enum AgentEvent {
    /// More of the model's text.
    Text(String),
    /// A tool was started, perhaps in the background.
    ToolStarted {
        /// The model's id of the call.
        call_id: String,
        /// The function's name.
        name: String,
    },
    /// A regular tool ended, perhaps while the model still streams, or a call could not be run.
    ToolEnded {
        /// The model's id of the call.
        call_id: Option<String>,
        /// The function's name.
        name: String,
        /// The error, if it failed.
        error: Option<String>,
    },
    /// The turn is complete and saved in memory. The last event.
    Finished(AgentOutput),
}

impl AgentEvent {
    /// The end of a regular call; a background call has only started.
    pub(super) fn from_outcome(outcome: &FunctionOutcome) -> Option<Self> {
        let (call_id, name, error) = match outcome {
            FunctionOutcome::Completed(done) => (&done.call_id, &done.name, None),
            FunctionOutcome::Failed(failed) => (&failed.call_id, &failed.name, Some(failed.error.clone())),
            FunctionOutcome::Initiated(_) => return None,
        };
        Some(Self::ToolEnded { call_id: call_id.clone(), name: name.clone(), error })
    }
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for AgentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::ToolStarted { name, .. } => write!(f, "ToolStarted({name})"),
            Self::ToolEnded { name, error, .. } => {
                write!(f, "ToolEnded({name}, {})", if error.is_some() { "failed" } else { "done" })
            }
            Self::Finished(output) => write!(f, "Finished({output:?})"),
        }
    }
}

/// A turn in progress: a stream of [`AgentEvent`]s.
///
/// A turn that succeeds ends with [`AgentEvent::Finished`], any other with one error. Dropping the stream cancels the
/// model call and the running tools; background tasks run on.
#[must_use = "a turn does nothing unless its stream is read"]
pub struct AgentStream {
    /// Polled while the stream is read, so that it is dropped with it.
    turn: Option<Pin<Box<dyn Future<Output = Result<AgentOutput>> + Send>>>,
    events: mpsc::Receiver<AgentEvent>,
    last: Option<Result<AgentEvent>>,
}

impl AgentStream {
    /// The events of `turn`.
    pub(super) fn new<F>(turn: impl FnOnce(EventSender) -> F) -> Self
    where
        F: Future<Output = Result<AgentOutput>> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(EVENT_BUFFER);
        Self { turn: Some(Box::pin(turn(EventSender(sender)))), events, last: None }
    }

    /// The next event; `None` once the turn is over. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The error of the turn, once.
    pub async fn next(&mut self) -> Result<Option<AgentEvent>> {
        StreamExt::next(self).await.transpose()
    }
}

impl Stream for AgentStream {
    type Item = Result<AgentEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Ok(event) = this.events.try_recv() {
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some(turn) = &mut this.turn
            && let Poll::Ready(output) = turn.as_mut().poll(cx)
        {
            this.turn = None;
            this.last = Some(output.map(AgentEvent::Finished));
        }
        // Events sent by the last poll precede the end.
        match this.events.try_recv() {
            Ok(event) => Poll::Ready(Some(Ok(event))),
            Err(_) if this.turn.is_some() => Poll::Pending,
            Err(_) => Poll::Ready(this.last.take()),
        }
    }
}

opaque_debug!(AgentStream {});

/// Sends the events of a turn to its stream.
pub(super) struct EventSender(mpsc::Sender<AgentEvent>);

impl EventSender {
    pub(super) async fn send(&self, event: AgentEvent) {
        // The receiver lives as long as the turn, which it polls.
        let _ = self.0.send(event).await;
    }
}
