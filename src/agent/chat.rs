//! The chat agent: memory, model, tools, memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::conversation_memory::MemoryBudget;
use super::stream::AgentStream;
use super::{Agent, AgentInput};
use crate::error::Result;
use crate::llm::{ChatRequest, LlmClient, Message, Modalities, Usage};
use crate::memory::MemoryManager;
use crate::support::opaque_debug;
use crate::tasks::{FunctionOutcome, FunctionProvider, Functions, TaskExecutor};

pub(super) const COMPONENT: &str = "agent.chat";

/// Answers messages with a model that may use tools, and keeps the conversation in memory.
///
/// A turn loads the conversation, calls the model with it, runs the tools that the model asks for and calls the model again
/// with their results, at most `max_turns` times. Every tool call is answered by exactly one tool message, failures
/// included, so that the model can react to errors. Call ids are unique within one response: of two calls with the same id,
/// only the first is run.
///
/// ```no_run
/// use arshai::agent::{Agent, AgentInput};
/// use arshai::tasks::Function;
/// use arshai::{Arshai, Result, Value, json};
///
/// async fn clock(_: Value) -> Result<Value> {
///     Ok(json!("12:30"))
/// }
///
/// # async fn example() -> Result<()> {
/// let runtime = Arshai::from_env()?;
/// let agent = runtime
///     .chat_agent(runtime.openai("gpt-4o-mini")?, "Be brief.")
///     .with_functions([Function::new("clock", clock).with_description("The time")]);
/// let answer = agent.process(AgentInput::new("What time is it?").in_conversation("c-1")).await?;
/// println!("{}", answer.text);
/// # Ok(()) }
/// ```
///
/// # Memory
/// The conversation is kept as messages: earlier turns are sent to the model as they were, tool calls and results included.
/// In the memory entry they are lines of JSON under the heading `### MESSAGES:`. Notes before that heading, which a
/// [`WorkingMemoryAgent`](super::WorkingMemoryAgent) or a Python service may keep there, are sent before the conversation.
/// Of attachments, only name or URL are kept.
///
/// A turn is saved when it begins, after each round of tools, and when it ends. If it fails, is dropped, or the process
/// ends, what was said until then is kept and marked as unfinished, except for an answer that was still streaming.
/// Concurrent turns of one conversation are merged in the order in which they began. An entry that is deleted meanwhile
/// stays deleted.
///
/// # Deadline and cancellation
/// One deadline spans the turn: model, tools and memory all spend it. A turn that fails may take up to 5 s longer to be
/// saved. A memory failure does not lose the answer: it is logged and returned in [`AgentOutput::memory_error`].
///
/// Dropping the future of [`process`](Agent::process) cancels the model call and the running tools. Background tasks that
/// were started continue. Cloning is cheap, except for the system prompt.
#[derive(Clone)]
pub struct ChatAgent {
    pub(super) llm: Arc<dyn LlmClient>,
    pub(super) tasks: Arc<dyn TaskExecutor>,
    pub(super) memory: Option<Arc<dyn MemoryManager>>,
    pub(super) system_prompt: String,
    pub(super) functions: Functions,
    pub(super) background_tasks: Functions,
    pub(super) providers: Vec<Arc<dyn FunctionProvider>>,
    pub(super) request: ChatRequest,
    pub(super) max_turns: usize,
    pub(super) timeout: Duration,
    pub(super) memory_budget: MemoryBudget,
    pub(super) max_turn_bytes: usize,
    pub(super) max_result_bytes: usize,
    pub(super) modalities: Option<Modalities>,
}

/// The answer of a [`ChatAgent`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct AgentOutput {
    /// The answer.
    pub text: String,
    /// Tokens of all model calls of the turn.
    pub usage: Usage,
    /// Number of model calls.
    pub model_calls: usize,
    /// The outcomes of tool calls, in the model's order; one list for each response that asked for tools.
    pub tool_results: Vec<Vec<FunctionOutcome>>,
    /// Why the conversation could not be read from or saved in memory, if so.
    pub memory_error: Option<String>,
}

// Shows lengths only: conversations are private and do not belong in logs.
opaque_debug!(AgentOutput(self) {
    text_bytes: self.text.len(),
    usage: self.usage,
    model_calls: self.model_calls,
    memory_error: self.memory_error,
});

impl ChatAgent {
    /// An agent without tools or memory.
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
            providers: Vec::new(),
            request: ChatRequest::default(),
            max_turns: 10,
            timeout: Duration::from_secs(120),
            memory_budget: MemoryBudget::bytes(64 * 1024),
            max_turn_bytes: 16 * 1024 * 1024,
            max_result_bytes: 64 * 1024,
            modalities: None,
        }
    }

    /// Keeps conversations in `memory`, by the input's `conversation_id`.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn MemoryManager>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Offers the model these functions (Python: `regular_functions`): an array, a `Vec` or a [`Functions`].
    #[must_use]
    pub fn with_functions(mut self, functions: impl Into<Functions>) -> Self {
        self.functions = functions.into();
        self
    }

    /// Offers the model these functions to start in the background. A regular function of the same name takes
    /// precedence.
    #[must_use]
    pub fn with_background_tasks(mut self, tasks: impl Into<Functions>) -> Self {
        self.background_tasks = tasks.into();
        self
    }

    /// Offers the model the functions that `provider` has at the start of each turn, for example the tools of MCP servers.
    /// Functions and background tasks of this agent take precedence over those of the same name, and earlier providers
    /// over later ones.
    #[must_use]
    pub fn with_function_provider(mut self, provider: impl FunctionProvider + 'static) -> Self {
        self.providers.push(Arc::new(provider));
        self
    }

    /// Sends the model's requests with the sampling settings, headers and extra fields of `request`. Its messages and
    /// tools are ignored.
    #[must_use]
    pub fn with_request(mut self, request: ChatRequest) -> Self {
        self.request = request;
        self
    }

    /// Sets the maximum number of model calls in one turn. Default: 10, as in Python.
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

    /// Sets the maximum number of bytes of a conversation in memory. The oldest turns are removed first, each as a whole;
    /// if the newest one alone is larger, its longest texts are cut. Default: 64 KiB.
    #[must_use]
    pub fn with_max_memory_bytes(mut self, max: usize) -> Self {
        self.memory_budget.max = max;
        self.memory_budget.size = Arc::new(str::len);
        self
    }

    /// Sets the maximum number of tokens of a conversation in memory. `count` returns the number of tokens of a turn, which
    /// it gets as JSON.
    #[must_use]
    pub fn with_max_memory_tokens(
        mut self,
        max: usize,
        count: impl Fn(&str) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.memory_budget.max = max;
        self.memory_budget.size = Arc::new(count);
        self
    }

    /// Summarises turns that no longer fit into memory: `condense` gets the summary so far and the messages, and returns
    /// the new summary, which is sent before the conversation from then on. It runs within the turn and its deadline. If it
    /// fails, those turns are removed, with a warning.
    #[must_use]
    pub fn with_condenser<F, Fut>(mut self, condense: F) -> Self
    where
        F: Fn(Option<String>, Vec<Message>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String>> + Send + 'static,
    {
        self.memory_budget.condense =
            Some(Arc::new(move |summary, messages| Box::pin(condense(summary, messages))));
        self
    }

    /// Sets the maximum number of bytes that the tool calls of one turn and their results may add. Default: 16 MiB.
    #[must_use]
    pub fn with_max_turn_bytes(mut self, max: usize) -> Self {
        self.max_turn_bytes = max;
        self
    }

    /// Sets the maximum number of bytes of a tool's result that the model sees. The middle of a longer one is replaced by a
    /// mark; the model can then read all of it, part by part, with the function `read_tool_result`, and
    /// [`AgentOutput::tool_results`] has the complete result. Default: 64 KiB.
    #[must_use]
    pub fn with_max_result_bytes(mut self, max: usize) -> Self {
        self.max_result_bytes = max;
        self
    }

    /// Sets which attachments of tool results are sent to the model; the others are described in words. Default: those
    /// that [its client accepts](LlmClient::modalities).
    #[must_use]
    pub fn with_modalities(mut self, modalities: Modalities) -> Self {
        self.modalities = Some(modalities);
        self
    }

    /// Answers one message as the answer arrives.
    ///
    /// A tool call starts as soon as its arguments are complete, while the model is still streaming, unless its
    /// function [waits for the end of the turn](crate::tasks::Function::with_deferred_start). If the model's stream
    /// fails, running foreground calls are cancelled and listed in the error's context `tools_started`.
    ///
    /// Nothing happens until the stream is read, and reading drives it: a slow reader delays the model, but neither
    /// running tools nor the deadline. Dropping the stream has the effect of dropping the future of
    /// [`process`](Agent::process).
    pub fn stream(&self, input: AgentInput) -> AgentStream {
        let agent = self.clone();
        let span = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent");
        AgentStream::new(|events| async move { agent.turn(input, Some(&events)).await }.instrument(span))
    }

    /// The functions of this turn.
    pub(super) fn turn_functions(&self) -> Functions {
        let provided = self
            .providers
            .iter()
            .fold(Functions::new(), |functions, provider| functions.with_others(provider.functions()));
        let provided =
            self.background_tasks.iter().fold(provided, |functions, task| functions.without(task.name()));
        self.functions.clone().with_others(provided)
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

opaque_debug!(ChatAgent(self) {
    llm: self.llm,
    functions: self.functions.len(),
    background_tasks: self.background_tasks.len(),
});
