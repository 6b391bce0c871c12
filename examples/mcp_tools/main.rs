//! Several MCP servers under one manager: one npm package, one in Python, one that is down.
//!
//! ```text
//! cargo run --example mcp_tools --features mcp                  # the servers of examples/mcp_tools/servers.toml
//! cargo run --example mcp_tools --features mcp -- mine.toml     # your own
//! ```
//!
//! It connects, shows which tools a model is offered, searches for one, calls some, makes the server in Python exit, and
//! prints the health of each server as it changes. It ends by itself after about ten seconds. `RUST_LOG=arshai=debug`
//! shows what the servers write to stderr.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::config::{ConfigLoader, HostResources};
use arshai::mcp::{McpCall, McpServerHealth, McpServerManager, McpServerStatus, functions};
use arshai::tasks::{FunctionCall, FunctionExecutionInput, Functions};
use arshai::{Arshai, Deadline};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

const SERVERS: &str = "examples/mcp_tools/servers.toml";

/// How long the health of the servers is watched.
const WATCH: Duration = Duration::from_secs(8);

fn after(seconds: u64) -> Deadline {
    Deadline::after(Duration::from_secs(seconds))
}

#[tokio::main]
async fn main() -> arshai::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let file = std::env::args().nth(1).unwrap_or_else(|| SERVERS.to_owned());
    let vars = std::env::vars_os();
    let config = ConfigLoader::new().file(file).vars(vars).host_resources(HostResources::detect()).load()?;
    let runtime = Arshai::builder(config).build()?;
    let manager = Arc::clone(runtime.mcp()?);

    let began = Instant::now();
    // Servers that are down do not keep the others from being used; a `required` one that is down is an error.
    manager.initialize(after(60)).await?;
    println!("connected in {:.1} s", began.elapsed().as_secs_f64());
    manager.servers().iter().for_each(print_status);

    let tools = functions(&manager);
    print_tools(&tools);
    execute(&runtime, &tools, "search_tools", json!({ "query": "sum of two numbers", "limit": 2 })).await;
    print_tools(&tools);
    execute(&runtime, &tools, "echo", json!({ "message": "hello" })).await;
    execute(&runtime, &tools, "add", json!({ "a": 20, "b": 22 })).await;
    execute(&runtime, &tools, "get-tiny-image", json!({})).await;

    println!("\ncalls with a deadline of their own");
    let slow = McpCall::new("python", "slow").with_arguments(object(json!({ "seconds": 60 })));
    print_result(
        "slow",
        manager.call_tool(slow.with_deadline(Deadline::after(Duration::from_millis(500)))).await,
    );
    print_result("search on a server that is down", manager.call_tool(McpCall::new("wiki", "search")).await);
    print_result(
        "exit",
        manager.call_tool(McpCall::new("python", "exit").with_arguments(object(json!({ "code": 1 })))).await,
    );

    watch(manager.as_ref()).await;
    let report = runtime.shutdown(after(5)).await;
    println!("\nshut down {}", if report.is_clean() { "cleanly" } else { "with work left over" });
    Ok(())
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn print_status(server: &McpServerStatus) {
    let McpServerStatus { name, tools, protocol_version, error, next_attempt, .. } = server;
    let detail = match (server.health, error) {
        (McpServerHealth::Healthy, _) => {
            format!("{tools} tools, protocol {}", protocol_version.as_deref().unwrap_or("unknown"))
        }
        (_, Some(error)) => {
            let next = next_attempt.map(|next| format!("; next attempt in {:.1} s", next.as_secs_f64()));
            format!("{error}{}", next.unwrap_or_default())
        }
        _ => String::new(),
    };
    println!("  {name:<12} {:<12} {detail}", format!("{:?}", server.health));
}

/// The tools that a model is offered now.
fn print_tools(tools: &Functions) {
    let offered: Vec<_> = tools.offered().map(|tool| tool.name().to_owned()).collect();
    println!("\noffered to the model: {} of {}: {}", offered.len(), tools.len(), offered.join(", "));
}

/// Calls a tool as an agent does: through the executor.
async fn execute(runtime: &Arshai, tools: &Functions, name: &str, arguments: Value) {
    let input = FunctionExecutionInput::new(vec![FunctionCall::new(name, arguments)], tools.clone());
    let result = runtime.tasks().execute_functions(input.with_deadline(after(10))).await;
    for done in result.regular_results {
        println!("  {name}: {} {:?}", excerpt(&done.result.to_string()), done.attachments);
    }
    for failed in result.failed_functions {
        println!("  {name} failed: {}", failed.error);
    }
}

fn print_result(what: &str, result: arshai::Result<arshai::mcp::McpToolResult>) {
    match result {
        Ok(result) => println!("  {what}: {}", excerpt(&result.text())),
        Err(error) => println!("  {what}: {error}; outcome {:?}", error.outcome()),
    }
}

fn excerpt(text: &str) -> String {
    let line: String = text.chars().take(160).collect();
    if line.len() < text.len() { format!("{line}…") } else { line }
}

/// Prints each server's health when it changes, for a while.
async fn watch(manager: &dyn McpServerManager) {
    println!("\nhealth as it changes");
    let (began, mut known) = (Instant::now(), BTreeMap::new());
    while began.elapsed() < WATCH {
        for server in manager.servers() {
            if known.insert(server.name.clone(), server.health) != Some(server.health) {
                print!("{:>5.1} s", began.elapsed().as_secs_f64());
                print_status(&server);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
