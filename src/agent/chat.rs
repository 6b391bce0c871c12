//! The agent that chats: memory, model, tools, memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::conversation::Conversation;
use super::exchange::{Toolbox, answers};
use super::stream::{AgentStream, Events};
use super::transcript::remember;
use super::{Agent, AgentInput};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, LlmClient, Message, Usage};
use crate::memory::{MemoryManager, WorkingMemory};
use crate::tasks::{FunctionExecutionResult, Functions, StreamingExecutionState, TaskExecutor};

const COMPONENT: &str = "agent.chat";

/// Answers messages with a model that may use tools, and remembers the conversation.
///
/// A turn reads the conversation's working memory, asks the model, runs the tools it asks for through the executor
/// and asks again with their results, at most `max_turns` times, and adds the exchange to the working memory. Every
/// tool call is answered by exactly one tool message, failures included: the model learns what went wrong.
///
/// One deadline spans the turn: model, tools and memory spend it. Memory that fails does not lose the answer; it is
/// logged and said in [`AgentOutput::memory_error`].
///
/// Dropping the future of [`process`](Agent::process) cancels the exchange with the model and the running tools.
/// Background tasks that were started run on; memory is as it was. Cloning is cheap, but for the system prompt.
#[derive(Clone)]
pub struct ChatAgent {
    llm: Arc<dyn LlmClient>,
    tasks: Arc<dyn TaskExecutor>,
    memory: Option<Arc<dyn MemoryManager>>,
    system_prompt: String,
    functions: Functions,
    background_tasks: Functions,
    max_turns: usize,
    timeout: Duration,
    max_memory_bytes: usize,
}

/// What a [`ChatAgent`] answers with.
#[derive(Clone)]
#[non_exhaustive]
pub struct AgentOutput {
    /// The answer.
    pub text: String,
    /// Tokens of all exchanges of the turn.
    pub usage: Usage,
    /// Exchanges with the model.
    pub turns: usize,
    /// What became of the tool calls, one entry per exchange that asked for any; their indices count the model's calls.
    pub tool_results: Vec<FunctionExecutionResult>,
    /// Why the conversation could not be read or remembered, if so.
    pub memory_error: Option<String>,
}

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for AgentOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentOutput")
            .field("text_bytes", &self.text.len())
            .field("usage", &self.usage)
            .field("turns", &self.turns)
            .field("memory_error", &self.memory_error)
            .finish_non_exhaustive()
    }
}

impl ChatAgent {
    /// An agent without tools and memory.
    pub fn new(
        llm: Arc<dyn LlmClient>,
        tasks: Arc<dyn TaskExecutor>,
        system_prompt: impl Into<String>,
    ) -> Self {
        Self {
            llm,
            tasks,
            memory: None,
            system_prompt: system_prompt.into(),
            functions: Functions::new(),
            background_tasks: Functions::new(),
            max_turns: 10,
            timeout: Duration::from_secs(120),
            max_memory_bytes: 8 * 1024,
        }
    }

    /// Remembers conversations in `memory`, by the input's `conversation_id`.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn MemoryManager>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Offers the model these functions (Python: `regular_functions`).
    #[must_use]
    pub fn with_functions(mut self, functions: Functions) -> Self {
        self.functions = functions;
        self
    }

    /// Offers the model these functions to start in the background. A name that is also a regular function's means
    /// the regular one.
    #[must_use]
    pub fn with_background_tasks(mut self, tasks: Functions) -> Self {
        self.background_tasks = tasks;
        self
    }

    /// Sets how often the model may be asked in one turn. Default: 10, as in Python.
    #[must_use]
    pub fn with_max_turns(mut self, max: usize) -> Self {
        self.max_turns = max.max(1);
        self
    }

    /// Sets the deadline of a whole turn. Default: 120 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many bytes of past exchanges are remembered; the oldest are forgotten first. Default: 8 KiB.
    #[must_use]
    pub fn with_max_memory_bytes(mut self, max: usize) -> Self {
        self.max_memory_bytes = max;
        self
    }

    /// Answers one message; the same as [`process`](Agent::process).
    ///
    /// # Errors
    /// As [`process`](Agent::process).
    pub async fn chat(&self, input: AgentInput) -> Result<AgentOutput> {
        self.process(input).await
    }

    /// Answers one message as the answer comes.
    ///
    /// A tool call starts the moment its arguments are complete, while the model is still streaming, unless its
    /// function [waits for the end of the turn](crate::tasks::Function::waiting_for_turn_end). No call id runs twice
    /// within the turn. Where the model's stream ends badly, regular calls that were started are cancelled and the
    /// error's context `tools_started` names them.
    ///
    /// Nothing happens until the stream is read, and reading drives it: a reader who pauses holds up the model, but
    /// not the tools that run, nor the deadline. Dropping it is dropping the future of [`process`](Agent::process).
    pub fn stream(&self, input: AgentInput) -> AgentStream {
        let agent = self.clone();
        let span = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent");
        AgentStream::new(|events| async move { agent.turn(input, Some(&events)).await }.instrument(span))
    }

    /// One turn: memory, model and tools, memory.
    async fn turn(&self, input: AgentInput, events: Option<&Events>) -> Result<AgentOutput> {
        let deadline = Deadline::after(self.timeout);
        let conversation = match (&self.memory, input.conversation_id()) {
            (Some(memory), Some(id)) => {
                Some(Conversation { id, memory: memory.as_ref(), component: COMPONENT })
            }
            _ => None,
        };
        let recalled = match &conversation {
            Some(conversation) => conversation.recall(deadline).await,
            None => Ok(None),
        };
        let mut system = self.system_prompt.clone();
        if let Ok(Some(memory)) = &recalled {
            system.push_str("\n\nWhat you remember of this conversation:\n");
            system.push_str(memory.as_str());
        }
        let question =
            Message::User { content: input.message.clone(), attachments: input.attachments.clone() };
        let mut output = self.converse(vec![Message::system(system), question], deadline, events).await?;
        let kept = match (&conversation, recalled) {
            (Some(conversation), Ok(earlier)) => {
                let existed = earlier.is_some();
                let earlier = earlier.unwrap_or_else(WorkingMemory::initialize_memory);
                let memory = remember(&earlier, &input.message, &output.text, self.max_memory_bytes);
                conversation.keep(memory, existed, deadline).await
            }
            (_, recalled) => recalled.map(drop),
        };
        if let Err(error) = kept {
            tracing::warn!(
                component = COMPONENT,
                "the conversation was answered but not remembered: {error}"
            );
            output.memory_error = Some(error.to_string());
        }
        Ok(output)
    }

    /// Asks the model until it answers without asking for tools.
    async fn converse(
        &self,
        mut messages: Vec<Message>,
        deadline: Deadline,
        events: Option<&Events>,
    ) -> Result<AgentOutput> {
        let mut output = AgentOutput {
            text: String::new(),
            usage: Usage::default(),
            turns: 0,
            tool_results: Vec::new(),
            memory_error: None,
        };
        let toolbox = Toolbox {
            tasks: self.tasks.as_ref(),
            functions: &self.functions,
            background_tasks: &self.background_tasks,
            deadline,
        };
        let tools = toolbox.definitions();
        let mut state = StreamingExecutionState::new();
        while output.turns < self.max_turns {
            let mut request = ChatRequest::new(messages.clone()).with_deadline(Some(deadline));
            request.tools.clone_from(&tools);
            let (response, results) = match events {
                None => toolbox.exchange(self.llm.as_ref(), request).await?,
                Some(events) => {
                    toolbox.exchange_progressively(self.llm.as_ref(), request, &mut state, events).await?
                }
            };
            output.turns += 1;
            output.usage += response.usage;
            let Some(results) = results else {
                output.text = response.content.unwrap_or_default();
                return Ok(output);
            };
            messages.push(response.message());
            messages.extend(answers(&response, &results));
            output.tool_results.push(results);
        }
        let message =
            format!("the model still asked for tools after {} exchanges (max_turns)", self.max_turns);
        Err(Error::new(ErrorKind::Capacity, COMPONENT, message).with_retryable(false))
    }
}

#[async_trait]
impl Agent for ChatAgent {
    type Output = AgentOutput;

    #[tracing::instrument(name = "invoke_agent", skip_all, fields(gen_ai.operation.name = "invoke_agent"))]
    async fn process(&self, input: AgentInput) -> Result<AgentOutput> {
        self.turn(input, None).await
    }
}

impl fmt::Debug for ChatAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatAgent")
            .field("llm", &self.llm)
            .field("functions", &self.functions.len())
            .field("background_tasks", &self.background_tasks.len())
            .finish_non_exhaustive()
    }
}
