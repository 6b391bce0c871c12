//! A chat service over HTTP.
//!
//! ```text
//! OPENAI_API_KEY=… cargo run --release --example web_service
//! curl localhost:8080/chat -H 'content-type: application/json' -d '{"message": "What time is it?", "conversation": "a"}'
//! curl -N localhost:8080/chat/stream -H 'content-type: application/json' -d '{"message": "And tomorrow?", "conversation": "a"}'
//! curl localhost:8080/health; curl localhost:8080/stats
//! ```
//!
//! `OPENAI_BASE_URL` and `OPENAI_MODEL` choose another endpoint and model, `LISTEN` another address than
//! `127.0.0.1:8080`; everything else comes from `ARSHAI_*` variables. With the cargo feature `mcp`, the tools of
//! configured MCP servers are offered too (`ARSHAI_CONFIG` names a file with `mcp.servers`). A client that disconnects cancels its turn. Ctrl-C
//! or SIGTERM stops accepting requests, lets running turns complete for ten seconds and aborts the rest.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use arshai::agent::{Agent, AgentEvent, AgentInput, ChatAgent};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, Deadline, ErrorKind};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Timeout for connecting to MCP servers; those that are down by then are connected later.
const STARTING: Duration = Duration::from_secs(30);

/// Timeout for running requests after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Timeout for background tasks after that.
const CLOSING: Duration = Duration::from_secs(2);

/// Timeout for aborted streams to send their last event.
const ABORTING: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Service {
    runtime: Arshai,
    agent: ChatAgent,
    /// Cancelled when running requests have used up the grace period.
    aborting: CancellationToken,
}

#[derive(Deserialize)]
struct Question {
    message: String,
    conversation: String,
}

impl From<Question> for AgentInput {
    fn from(question: Question) -> Self {
        Self::new(question.message).in_conversation(question.conversation)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Arshai::from_env()?;
    let model = std::env::var("OPENAI_MODEL").unwrap_or_else(|_| "gpt-4o-mini".to_owned());
    let mut agent = runtime
        .chat_agent(runtime.openai(model)?, "Be brief. Use the clock when you are asked about time.")
        .with_functions(Functions::new().with(clock()));
    if let Ok(servers) = runtime.mcp()
        && servers.is_enabled()
    {
        servers.initialize(Deadline::after(STARTING)).await?;
        agent = agent.with_function_provider(servers.clone());
    }
    let aborting = CancellationToken::new();
    let routes = Router::new()
        .route("/chat", post(chat))
        .route("/chat/stream", post(chat_stream))
        .route("/health", get(health))
        .route("/stats", get(stats))
        .with_state(Service { runtime: runtime.clone(), agent, aborting: aborting.clone() });

    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, routes, runtime, aborting).await
}

/// Serves until a signal; then lets running requests complete, and aborts those that do not in time.
async fn serve(
    listener: tokio::net::TcpListener,
    routes: Router,
    runtime: Arshai,
    aborting: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let signalled = async {
        signal().await;
        let _ = stop.send(());
    };
    let mut serving = pin!(axum::serve(listener, routes).with_graceful_shutdown(signalled).into_future());
    let too_late = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = &mut serving => served?,
        () = too_late => {
            println!("some requests did not complete in time");
            aborting.cancel();
            let _ = tokio::time::timeout(ABORTING, serving).await;
        }
    }
    let report = runtime.shutdown(Deadline::after(CLOSING)).await;
    println!("shut down {}", if report.is_clean() { "cleanly" } else { "with work left over" });
    Ok(())
}

async fn chat(
    State(service): State<Service>,
    Json(question): Json<Question>,
) -> Result<Json<Value>, ApiError> {
    let output = service.agent.process(question.into()).await?;
    Ok(Json(json!({"text": output.text, "model_calls": output.model_calls, "usage": output.usage})))
}

/// The turn as server-sent events: `text`, `tool`, and `done` or `error` at the end, also when it is aborted.
async fn chat_stream(
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
        let (name, data) = match &next {
            Ok(AgentEvent::Text(text)) => ("text", json!(text)),
            Ok(AgentEvent::ToolStarted { name, .. }) => ("tool", json!({"started": name})),
            Ok(AgentEvent::ToolEnded { name, error, .. }) => ("tool", json!({"ended": name, "error": error})),
            Ok(AgentEvent::Finished(output)) => {
                ("done", json!({"model_calls": output.model_calls, "usage": output.usage}))
            }
            Ok(_) => ("other", Value::Null),
            Err(error) => ("error", error_body(error)),
        };
        let event = Event::default().event(name).data(data.to_string());
        Some((Ok(event), next.is_ok().then_some((turn, aborting))))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn health(State(service): State<Service>) -> Response {
    let health = service.runtime.health(Deadline::after(Duration::from_secs(1))).await;
    let status = if health.is_usable() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!(health))).into_response()
}

async fn stats(State(service): State<Service>) -> Json<Value> {
    Json(json!(service.runtime.stats()))
}

/// The error as the client sees it: its kind and whether to try again. The rest is logged.
fn error_body(error: &arshai::Error) -> Value {
    eprintln!("a turn failed: {error}");
    json!({"error": format!("{:?}", error.kind()), "retryable": error.is_retryable()})
}

struct ApiError(arshai::Error);

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

fn clock() -> Function {
    Function::new("clock", |_: Value| async {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok::<_, std::time::SystemTimeError>(json!({"seconds_since_1970": now.as_secs()}))
    })
    .with_description("The time, as seconds since 1970 began")
}

/// Ctrl-C or SIGTERM.
async fn signal() {
    let interrupt = async { tokio::signal::ctrl_c().await.expect("a handler of Ctrl-C") };
    #[cfg(unix)]
    let terminate = async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind).expect("a handler of SIGTERM").recv().await;
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! { () = interrupt => {}, _ = terminate => {} }
}
