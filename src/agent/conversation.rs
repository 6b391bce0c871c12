//! One conversation's working memory, as the agents read and write it within a turn's deadline.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::memory::{MemoryInput, MemoryManager, WorkingMemory};

/// A conversation and where it is remembered.
pub(super) struct Conversation<'a> {
    pub(super) id: &'a str,
    pub(super) memory: &'a dyn MemoryManager,
    /// The agent, for errors.
    pub(super) component: &'static str,
}

impl Conversation<'_> {
    /// What is remembered, or nothing yet.
    pub(super) async fn recall(&self, deadline: Deadline) -> Result<Option<WorkingMemory>> {
        let input = MemoryInput::working_memory(self.id);
        let found = deadline.run(self.component, "reading memory", self.memory.retrieve(&input)).await??;
        Ok(found.into_iter().next())
    }

    /// Writes what is to be remembered. A memory that existed is updated, so that one deleted meanwhile stays
    /// deleted.
    pub(super) async fn keep(&self, memory: WorkingMemory, existed: bool, deadline: Deadline) -> Result<()> {
        let input = MemoryInput::working_memory(self.id).with_data(memory);
        let keeping = async {
            match existed {
                true => self.memory.update(input).await,
                false => self.memory.store(input).await.map(drop),
            }
        };
        deadline.run(self.component, "writing memory", keeping).await?
    }
}
