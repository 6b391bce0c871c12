//! Agents, which answer a user's messages.
//!
//! [`ChatAgent`] runs a whole turn: it loads memory, calls the model, runs the tools it asks for, and saves memory.
//! [`WorkingMemoryAgent`] lets a model rewrite a conversation's working memory. For anything else, implement [`Agent`].

mod chat;
mod conversation_memory;
mod results;
mod stream;
mod tool_runner;
mod transcript;
mod turn;
mod working_memory;

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::llm::Attachment;

pub use chat::{AgentOutput, ChatAgent};
pub use stream::{AgentEvent, AgentStream};
pub use working_memory::WorkingMemoryAgent;

/// The input of an agent (Python: `IAgentInput`).
#[doc(alias = "IAgentInput")]
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct AgentInput {
    /// The user's message.
    pub message: String,
    /// Images and files.
    pub attachments: Vec<Attachment>,
    /// Context for the agent; `conversation_id` by convention.
    pub metadata: Map<String, Value>,
}

impl AgentInput {
    /// A message without metadata.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Attaches an image or a file.
    #[must_use]
    pub fn with_attachment(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }

    /// Sets the conversation the message belongs to.
    #[must_use]
    pub fn in_conversation(mut self, conversation_id: impl Into<String>) -> Self {
        self.metadata.insert("conversation_id".into(), Value::String(conversation_id.into()));
        self
    }

    /// The conversation the message belongs to, if any.
    #[must_use]
    pub fn conversation_id(&self) -> Option<&str> {
        self.metadata.get("conversation_id").and_then(Value::as_str)
    }
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for AgentInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentInput")
            .field("message_bytes", &self.message.len())
            .field("attachments", &self.attachments)
            .field("metadata_keys", &self.metadata.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Answers messages (Python: `IAgent`), with an answer of any type.
///
/// Dropping the future of [`process`](Self::process) cancels the work in progress. What was stored in memory stays, and
/// background tasks that were started continue.
#[doc(alias = "IAgent")]
#[async_trait]
pub trait Agent: Send + Sync {
    /// The answer.
    type Output: Send;

    /// Answers one message.
    ///
    /// # Errors
    /// Errors of its model, memory or tools.
    async fn process(&self, input: AgentInput) -> Result<Self::Output>;
}
