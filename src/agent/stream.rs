//! A turn as it happens.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::AgentOutput;
use crate::error::Result;
use crate::tasks::FunctionOutcome;

/// Events that may wait to be read; the turn waits beyond that.
const WAITING: usize = 16;

/// One thing that happens in a turn.
#[derive(Clone)]
#[non_exhaustive]
pub enum AgentEvent {
    /// More of what the model says.
    Text(String),
    /// A tool was started, perhaps in the background.
    ToolStarted {
        /// The model's id of the call.
        call_id: String,
        /// The function's name.
        name: String,
    },
    /// A regular tool ended, perhaps while the model still streams, or a call could not be made.
    ToolEnded {
        /// The model's id of the call.
        call_id: Option<String>,
        /// The function's name.
        name: String,
        /// What went wrong, if anything did.
        error: Option<String>,
    },
    /// The turn is over and remembered. The last event.
    Finished(AgentOutput),
}

impl AgentEvent {
    /// The end of a call; one in the background has only begun.
    pub(super) fn of_outcome(outcome: &FunctionOutcome) -> Option<Self> {
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

/// A turn as it happens: a stream of [`AgentEvent`]s.
///
/// A turn that succeeds ends with [`AgentEvent::Finished`], any other with one error. Dropping the stream cancels the
/// exchange with the model and the running tools; background tasks run on.
#[must_use = "a turn does nothing unless its stream is read"]
pub struct AgentStream {
    /// Runs within the reading of the stream, so that it ends with it.
    turn: Option<Pin<Box<dyn Future<Output = Result<AgentOutput>> + Send>>>,
    events: mpsc::Receiver<AgentEvent>,
    last: Option<Result<AgentEvent>>,
}

impl AgentStream {
    /// The stream of what `turn` does.
    pub(super) fn new<F>(turn: impl FnOnce(Events) -> F) -> Self
    where
        F: Future<Output = Result<AgentOutput>> + Send + 'static,
    {
        let (sender, events) = mpsc::channel(WAITING);
        Self { turn: Some(Box::pin(turn(Events(sender)))), events, last: None }
    }

    /// The next event; nothing once the turn is over. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What the turn failed with, once.
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
        // What the turn has just said comes before its end.
        match this.events.try_recv() {
            Ok(event) => Poll::Ready(Some(Ok(event))),
            Err(_) if this.turn.is_some() => Poll::Pending,
            Err(_) => Poll::Ready(this.last.take()),
        }
    }
}

impl fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentStream")
    }
}

/// Where a turn tells what happens.
pub(super) struct Events(mpsc::Sender<AgentEvent>);

impl Events {
    pub(super) async fn send(&self, event: AgentEvent) {
        // The receiver lives as long as the turn: it is what drives it.
        let _ = self.0.send(event).await;
    }
}
