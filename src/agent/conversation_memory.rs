//! The memory of one conversation, read and written within a turn's deadline.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::transcript::{OpenTurn, Transcript, Turn};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::llm::Message;
use crate::memory::{CasOutcome, MemoryInput, MemoryManager, WorkingMemory};
use crate::support::opaque_debug;

/// A conversation in a memory manager.
#[derive(Clone, Copy)]
pub(super) struct ConversationMemory<'a> {
    pub(super) id: &'a str,
    pub(super) memory: &'a dyn MemoryManager,
    /// The agent, for errors.
    pub(super) component: &'static str,
}

impl ConversationMemory<'_> {
    /// The stored memory, if any.
    pub(super) async fn load(&self, deadline: Deadline) -> Result<Option<WorkingMemory>> {
        let input = MemoryInput::working_memory(self.id);
        let found = deadline.run(self.component, "reading memory", self.memory.retrieve(&input)).await??;
        Ok(found.into_iter().next())
    }

    /// Replaces the memory if it still is `stored`; returns whether it was.
    pub(super) async fn replace(
        &self,
        stored: Option<&WorkingMemory>,
        memory: WorkingMemory,
        deadline: Deadline,
    ) -> Result<bool> {
        let input = MemoryInput::working_memory(self.id).with_data(memory);
        let writing = self.memory.compare_and_set(input, stored);
        let outcome = deadline.run(self.component, "writing memory", writing).await??;
        Ok(outcome == CasOutcome::Updated)
    }
}

type Size = Arc<dyn Fn(&str) -> usize + Send + Sync>;
type Condense = Arc<dyn Fn(Option<String>, Vec<Message>) -> BoxFuture<'static, Result<String>> + Send + Sync>;

/// How much of a conversation is kept, and what becomes of the rest.
#[derive(Clone)]
pub(super) struct MemoryBudget {
    pub(super) max: usize,
    pub(super) size: Size,
    pub(super) condense: Option<Condense>,
}

impl MemoryBudget {
    pub(super) fn bytes(max: usize) -> Self {
        Self { max, size: Arc::new(str::len), condense: None }
    }

    /// Removes what exceeds the budget, and condenses it into the summary.
    async fn apply(&self, transcript: &mut Transcript) {
        let removed = transcript.shrink_to(self.max, &*self.size);
        let Some(condense) = self.condense.as_ref().filter(|_| !removed.is_empty()) else { return };
        let load = |mut turn: Turn| {
            turn.load();
            turn.messages
        };
        let messages = removed.into_iter().flat_map(load).collect();
        match condense(transcript.summary.clone(), messages).await {
            Ok(summary) => transcript.summary = Some(summary),
            Err(error) => {
                tracing::warn!("failed to condense a conversation; its oldest turns are lost: {error}")
            }
        }
    }
}

opaque_debug!(MemoryBudget { max });

/// The turn under way as memory has it. It is written when the turn begins and after each round of tools, marked as
/// unfinished, so that a turn that fails or is dropped, or whose process ends, leaves what was said up to there.
pub(super) struct TurnRecord<'a> {
    conversation: ConversationMemory<'a>,
    budget: &'a MemoryBudget,
    turn: OpenTurn,
    /// It has been written, so that where it is missing it was removed.
    written: bool,
    /// What it wrote last.
    last: Option<(WorkingMemory, Transcript)>,
}

impl<'a> TurnRecord<'a> {
    /// Writes the turn that begins with `question`. Returns it, and the conversation before it.
    pub(super) async fn begin(
        conversation: ConversationMemory<'a>,
        budget: &'a MemoryBudget,
        question: &Message,
        deadline: Deadline,
    ) -> (Self, Result<Transcript>) {
        let mut record =
            Self { conversation, budget, turn: OpenTurn::new(question), written: false, last: None };
        let before = record.write(deadline).await;
        (record, before)
    }

    /// Adds messages of a turn that goes on.
    pub(super) async fn add(&mut self, messages: &[Message], deadline: Deadline) -> Result<()> {
        self.turn.extend(messages);
        // Memory that failed once is not waited for again before the end.
        if self.written { self.write(deadline).await.map(drop) } else { Ok(()) }
    }

    /// Writes the end of the turn: its answer, or the part of it that there is.
    pub(super) async fn end(
        &mut self,
        answer: Option<Message>,
        finished: bool,
        deadline: Deadline,
    ) -> Result<()> {
        self.turn.extend(answer.as_slice());
        self.turn.unfinished = !finished;
        self.write(deadline).await.map(drop)
    }

    /// Merges the turn into the conversation as it wrote it last, or as it is now if another writer was faster. Returns
    /// the conversation without this turn when it is written for the first time.
    async fn write(&mut self, deadline: Deadline) -> Result<Transcript> {
        loop {
            let (stored, mut transcript) = match self.last.take() {
                Some((memory, transcript)) => (Some(memory), transcript),
                None => match self.conversation.load(deadline).await? {
                    Some(memory) => {
                        let transcript = Transcript::parse(&memory);
                        (Some(memory), transcript)
                    }
                    // It was deleted, and stays deleted.
                    None if self.written => return Ok(Transcript::default()),
                    None => (None, Transcript::parse(&WorkingMemory::initialize_memory())),
                },
            };
            let mut before = Transcript::default();
            match transcript.turns.iter_mut().find(|turn| turn.id == self.turn.id) {
                Some(turn) => *turn = self.turn.written(),
                // It was removed as the oldest.
                None if self.written => return Ok(before),
                None => {
                    before = transcript.take_messages();
                    transcript.turns.push(self.turn.written());
                }
            }
            let condensing = self.budget.apply(&mut transcript);
            deadline.run(self.conversation.component, "condensing the conversation", condensing).await?;
            let memory = transcript.to_memory();
            if self.conversation.replace(stored.as_ref(), memory.clone(), deadline).await? {
                self.written = true;
                self.last = Some((memory, transcript));
                return Ok(before);
            }
        }
    }
}
