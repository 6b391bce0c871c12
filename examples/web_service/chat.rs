//! Turns of a conversation: whole, or as server-sent events.

use std::convert::Infallible;

use arshai::ErrorKind;
use arshai::agent::{Agent, AgentEvent, AgentInput, AgentOutput};
use arshai::tasks::FunctionOutcome;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Service;

#[derive(Deserialize)]
pub(crate) struct Question {
    message: String,
    conversation: String,
}

impl From<Question> for AgentInput {
    fn from(question: Question) -> Self {
        Self::new(question.message).in_conversation(question.conversation)
    }
}

pub(crate) async fn chat(
    State(service): State<Service>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, ApiError> {
    let output = service.agent.process(question.into()).await?;
    Ok(Json(json!({"text": output.text, "model_calls": output.model_calls, "usage": output.usage})))
}

/// The turn as server-sent events: `text`, `tool`, and `done` or `error` at the end, also when it is aborted.
pub(crate) async fn chat_stream(
    State(service): State<Service>,
    Json(question): Json<Question>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let turn = service.agent.stream(question.into());
    let events = futures_util::stream::unfold(Some((turn, service.aborting)), |state| async {
        let (mut turn, aborting) = state?;
        let next = tokio::select! {
            next = turn.next() => next.transpose()?,
            () = aborting.cancelled() => Err(arshai::Error::new(ErrorKind::Cancelled, "web_service", "shutting down")),
        };
        let goes_on = !matches!(next, Ok(AgentEvent::Finished(_)) | Err(_));
        Some((Ok(to_sse(next)), goes_on.then_some((turn, aborting))))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

fn to_sse(event: arshai::Result<AgentEvent>) -> Event {
    let (name, data) = match event {
        Ok(AgentEvent::Text(text)) => ("text", json!(text)),
        Ok(AgentEvent::ToolStarted { name, call_id, .. }) => {
            ("tool", json!({"started": name, "call": call_id}))
        }
        Ok(AgentEvent::ToolEnded { name, call_id, error, .. }) => {
            ("tool", json!({"ended": name, "call": call_id, "error": error}))
        }
        Ok(AgentEvent::Finished(output)) => ("done", done(&output)),
        Ok(_) => ("other", Value::Null),
        Err(error) => ("error", error_body(&error)),
    };
    Event::default().event(name).data(data.to_string())
}

/// The end of a turn, with what its tools returned.
fn done(output: &AgentOutput) -> Value {
    let results = output.tool_results.iter().flatten().filter_map(|outcome| match outcome {
        FunctionOutcome::Completed(done) => {
            Some(json!({"call": done.call_id, "args": done.args, "result": done.result}))
        }
        _ => None,
    });
    let tools: Vec<Value> = results.collect();
    json!({"model_calls": output.model_calls, "usage": output.usage, "tools": tools})
}

/// The error as the client sees it: its kind and whether to try again. The rest is logged.
fn error_body(error: &arshai::Error) -> Value {
    eprintln!("a turn failed: {error}");
    json!({"error": format!("{:?}", error.kind()), "retryable": error.is_retryable()})
}

pub(crate) struct ApiError(arshai::Error);

impl From<arshai::Error> for ApiError {
    fn from(error: arshai::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self.0.kind() {
            ErrorKind::InvalidInput | ErrorKind::ContextLength | ErrorKind::ContentFilter => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            ErrorKind::RateLimited | ErrorKind::Capacity => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        (status, Json(error_body(&self.0))).into_response()
    }
}
