//! The agent that chats: memory, model, tools, memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::conversation::Conversation;
use super::transcript::remember;
use super::{Agent, AgentInput};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, ChatResponse, LlmClient, Message, ToolCall, ToolDefinition, Usage};
use crate::memory::{MemoryManager, WorkingMemory};
use crate::tasks::{FunctionExecutionInput, FunctionExecutionResult, Functions, TaskExecutor};

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
/// Background tasks that were started run on; memory is as it was.
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
    /// What became of the tool calls, one entry per exchange that asked for any.
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

    /// Asks the model until it answers without asking for tools.
    async fn converse(&self, mut messages: Vec<Message>, deadline: Deadline) -> Result<AgentOutput> {
        let mut output = AgentOutput {
            text: String::new(),
            usage: Usage::default(),
            turns: 0,
            tool_results: Vec::new(),
            memory_error: None,
        };
        let tools = self.tools();
        while output.turns < self.max_turns {
            let mut request = ChatRequest::new(messages.clone()).with_deadline(Some(deadline));
            request.tools.clone_from(&tools);
            let response = self.llm.chat(request).await?;
            output.turns += 1;
            output.usage += response.usage;
            if response.tool_calls.is_empty() {
                output.text = response.content.unwrap_or_default();
                return Ok(output);
            }
            messages.push(response.message());
            let (results, answers) = self.run_tools(&response, deadline).await;
            messages.extend(answers);
            output.tool_results.push(results);
        }
        let message =
            format!("the model still asked for tools after {} exchanges (max_turns)", self.max_turns);
        Err(Error::new(ErrorKind::Capacity, COMPONENT, message).with_retryable(false))
    }

    /// The tools the model is offered: regular functions, and background tasks of other names.
    fn tools(&self) -> Vec<ToolDefinition> {
        let background =
            self.background_tasks.iter().filter(|task| self.functions.get(task.name()).is_none());
        self.functions.iter().chain(background).map(ToolDefinition::from).collect()
    }

    /// Runs the calls of one exchange; gives what became of them, and one message for each, in their order.
    async fn run_tools(
        &self,
        response: &ChatResponse,
        deadline: Deadline,
    ) -> (FunctionExecutionResult, Vec<Message>) {
        let mut answers = vec![None; response.tool_calls.len()];
        let mut calls = Vec::new();
        // The place among the model's calls of each call that runs.
        let mut places = Vec::new();
        for (place, call) in response.tool_calls.iter().enumerate() {
            match self.function_call(call) {
                Some(call) => {
                    calls.push(call);
                    places.push(place);
                }
                None => answers[place] = Some("Error: the arguments are not JSON".to_owned()),
            }
        }
        let input = FunctionExecutionInput::new(calls, self.functions.clone())
            .with_background_tasks(self.background_tasks.clone())
            .with_deadline(deadline);
        let results = self.tasks.execute_functions(input).await;
        for done in &results.regular_results {
            answers[places[done.index]] = Some(as_text(&done.result));
        }
        for started in &results.background_initiated {
            answers[places[started.index]] = Some(started.message.clone());
        }
        for failed in &results.failed_functions {
            answers[places[failed.index]] = Some(format!("Error: {}", failed.error));
        }
        let messages = response.tool_calls.iter().zip(answers).map(|(call, answer)| {
            // The executor gives one outcome per call; one that did not would still be answered.
            let answer = answer.unwrap_or_else(|| "Error: the call had no outcome".to_owned());
            Message::tool(call.call_id.clone(), answer)
        });
        (results, messages.collect())
    }

    fn function_call(&self, call: &ToolCall) -> Option<crate::tasks::FunctionCall> {
        let background =
            self.functions.get(&call.name).is_none() && self.background_tasks.get(&call.name).is_some();
        let call = call.to_function_call()?;
        Some(if background { call.in_background() } else { call })
    }
}

#[async_trait]
impl Agent for ChatAgent {
    type Output = AgentOutput;

    #[tracing::instrument(name = "invoke_agent", skip_all, fields(gen_ai.operation.name = "invoke_agent"))]
    async fn process(&self, input: AgentInput) -> Result<AgentOutput> {
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
        let messages = vec![Message::system(system), Message::user(input.message.clone())];
        let mut output = self.converse(messages, deadline).await?;
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
}

/// A result as the model reads it: text as it is, anything else as JSON.
fn as_text(result: &Value) -> String {
    result.as_str().map_or_else(|| result.to_string(), str::to_owned)
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
