//! A chat service over HTTP, with a page that shows what the runtime does.
//!
//! ```text
//! cargo run --release --example web_service                      # then open http://127.0.0.1:8080
//! OPENAI_API_KEY=… cargo run --release --example web_service     # with a model of OpenAI's
//! curl localhost:8080/chat -H 'content-type: application/json' -d '{"message": "What time is it?", "conversation": "a"}'
//! curl -N localhost:8080/chat/stream -H 'content-type: application/json' -d '{"message": "And tomorrow?", "conversation": "a"}'
//! curl localhost:8080/health; curl localhost:8080/stats
//! ```
//!
//! Without a configured OpenAI key or endpoint it uses a scripted model, which it serves itself. `OPENAI_BASE_URL` and
//! `OPENAI_MODEL` choose another endpoint and model, `LISTEN` another address than `127.0.0.1:8080`, `GRACE` another grace
//! period than ten seconds; everything else comes from `ARSHAI_*` variables. With the cargo feature `mcp`, the tools of
//! configured MCP servers are offered too (`ARSHAI_CONFIG` names a file with `mcp.servers`, such as
//! `examples/mcp_tools/servers.toml`).
//!
//! A client that disconnects cancels its turn. Ctrl-C or SIGTERM stops accepting requests, lets running turns complete for
//! the grace period and aborts the rest.

mod chat;
mod live;
mod page;
mod scripted_model;
mod tools;

use std::future::IntoFuture;
use std::pin::pin;
use std::time::Duration;

use arshai::agent::ChatAgent;
use arshai::{Arshai, Config, Deadline};
use axum::Router;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

/// Timeout for connecting to MCP servers; those that are down by then are connected later.
const STARTING: Duration = Duration::from_secs(30);

/// Seconds that running requests have after a signal, unless `GRACE` says otherwise.
const GRACE: u64 = 10;

/// Timeout for background tasks after that.
const CLOSING: Duration = Duration::from_secs(2);

/// Timeout for aborted streams to send their last event.
const ABORTING: Duration = Duration::from_secs(1);

const SYSTEM_PROMPT: &str =
    "Be brief. Use the clock when you are asked about time, and the calculator for arithmetic.";

#[derive(Clone)]
struct Service {
    runtime: Arshai,
    agent: ChatAgent,
    live: live::Live,
    /// Cancelled by a signal.
    stopping: CancellationToken,
    /// Cancelled when running requests have used up the grace period.
    aborting: CancellationToken,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let grace = variable("GRACE")
        .map_or(Ok(GRACE), |text| text.parse())
        .map_err(|error| format!("GRACE is not a number of seconds: {error}; for example GRACE=10"))?;
    let mut config = Config::load()?;
    let scripted = config.llm.openai.api_key.is_none() && config.llm.openai.base_url.is_none();
    let model = if scripted {
        config.llm.openai.base_url = Some(scripted_model::start().await?);
        config.llm.openai.api_key = Some("none".into());
        "scripted model".to_owned()
    } else {
        variable("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".to_owned())
    };
    let about = live::about(&model, scripted, &config.rollback);

    let runtime = Arshai::builder(config).build()?;
    let (stopping, aborting) = (CancellationToken::new(), CancellationToken::new());
    let service = Service {
        agent: agent(&runtime, model).await?,
        live: live::Live::new(runtime.clone(), about),
        runtime: runtime.clone(),
        stopping: stopping.clone(),
        aborting: aborting.clone(),
    };
    let address = variable("LISTEN").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await.map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; LISTEN chooses another address, for example 127.0.0.1:8081"
        )
    })?;
    println!("listening on http://{}", listener.local_addr()?);

    serve(listener, routes(service), Duration::from_secs(grace), stopping, aborting).await?;
    let report = runtime.shutdown(Deadline::after(CLOSING)).await;
    println!("shut down {}", if report.is_clean() { "cleanly" } else { "with work left over" });
    Ok(())
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An agent with the tools of this example and those of the configured MCP servers.
async fn agent(runtime: &Arshai, model: String) -> arshai::Result<ChatAgent> {
    let agent = runtime.chat_agent(runtime.openai(model)?, SYSTEM_PROMPT).with_functions(tools::all());
    match runtime.mcp() {
        Ok(servers) if servers.is_enabled() => {
            servers.initialize(Deadline::after(STARTING)).await?;
            Ok(agent.with_function_provider(servers.clone()))
        }
        _ => Ok(agent),
    }
}

fn routes(service: Service) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/chat", post(chat::chat))
        .route("/chat/stream", post(chat::chat_stream))
        .route("/health", get(live::health))
        .route("/stats", get(live::stats))
        .route("/live", get(live::live))
        .with_state(service)
}

/// Serves until a signal; then lets running requests complete, and aborts those that do not in time.
async fn serve(
    listener: tokio::net::TcpListener,
    routes: Router,
    grace: Duration,
    stopping: CancellationToken,
    aborting: CancellationToken,
) -> std::io::Result<()> {
    let stopped = stopping.clone();
    let signalled = async move {
        signal().await;
        stopping.cancel();
    };
    let mut serving = pin!(axum::serve(listener, routes).with_graceful_shutdown(signalled).into_future());
    let too_late = async {
        stopped.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        served = &mut serving => served,
        () = too_late => {
            println!("some requests did not complete in time");
            aborting.cancel();
            let _ = tokio::time::timeout(ABORTING, serving).await;
            Ok(())
        }
    }
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
