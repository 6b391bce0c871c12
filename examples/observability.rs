//! Metrics for Prometheus and spans for OpenTelemetry.
//!
//! ```text
//! cargo run --example observability --features contract
//! curl localhost:9464/metrics
//! ```
//!
//! One turn of an agent runs against a scripted model. Its spans go to standard output; a service replaces the exporter
//! with one for its collector (`opentelemetry-otlp`). `--once` prints the metrics and exits.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use arshai::agent::{Agent, AgentInput};
use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{ChatResponse, ToolCall};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, Config, RuntimeStats};
use axum::Router;
use axum::routing::get;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spans = SdkTracerProvider::builder()
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(spans.tracer("service")))
        .init();

    let runtime = Arshai::builder(Config::load()?).build()?;
    run_turn(&runtime).await?;
    spans.shutdown()?;

    if std::env::args().any(|argument| argument == "--once") {
        print!("{}", prometheus(&runtime.stats()));
        return Ok(());
    }
    let metrics = move || {
        let text = prometheus(&runtime.stats());
        async { ([("content-type", "text/plain; version=0.0.4")], text) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:9464").await?;
    println!("metrics: http://{}/metrics", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/metrics", get(metrics))).await?;
    Ok(())
}

/// A question, a call of a tool, and the answer.
async fn run_turn(runtime: &Arshai) -> arshai::Result<()> {
    let model = ScriptedLlm::new([
        Ok(ChatResponse::from_tool_calls(vec![ToolCall::new("call-1", "weather", r#"{"city": "Oslo"}"#)])),
        Ok(ChatResponse::from_text("It snows in Oslo.")),
    ]);
    let weather = Function::new("weather", |_| async { Ok::<_, Infallible>(json!("snow")) })
        .with_description("The weather in a city.");
    let agent = runtime
        .chat_agent(Arc::new(model), "Answer in one sentence.")
        .with_functions(Functions::new().with(weather));
    agent.process(AgentInput::new("How is the weather in Oslo?").in_conversation("demo")).await?;
    Ok(())
}

/// Prometheus' text format: each limit with what is used of it, and each number among the counters.
fn prometheus(stats: &RuntimeStats) -> String {
    let mut used = String::from("# TYPE arshai_used gauge\n");
    let mut limits = String::from("# TYPE arshai_limit gauge\n");
    let mut counters = String::from("# TYPE arshai_counter untyped\n");
    for component in &stats.components {
        let name = &component.name;
        for limit in &component.limits {
            let labels = format!("component={name:?},key={:?},unit={:?}", limit.key, limit.unit);
            let _ = writeln!(used, "arshai_used{{{labels}}} {}", limit.used);
            // A limit that a rollback flag removed has no line.
            if let Some(max) = limit.limit {
                let _ = writeln!(limits, "arshai_limit{{{labels}}} {max}");
            }
        }
        write_counters(&mut counters, name, "", &component.counters);
    }
    used + &limits + &counters
}

/// Counters may be nested: `evictions.expired`.
fn write_counters(out: &mut String, component: &str, path: &str, value: &Value) {
    match value {
        Value::Number(number) => {
            let _ = writeln!(out, "arshai_counter{{component={component:?},name={path:?}}} {number}");
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                write_counters(out, component, &path, value);
            }
        }
        _ => {}
    }
}
