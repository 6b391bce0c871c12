//! One exchange with the model, and the tools it asks for.

use std::pin::Pin;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;

use super::AgentEvent;
use super::stream::Events;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{
    ArgumentProblem, ChatEvent, ChatRequest, ChatResponse, LlmClient, Message, ToolCall, ToolDefinition,
};
use crate::tasks::{
    FailureKind, Function, FunctionCall, FunctionExecutionInput, FunctionExecutionResult, FunctionOutcome,
    Functions, StreamingExecutionState, TaskExecutor,
};

const COMPONENT: &str = "agent.chat";

/// What the model may use, and until when.
pub(super) struct Toolbox<'a> {
    pub(super) tasks: &'a dyn TaskExecutor,
    pub(super) functions: &'a Functions,
    pub(super) background_tasks: &'a Functions,
    pub(super) deadline: Deadline,
}

/// An answer, and what became of the tool calls in it, if any; their indices are their places in the answer.
type Exchanged = (ChatResponse, Option<FunctionExecutionResult>);

impl Toolbox<'_> {
    /// The tools the model is offered: regular functions, and background tasks of other names.
    pub(super) fn definitions(&self) -> Vec<ToolDefinition> {
        let background =
            self.background_tasks.iter().filter(|task| self.functions.get(task.name()).is_none());
        self.functions.iter().chain(background).map(ToolDefinition::from).collect()
    }

    /// Asks for a whole answer, then runs its calls.
    pub(super) async fn exchange(&self, llm: &dyn LlmClient, request: ChatRequest) -> Result<Exchanged> {
        let response = self.deadline.run(COMPONENT, "asking the model", llm.chat(request)).await??;
        if response.tool_calls.is_empty() {
            return Ok((response, None));
        }
        let mut unfit = FunctionExecutionResult::default();
        let (mut calls, mut places) = (Vec::new(), Vec::new());
        for (place, call) in response.tool_calls.iter().enumerate() {
            match self.function_call(call) {
                Some(call) => {
                    calls.push(call);
                    places.push(place);
                }
                None => unfit.push(place, unusable(call, ArgumentProblem::NotAnObject)),
            }
        }
        let input = FunctionExecutionInput::new(calls, self.functions.clone())
            .with_background_tasks(self.background_tasks.clone())
            .with_deadline(self.deadline);
        let results = self.tasks.execute_functions(input).await;
        Ok((response, Some(joined(results, &places, unfit))))
    }

    /// Reads an answer as it comes and starts its calls as soon as they are complete.
    pub(super) async fn exchange_progressively(
        &self,
        llm: &dyn LlmClient,
        request: ChatRequest,
        state: &mut StreamingExecutionState,
        events: &Events,
    ) -> Result<Exchanged> {
        let mut stream = self.deadline.run(COMPONENT, "asking the model", llm.stream(request)).await??;
        let mut response = ChatResponse::tools(Vec::new());
        let mut begun = Begun::default();
        loop {
            let next = tokio::select! {
                // The answer first: what has come of it may start more.
                biased;
                next = self.deadline.run(COMPONENT, "reading the model's answer", stream.next()) => next,
                Some((place, outcome)) = begun.running.next() => {
                    begun.ended(place, outcome, events).await;
                    continue;
                }
            };
            let event = match next.and_then(|next| next?.ok_or_else(unfinished)) {
                Ok(event) => event,
                Err(error) => return Err(begun.cut_short(error)),
            };
            match &event {
                ChatEvent::Text(text) => events.send(AgentEvent::Text(text.clone())).await,
                ChatEvent::ToolCall { index, call } => {
                    if self.waits_for_turn_end(call) {
                        begun.later.push((*index, call.clone()));
                    } else {
                        self.start(*index, call, state, &mut begun, events).await;
                    }
                }
                ChatEvent::ToolCallFailed { index, call, problem } => {
                    begun.ended(*index, unusable(call, *problem), events).await;
                }
                _ => {}
            }
            let is_last = matches!(event, ChatEvent::Finished { .. });
            response.add(event);
            if is_last {
                break;
            }
        }
        drop(stream);
        if response.tool_calls.is_empty() {
            return Ok((response, None));
        }
        for (place, call) in std::mem::take(&mut begun.later) {
            self.start(place, &call, state, &mut begun, events).await;
        }
        while let Some((place, outcome)) = begun.running.next().await {
            begun.ended(place, outcome, events).await;
        }
        Ok((response, Some(begun.results.in_call_order())))
    }

    async fn start(
        &self,
        place: usize,
        call: &ToolCall,
        state: &mut StreamingExecutionState,
        begun: &mut Begun,
        events: &Events,
    ) {
        let Some(function_call) = self.function_call(call) else {
            return begun.ended(place, unusable(call, ArgumentProblem::NotAnObject), events).await;
        };
        let started = state.start(
            self.tasks,
            function_call.clone(),
            self.functions,
            self.background_tasks,
            Some(self.deadline),
        );
        if !started {
            let message = "a call of this id was made before; only the first ran";
            let outcome = FunctionOutcome::failed(function_call, FailureKind::DuplicateCallId, message);
            return begun.ended(place, outcome, events).await;
        }
        begun.names.push(call.name.clone());
        for task in state.take_active() {
            begun.running.push(Box::pin(async move { (place, task.await) }));
        }
        let (call_id, name) = (call.call_id.clone(), call.name.clone());
        events.send(AgentEvent::ToolStarted { call_id, name }).await;
    }

    fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name).or_else(|| self.background_tasks.get(name))
    }

    fn waits_for_turn_end(&self, call: &ToolCall) -> bool {
        self.function(&call.name).is_some_and(Function::waits_for_turn_end)
    }

    fn function_call(&self, call: &ToolCall) -> Option<FunctionCall> {
        let background =
            self.functions.get(&call.name).is_none() && self.background_tasks.get(&call.name).is_some();
        let call = call.to_function_call()?;
        Some(if background { call.in_background() } else { call })
    }
}

/// A call under way: its place in the answer, and what becomes of it.
type Running = Pin<Box<dyn Future<Output = (usize, FunctionOutcome)> + Send>>;

/// The calls of an answer that is still coming. Dropping it cancels those that run.
#[derive(Default)]
struct Begun {
    running: FuturesUnordered<Running>,
    /// The name of each call that was started.
    names: Vec<String>,
    /// Calls that wait for the end of the answer.
    later: Vec<(usize, ToolCall)>,
    /// What became of calls so far, those that cannot be made included.
    results: FunctionExecutionResult,
}

impl Begun {
    async fn ended(&mut self, place: usize, outcome: FunctionOutcome, events: &Events) {
        if let Some(event) = AgentEvent::of_outcome(&outcome) {
            events.send(event).await;
        }
        self.results.push(place, outcome);
    }

    /// The stream ended badly: what was started is cancelled, and the error says what that is.
    fn cut_short(self, error: Error) -> Error {
        if self.names.is_empty() { error } else { error.with_context("tools_started", self.names.join(" ")) }
    }
}

fn unfinished() -> Error {
    Error::new(ErrorKind::Protocol, COMPONENT, "the model's stream ended without an end")
}

/// The outcome of a call whose arguments cannot be used.
fn unusable(call: &ToolCall, problem: ArgumentProblem) -> FunctionOutcome {
    let arguments = Value::String(call.arguments.clone());
    let call = FunctionCall::new(call.name.clone(), arguments).with_call_id(call.call_id.clone());
    FunctionOutcome::failed(call, FailureKind::BadArguments, problem.to_string())
}

/// Results of the calls that ran, numbered by their places in the answer, and of those that could not.
fn joined(
    mut ran: FunctionExecutionResult,
    places: &[usize],
    unfit: FunctionExecutionResult,
) -> FunctionExecutionResult {
    let regular = ran.regular_results.iter_mut().map(|result| &mut result.index);
    let background = ran.background_initiated.iter_mut().map(|started| &mut started.index);
    let failed = ran.failed_functions.iter_mut().map(|failure| &mut failure.index);
    regular.chain(background).chain(failed).for_each(|index| *index = places[*index]);
    ran.failed_functions.extend(unfit.failed_functions);
    ran.in_call_order()
}

/// One message for each call of an answer, in their order.
pub(super) fn answers(response: &ChatResponse, results: &FunctionExecutionResult) -> Vec<Message> {
    let mut answers = vec![None; response.tool_calls.len()];
    for done in &results.regular_results {
        answers[done.index] = Some(as_text(&done.result));
    }
    for started in &results.background_initiated {
        answers[started.index] = Some(started.message.clone());
    }
    for failed in &results.failed_functions {
        answers[failed.index] = Some(format!("Error: {}", failed.error));
    }
    let messages = response.tool_calls.iter().zip(answers).map(|(call, answer)| {
        // The executor gives one outcome per call; one that did not would still be answered.
        let answer = answer.unwrap_or_else(|| "Error: the call had no outcome".to_owned());
        Message::tool(call.call_id.clone(), answer)
    });
    messages.collect()
}

/// A result as the model reads it: text as it is, anything else as JSON.
fn as_text(result: &Value) -> String {
    result.as_str().map_or_else(|| result.to_string(), str::to_owned)
}
