//! The chat agent: memory, model, tools, memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::conversation_memory::MemoryBudget;
use super::results::ToolResults;
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
/// A turn reads the conversation, calls the model with it, runs the tools that the model asks for through the executor
/// and calls it again with their results, at most `max_turns` times. Every tool call is answered by exactly one tool
/// message, failures included, so that the model can react to errors. Call ids are unique within one response: of two
/// calls with one id only the first is run.
///
/// # Memory
/// The conversation is kept as it was: earlier turns go to the model as messages, tool calls and results included. In
/// the memory's text they are lines of JSON under the heading `### MESSAGES:`, after notes that a
/// [`WorkingMemoryAgent`](super::WorkingMemoryAgent) or a Python service may keep there, which precede the conversation.
/// Attachments are kept by name or URL only.
///
/// A turn is written when it begins, after each round of tools and when it ends. One that fails, is dropped, or whose
/// process ends keeps what was said up to there, marked as unfinished; of an answer that was streaming when the turn was
/// dropped, nothing. Two turns of one conversation at once are merged in the order in which they began. An entry that is
/// deleted meanwhile stays deleted.
///
/// One deadline spans the turn: model, tools and memory spend it; a turn that fails takes at most 5 s more to be
/// written. A memory failure does not lose the answer; it is logged and returned in [`AgentOutput::memory_error`].
///
/// Dropping the future of [`process`](Agent::process) cancels the model call and the running tools. Background tasks
/// that were started run on. Cloning is cheap, except for the system prompt.
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

    /// Offers the model these functions (Python: `regular_functions`).
    #[must_use]
    pub fn with_functions(mut self, functions: Functions) -> Self {
        self.functions = functions;
        self
    }

    /// Offers the model these functions to start in the background. A regular function of the same name takes
    /// precedence.
    #[must_use]
    pub fn with_background_tasks(mut self, tasks: Functions) -> Self {
        self.background_tasks = tasks;
        self
    }

    /// Offers the model what `provider` has at the start of each turn, for example the tools of MCP servers. Functions
    /// and background tasks of this agent take precedence over those of the same name, and earlier providers over later
    /// ones.
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

    /// Sets the maximum number of bytes of a conversation in memory; the oldest turns are removed first, as a whole.
    /// The newest one is cut at its longest texts if it alone is longer. Default: 64 KiB.
    #[must_use]
    pub fn with_max_memory_bytes(mut self, max: usize) -> Self {
        self.memory_budget.max = max;
        self.memory_budget.size = Arc::new(str::len);
        self
    }

    /// Sets the maximum number of tokens of a conversation in memory, as `count` counts them in a turn as JSON.
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

    /// Condenses turns that no longer fit into memory: `condense` gets the summary so far and the messages, and returns
    /// the new summary, which precedes the conversation from then on. It runs within the turn and its deadline. When it
    /// fails, the turns are lost, with a warning.
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

    /// Sets the maximum number of bytes of a tool's result that the model is shown. A longer one is cut at its middle with
    /// a mark; the model is then offered the function `read_tool_result`, which reads it part by part, and
    /// [`AgentOutput::tool_results`] has the whole. Default: 64 KiB.
    #[must_use]
    pub fn with_max_result_bytes(mut self, max: usize) -> Self {
        self.max_result_bytes = max;
        self
    }

    /// Sets which attachments of tool results the model is shown; it reads a description of the others. Default: those
    /// that [its client takes](LlmClient::modalities).
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
    /// running tools nor the deadline. Dropping it is dropping the future of [`process`](Agent::process).
    pub fn stream(&self, input: AgentInput) -> AgentStream {
        let agent = self.clone();
        let span = tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent");
        AgentStream::new(|events| async move { agent.turn(input, Some(&events)).await }.instrument(span))
    }

    /// The functions of this turn.
    pub(super) fn turn_functions(&self, results: &ToolResults) -> Functions {
        let provided = self
            .providers
            .iter()
            .fold(Functions::new(), |functions, provider| functions.with_others(provider.functions()));
        let provided =
            self.background_tasks.iter().fold(provided, |functions, task| functions.without(task.name()));
        let all = self.functions.clone().with_others(provided);
        match all.is_empty() {
            true => all,
            false => all.with_others(Functions::new().with(results.read_function())),
        }
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
