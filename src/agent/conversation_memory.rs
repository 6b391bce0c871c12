//! The working memory of one conversation, read and written within a turn's deadline.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::memory::{MemoryInput, MemoryManager, WorkingMemory};

/// A conversation in a memory manager.
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

    /// Stores `memory`. One that existed is updated, so that one deleted meanwhile stays deleted.
    pub(super) async fn save(&self, memory: WorkingMemory, existed: bool, deadline: Deadline) -> Result<()> {
        let input = MemoryInput::working_memory(self.id).with_data(memory);
        let saving = async {
            match existed {
                true => self.memory.update(input).await,
                false => self.memory.store(input).await.map(drop),
            }
        };
        deadline.run(self.component, "writing memory", saving).await?
    }
}
