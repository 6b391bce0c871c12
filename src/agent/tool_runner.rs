//! One model call, and the tools it asks for.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;

use super::AgentEvent;
use super::stream::EventSender;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::llm::{ArgumentError, ChatEvent, ChatRequest, ChatResponse, LlmClient, ToolCall, ToolDefinition};
use crate::tasks::{FailureKind, Function, FunctionCall, FunctionOutcome, Functions, TaskExecutor};

const COMPONENT: &str = "agent.chat";

/// Calls the model and runs its tools.
pub(super) struct ToolRunner<'a> {
    pub(super) llm: &'a dyn LlmClient,
    pub(super) tasks: &'a dyn TaskExecutor,
    pub(super) functions: Functions,
    pub(super) background_tasks: &'a Functions,
    pub(super) deadline: Deadline,
    /// Receives what happens while the model streams; `None` for a complete response.
    pub(super) events: Option<&'a EventSender>,
}

/// A model call that failed, and the text that arrived before.
pub(super) struct FailedCall {
    pub(super) error: Error,
    pub(super) text: Option<String>,
}

impl From<Error> for FailedCall {
    fn from(error: Error) -> Self {
        Self { error, text: None }
    }
}

/// A response, and the outcomes of its tool calls in their order.
pub(super) type ModelRoundTrip = (ChatResponse, Vec<FunctionOutcome>);

impl ToolRunner<'_> {
    /// The tools the model is offered: regular functions, and background tasks of other names.
    fn offered(&self) -> impl Iterator<Item = &Function> {
        let background =
            self.background_tasks.offered().filter(|task| self.functions.get(task.name()).is_none());
        self.functions.offered().chain(background)
    }

    pub(super) fn definitions(&self) -> Vec<ToolDefinition> {
        self.offered().map(ToolDefinition::from).collect()
    }

    /// Whether `definitions`, of earlier in this turn, are those of the tools that are offered now.
    pub(super) fn offers(&self, definitions: &[ToolDefinition]) -> bool {
        self.offered().map(Function::name).eq(definitions.iter().map(|tool| tool.name.as_str()))
    }

    /// Calls the model and runs the tools it asks for. With `run_tools` false no tool is started.
    pub(super) async fn call_model(
        &self,
        request: ChatRequest,
        run_tools: bool,
    ) -> Result<ModelRoundTrip, FailedCall> {
        let mut calls = StartedCalls::new(self, run_tools);
        let response = match self.events {
            None => self.call_model_whole(request, &mut calls).await?,
            Some(_) => self.call_model_streaming(request, &mut calls).await?,
        };
        Ok((response, calls.outcomes().await))
    }

    async fn call_model_whole(
        &self,
        request: ChatRequest,
        calls: &mut StartedCalls<'_>,
    ) -> Result<ChatResponse> {
        let sending = self.llm.chat(request);
        let response = self.deadline.run(COMPONENT, "sending the model request", sending).await??;
        for (index, call) in response.tool_calls.iter().enumerate() {
            calls.start(index, call).await;
        }
        Ok(response)
    }

    /// Reads a response as it arrives and starts its calls as soon as they are complete.
    async fn call_model_streaming(
        &self,
        request: ChatRequest,
        calls: &mut StartedCalls<'_>,
    ) -> Result<ChatResponse, FailedCall> {
        let sending = self.llm.stream(request);
        let mut stream = self.deadline.run(COMPONENT, "sending the model request", sending).await??;
        let mut response = ChatResponse::default();
        loop {
            let next = tokio::select! {
                // The response first: it may start more calls.
                biased;
                next = self.deadline.run(COMPONENT, "reading the model response", stream.next()) => next,
                Some((index, outcome)) = calls.running.next() => {
                    calls.record(index, outcome).await;
                    continue;
                }
            };
            let event = match next.and_then(|next| next?.ok_or_else(missing_finish_error)) {
                Ok(event) => event,
                Err(error) => {
                    let error = calls.with_started_tools(error);
                    return Err(FailedCall { error, text: response.content });
                }
            };
            match &event {
                ChatEvent::Text(text) => self.send(|| AgentEvent::Text(text.clone())).await,
                ChatEvent::ToolCall { index, call } if self.is_deferred(call) => {
                    calls.deferred.push((*index, call.clone()));
                }
                ChatEvent::ToolCall { index, call } => calls.start(*index, call).await,
                ChatEvent::ToolCallFailed { index, call, error } => {
                    calls.record(*index, invalid_arguments_outcome(call, *error)).await;
                }
                _ => {}
            }
            let is_last = matches!(event, ChatEvent::Finished { .. });
            response.apply_event(event);
            if is_last {
                return Ok(response);
            }
        }
    }

    async fn send(&self, event: impl FnOnce() -> AgentEvent) {
        if let Some(events) = self.events {
            events.send(event()).await;
        }
    }

    fn is_deferred(&self, call: &ToolCall) -> bool {
        let function = self.functions.get(&call.name).or_else(|| self.background_tasks.get(&call.name));
        function.is_some_and(Function::is_deferred)
    }

    fn function_call(&self, call: &ToolCall) -> Option<FunctionCall> {
        let is_background =
            self.functions.get(&call.name).is_none() && self.background_tasks.get(&call.name).is_some();
        let call = call.to_function_call()?;
        Some(if is_background { call.in_background() } else { call })
    }
}

/// A running call: its index in the response, and its outcome.
type RunningCall = Pin<Box<dyn Future<Output = (usize, FunctionOutcome)> + Send>>;

/// The calls of one response. Dropping it cancels those that run.
struct StartedCalls<'a> {
    runner: &'a ToolRunner<'a>,
    run_tools: bool,
    running: FuturesUnordered<RunningCall>,
    /// The name of each call that was started.
    names: Vec<String>,
    /// Ids are unique within one response.
    ids: HashSet<String>,
    /// Calls that wait for the end of the response.
    deferred: Vec<(usize, ToolCall)>,
    outcomes: Vec<(usize, FunctionOutcome)>,
}

impl<'a> StartedCalls<'a> {
    fn new(runner: &'a ToolRunner<'a>, run_tools: bool) -> Self {
        Self {
            runner,
            run_tools,
            running: FuturesUnordered::new(),
            names: Vec::new(),
            ids: HashSet::new(),
            deferred: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    async fn start(&mut self, index: usize, call: &ToolCall) {
        if !self.run_tools {
            return;
        }
        let Some(function_call) = self.runner.function_call(call) else {
            return self.record(index, invalid_arguments_outcome(call, ArgumentError::NotAnObject)).await;
        };
        if !self.ids.insert(call.call_id.clone()) {
            let message = "duplicate call id; only the first call was executed";
            let outcome = FunctionOutcome::failed(function_call, FailureKind::DuplicateCallId, message);
            return self.record(index, outcome).await;
        }
        let task = self.runner.tasks.execute_function_progressively(
            function_call,
            &self.runner.functions,
            self.runner.background_tasks,
            Some(self.runner.deadline),
        );
        self.names.push(call.name.clone());
        self.running.push(Box::pin(async move { (index, task.await) }));
        let started = || AgentEvent::ToolStarted { call_id: call.call_id.clone(), name: call.name.clone() };
        self.runner.send(started).await;
    }

    async fn record(&mut self, index: usize, outcome: FunctionOutcome) {
        if let Some(event) = AgentEvent::from_outcome(&outcome) {
            self.runner.send(|| event).await;
        }
        self.outcomes.push((index, outcome));
    }

    /// Starts the deferred calls, waits for all and returns the outcomes in the order of the calls.
    async fn outcomes(mut self) -> Vec<FunctionOutcome> {
        for (index, call) in std::mem::take(&mut self.deferred) {
            self.start(index, &call).await;
        }
        while let Some((index, outcome)) = self.running.next().await {
            self.record(index, outcome).await;
        }
        self.outcomes.sort_by_key(|(index, _)| *index);
        self.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Names the started tools in the error of a failed stream; they are cancelled when this is dropped.
    fn with_started_tools(&self, error: Error) -> Error {
        if self.names.is_empty() { error } else { error.with_context("tools_started", self.names.join(" ")) }
    }
}

fn missing_finish_error() -> Error {
    Error::new(ErrorKind::Protocol, COMPONENT, "model stream ended without a Finished event")
}

fn invalid_arguments_outcome(call: &ToolCall, error: ArgumentError) -> FunctionOutcome {
    let arguments = Value::String(call.arguments.clone());
    let call = FunctionCall::new(call.name.clone(), arguments).with_call_id(call.call_id.clone());
    FunctionOutcome::failed(call, FailureKind::BadArguments, error.to_string())
}
