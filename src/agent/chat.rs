//! The chat agent: memory, model, tools, memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use super::conversation_memory::ConversationMemory;
use super::results::ToolResults;
use super::stream::{AgentStream, EventSender};
use super::tool_runner::ToolRunner;
use super::transcript::append_exchange;
use super::{Agent, AgentInput};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, LlmClient, Message, Modalities, Usage};
use crate::memory::{MemoryManager, WorkingMemory};
use crate::tasks::{FunctionOutcome, FunctionProvider, Functions, TaskExecutor};

const COMPONENT: &str = "agent.chat";

/// Answers messages with a model that may use tools, and keeps the conversation in memory.
///
/// A turn reads the conversation's working memory, calls the model, runs the tools it asks for through the executor and
/// calls it again with their results, at most `max_turns` times, and adds the exchange to the working memory. Every
/// tool call is answered by exactly one tool message, failures included, so that the model can react to errors. Call
/// ids are unique within one response: of two calls with one id only the first is run.
///
/// One deadline spans the turn: model, tools and memory spend it. A memory failure does not lose the answer; it is
/// logged and returned in [`AgentOutput::memory_error`].
///
/// Dropping the future of [`process`](Agent::process) cancels the model call and the running tools. Background tasks
/// that were started run on; memory is unchanged. Cloning is cheap, except for the system prompt.
#[derive(Clone)]
pub struct ChatAgent {
    llm: Arc<dyn LlmClient>,
    tasks: Arc<dyn TaskExecutor>,
    memory: Option<Arc<dyn MemoryManager>>,
    system_prompt: String,
    functions: Functions,
    background_tasks: Functions,
    providers: Vec<Arc<dyn FunctionProvider>>,
    request: ChatRequest,
    max_turns: usize,
    timeout: Duration,
    max_memory_bytes: usize,
    max_result_bytes: usize,
    modalities: Option<Modalities>,
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

/// Shows lengths only: conversations are private and do not belong in logs.
impl fmt::Debug for AgentOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentOutput")
            .field("text_bytes", &self.text.len())
            .field("usage", &self.usage)
            .field("model_calls", &self.model_calls)
            .field("memory_error", &self.memory_error)
            .finish_non_exhaustive()
    }
}

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
            max_memory_bytes: 8 * 1024,
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

    /// Sets the maximum number of bytes of past exchanges in memory; the oldest are removed first. Default: 8 KiB.
    #[must_use]
    pub fn with_max_memory_bytes(mut self, max: usize) -> Self {
        self.max_memory_bytes = max;
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

    /// One turn: memory, model and tools, memory.
    async fn turn(&self, mut input: AgentInput, events: Option<&EventSender>) -> Result<AgentOutput> {
        let deadline = Deadline::after(self.timeout);
        let attachments = std::mem::take(&mut input.attachments);
        let conversation = match (&self.memory, input.conversation_id()) {
            (Some(memory), Some(id)) => {
                Some(ConversationMemory { id, memory: memory.as_ref(), component: COMPONENT })
            }
            _ => None,
        };
        let loaded = match &conversation {
            Some(conversation) => conversation.load(deadline).await,
            None => Ok(None),
        };
        let mut system = self.system_prompt.clone();
        if let Ok(Some(memory)) = &loaded {
            system.push_str("\n\nWhat you remember of this conversation:\n");
            system.push_str(memory.as_str());
        }
        let question = Message::User { content: input.message.clone(), attachments };
        let mut output = self.respond(vec![Message::system(system), question], deadline, events).await?;
        let saved = match (&conversation, loaded) {
            (Some(conversation), Ok(earlier)) => {
                let existed = earlier.is_some();
                let earlier = earlier.unwrap_or_else(WorkingMemory::initialize_memory);
                let memory = append_exchange(&earlier, &input.message, &output.text, self.max_memory_bytes);
                conversation.save(memory, existed, deadline).await
            }
            (_, loaded) => loaded.map(drop),
        };
        if let Err(error) = saved {
            tracing::warn!(component = COMPONENT, "failed to save conversation memory: {error}");
            output.memory_error = Some(error.to_string());
        }
        Ok(output)
    }

    /// Answers the conversation with the functions of this turn.
    async fn respond(
        &self,
        messages: Vec<Message>,
        deadline: Deadline,
        events: Option<&EventSender>,
    ) -> Result<AgentOutput> {
        let modalities = self.modalities.unwrap_or_else(|| self.llm.modalities());
        let results = ToolResults::new(self.max_result_bytes, modalities);
        let functions = self.turn_functions(&results);
        let runner = ToolRunner {
            llm: self.llm.as_ref(),
            tasks: self.tasks.as_ref(),
            functions: &functions,
            background_tasks: &self.background_tasks,
            deadline,
            events,
        };
        self.run_model_loop(messages, &runner, &results).await
    }

    /// The functions of this turn.
    fn turn_functions(&self, results: &ToolResults) -> Functions {
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

    /// Calls the model until it answers without asking for tools.
    async fn run_model_loop(
        &self,
        messages: Vec<Message>,
        runner: &ToolRunner<'_>,
        results: &ToolResults,
    ) -> Result<AgentOutput> {
        let mut output = AgentOutput::default();
        let mut request = self.request.clone().with_deadline(Some(runner.deadline));
        request.messages = Arc::new(messages);
        while output.model_calls < self.max_turns {
            output.model_calls += 1;
            // Results of tools may offer more of them.
            request.tools = Arc::new(runner.definitions());
            // The results of tools of the last call would not be read.
            let run_tools = output.model_calls < self.max_turns;
            let (response, outcomes) = runner.call_model(request.clone(), run_tools).await?;
            output.usage += response.usage;
            if response.tool_calls.is_empty() {
                output.text = response.content.unwrap_or_default();
                return Ok(output);
            }
            if run_tools {
                request.push(response.to_message());
                results.messages(&response.tool_calls, &outcomes).for_each(|message| request.push(message));
                output.tool_results.push(outcomes);
            }
        }
        let message =
            format!("max_turns reached: the model still requests tools after {} calls", self.max_turns);
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
