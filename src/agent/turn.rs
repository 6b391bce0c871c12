//! One turn of a chat agent: memory, model and tools, memory.

use std::sync::Arc;
use std::time::Duration;

use super::AgentInput;
use super::chat::{AgentOutput, COMPONENT, ChatAgent};
use super::conversation_memory::{ConversationMemory, TurnRecord};
use super::results::{READ_TOOL_RESULT, ToolResults};
use super::stream::EventSender;
use super::tool_runner::{FailedCall, ToolRunner};
use super::transcript::Transcript;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ChatRequest, Message};
use crate::memory::WorkingMemory;

/// Time to write down a turn that failed, whose deadline may have passed.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// A turn under way.
pub(super) struct ChatTurn<'a> {
    agent: &'a ChatAgent,
    runner: ToolRunner<'a>,
    results: &'a ToolResults,
    record: Option<TurnRecord<'a>>,
    output: AgentOutput,
    /// Bytes of the messages that this turn has added.
    bytes: usize,
}

impl ChatAgent {
    /// Answers `input`, with what happens meanwhile as events.
    pub(super) async fn turn(
        &self,
        mut input: AgentInput,
        events: Option<&EventSender>,
    ) -> Result<AgentOutput> {
        let deadline = Deadline::after(self.timeout);
        let attachments = std::mem::take(&mut input.attachments);
        let question = Message::User { content: input.message.clone(), attachments };
        let results =
            ToolResults::new(self.max_result_bytes, self.modalities.unwrap_or_else(|| self.llm.modalities()));
        let runner = ToolRunner {
            llm: self.llm.as_ref(),
            tasks: self.tasks.as_ref(),
            functions: self.turn_functions(),
            background_tasks: &self.background_tasks,
            deadline,
            events,
        };
        let mut turn = ChatTurn {
            agent: self,
            runner,
            results: &results,
            record: None,
            output: AgentOutput::default(),
            bytes: 0,
        };
        let earlier = turn.begin(&input, &question).await;
        let mut messages = vec![Message::system(self.system_text(&earlier))];
        messages.extend(earlier.into_messages());
        messages.push(question);
        turn.run(messages).await
    }

    /// The instructions, and what others noted of the conversation.
    fn system_text(&self, earlier: &Transcript) -> String {
        let mut text = self.system_prompt.clone();
        let notes = earlier.notes.trim();
        if !notes.is_empty() && notes != WorkingMemory::initialize_memory().as_str().trim() {
            text.push_str("\n\nWhat you remember of this conversation:\n");
            text.push_str(notes);
        }
        if let Some(summary) = &earlier.summary {
            text.push_str("\n\nSummary of what was said before the messages below:\n");
            text.push_str(summary);
        }
        text
    }
}

impl<'a> ChatTurn<'a> {
    /// Reads the conversation before this turn, and writes that it has begun.
    async fn begin(&mut self, input: &'a AgentInput, question: &Message) -> Transcript {
        let (Some(memory), Some(id)) = (&self.agent.memory, input.conversation_id()) else {
            return Transcript::default();
        };
        let conversation = ConversationMemory { id, memory: memory.as_ref(), component: COMPONENT };
        let begun =
            TurnRecord::begin(conversation, &self.agent.memory_budget, question, self.runner.deadline).await;
        self.record = Some(begun.0);
        begun.1.unwrap_or_else(|error| {
            self.memory_failed(&error);
            Transcript::default()
        })
    }

    /// Calls the model until it answers without asking for tools.
    async fn run(mut self, messages: Vec<Message>) -> Result<AgentOutput> {
        let mut request = self.agent.request.clone().with_deadline(Some(self.runner.deadline));
        (request.messages, request.tools) = (Arc::new(messages), Arc::default());
        let answered = self.run_model_loop(request).await;
        let (answer, deadline) = match &answered {
            Ok(answer) => (Some(answer.clone()), self.runner.deadline),
            // A part of an answer is an answer that was shown.
            Err(failed) => (failed.text.as_deref().map(Message::assistant), Deadline::after(RECORD_TIMEOUT)),
        };
        if let Some(record) = &mut self.record {
            let recorded = record.end(answer, answered.is_ok(), deadline).await;
            recorded.unwrap_or_else(|error| self.memory_failed(&error));
        }
        answered.map(|_| self.output).map_err(|failed| failed.error)
    }

    async fn run_model_loop(&mut self, mut request: ChatRequest) -> Result<Message, FailedCall> {
        let max_turns = self.agent.max_turns;
        while self.output.model_calls < max_turns {
            self.output.model_calls += 1;
            // Results of tools may offer more of them.
            if !self.runner.offers(&request.tools) {
                request.tools = Arc::new(self.runner.definitions());
            }
            // The results of tools of the last call would not be read.
            let run_tools = self.output.model_calls < max_turns;
            let (response, outcomes) = self.runner.call_model(request.clone(), run_tools).await?;
            self.output.usage += response.usage;
            let message = response.to_message();
            if response.tool_calls.is_empty() {
                self.output.text = response.content.unwrap_or_default();
                return Ok(message);
            }
            if run_tools {
                let results = self.results.messages(&response.tool_calls, &outcomes);
                let round: Vec<Message> = std::iter::once(message).chain(results).collect();
                self.output.tool_results.push(outcomes);
                if self.results.has_cut() && self.runner.functions.get(READ_TOOL_RESULT).is_none() {
                    let functions = std::mem::take(&mut self.runner.functions);
                    self.runner.functions = functions.with(self.results.read_function());
                }
                self.add_round(&mut request, round).await?;
            }
        }
        let message = format!("max_turns reached: the model still requests tools after {max_turns} calls");
        Err(Error::new(ErrorKind::Capacity, COMPONENT, message).with_retryable(false).into())
    }

    /// Adds a response and the results of its tools to the request and to memory.
    async fn add_round(&mut self, request: &mut ChatRequest, round: Vec<Message>) -> Result<()> {
        let max = self.agent.max_turn_bytes;
        self.bytes += round.iter().map(Message::bytes).sum::<usize>();
        if self.bytes > max {
            let message =
                format!("max_turn_bytes ({max}) reached by the model's tool calls and their results");
            return Err(Error::new(ErrorKind::TooLarge, COMPONENT, message));
        }
        if let Some(record) = &mut self.record {
            let recorded = record.add(&round, self.runner.deadline).await;
            recorded.unwrap_or_else(|error| self.memory_failed(&error));
        }
        round.into_iter().for_each(|message| request.push(message));
        Ok(())
    }

    fn memory_failed(&mut self, error: &Error) {
        tracing::warn!(component = COMPONENT, "failed to read or save conversation memory: {error}");
        self.output.memory_error.get_or_insert_with(|| error.to_string());
    }
}
