//! An agent that lets a model rewrite a conversation's working memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::conversation_memory::ConversationMemory;
use super::transcript::Transcript;
use super::{Agent, AgentInput};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, LlmClient, Message};
use crate::memory::{MemoryManager, WorkingMemory};

const COMPONENT: &str = "agent.working_memory";

const SYSTEM_PROMPT: &str = "You keep the working memory of a conversation: a short text that lets an assistant go \
on with the conversation without having read it.\n\n\
You are given the memory so far and what has happened since. Write the new memory. Keep its four sections (USER \
CONTEXT, CONVERSATION FLOW, CURRENT FOCUS, INTERACTION TONE), each under its heading. Keep facts, decisions, names, \
numbers and open questions; drop small talk and what is no longer true. Say everything once, as briefly as it can be \
understood. Answer with the memory alone.";

/// Maintains the working memory of conversations (Python: `WorkingMemoryAgent`): a model reads the current memory and the
/// new interaction, and rewrites the memory.
///
/// The input's message is the interaction; its metadata must hold the `conversation_id`. One deadline spans reading,
/// the model call and writing. Dropping the future leaves the memory unchanged, or completely rewritten.
#[derive(Debug)]
pub struct WorkingMemoryAgent {
    llm: Arc<dyn LlmClient>,
    memory: Arc<dyn MemoryManager>,
    system_prompt: String,
    timeout: Duration,
}

impl WorkingMemoryAgent {
    /// An agent that writes into `memory`.
    pub fn new(llm: Arc<dyn LlmClient>, memory: Arc<dyn MemoryManager>) -> Self {
        Self { llm, memory, system_prompt: SYSTEM_PROMPT.to_owned(), timeout: Duration::from_secs(60) }
    }

    /// Replaces the instructions to the model.
    #[must_use]
    pub fn with_system_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.system_prompt = prompt.into();
        self
    }

    /// Sets the deadline of a whole rewrite. Default: 60 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

#[async_trait]
impl Agent for WorkingMemoryAgent {
    /// The stored memory.
    type Output = WorkingMemory;

    async fn process(&self, input: AgentInput) -> Result<WorkingMemory> {
        let deadline = Deadline::after(self.timeout);
        let id = input.conversation_id().ok_or_else(|| {
            let message = "missing conversation_id in the input's metadata";
            Error::new(ErrorKind::InvalidInput, COMPONENT, message)
        })?;
        let conversation = ConversationMemory { id, memory: self.memory.as_ref(), component: COMPONENT };
        let earlier = conversation.load(deadline).await?;
        let exists = earlier.is_some();
        let earlier = Transcript::parse(&earlier.unwrap_or_else(WorkingMemory::initialize_memory));

        let question =
            format!("Memory so far:\n{}\n\nWhat happened since:\n{}", earlier.notes, input.message);
        let messages = vec![Message::system(self.system_prompt.clone()), Message::user(question)];
        let answer = self.llm.chat(ChatRequest::new(messages).with_deadline(Some(deadline))).await?;
        let text =
            answer.content.as_deref().map(str::trim).filter(|text| !text.is_empty()).ok_or_else(|| {
                Error::new(
                    ErrorKind::Protocol,
                    COMPONENT,
                    "the model returned an empty memory; the stored one is unchanged",
                )
            })?;

        // The messages that a chat agent keeps beside the notes stay as they are.
        let memory = WorkingMemory::from(text);
        loop {
            let stored = conversation.load(deadline).await?;
            // One that was deleted meanwhile stays deleted.
            if exists && stored.is_none() {
                return Ok(memory);
            }
            let mut transcript = stored.as_ref().map(Transcript::parse).unwrap_or_default();
            text.clone_into(&mut transcript.notes);
            if conversation.replace(stored.as_ref(), transcript.to_memory(), deadline).await? {
                return Ok(memory);
            }
        }
    }
}
