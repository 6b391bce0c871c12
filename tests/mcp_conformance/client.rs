//! The client: connects through the manager, lists the tools and calls them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arshai::config::{McpProtocol, McpServerConfig};
use arshai::mcp::{
    McpCall, McpClientCapabilities, McpClientHandler, McpElicitation, McpElicitationResult, McpServerManager,
    McpTool,
};
use arshai::{Arshai, Config, Deadline, Error, ErrorKind, Result};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What the suite says besides the scenario's name and the server's URL.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Context {
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// A user who accepts every form as it is.
struct User;

#[async_trait]
impl McpClientHandler for User {
    fn capabilities(&self) -> McpClientCapabilities {
        McpClientCapabilities::elicitation()
    }

    async fn elicit(&self, _: &str, request: McpElicitation) -> Result<McpElicitationResult> {
        let values = match &request {
            McpElicitation::Form { schema, .. } => fill_in(schema),
            _ => Map::new(),
        };
        Ok(McpElicitationResult::Accept(values))
    }
}

/// Values for an object's fields: their defaults, or something of their type.
fn fill_in(schema: &Value) -> Map<String, Value> {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|field| field == name))
    };
    let fields = schema["properties"].as_object().into_iter().flatten();
    let values = fields.filter_map(|(name, field)| {
        let value = match (field.get("default"), field["type"].as_str()) {
            (Some(default), _) => default.clone(),
            (None, Some("boolean")) => true.into(),
            (None, _) if !required(name) => return None,
            (None, Some("number" | "integer")) => 1.into(),
            (None, Some("array")) => json!([]),
            (None, Some("object")) => json!({}),
            (None, _) => "text".into(),
        };
        Some((name.clone(), value))
    });
    values.collect()
}

pub(crate) fn run(scenario: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(connect_and_call()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{scenario}: {error} ({error:?})");
            ExitCode::FAILURE
        }
    }
}

async fn connect_and_call() -> Result<()> {
    let runtime = Arshai::builder(config()).mcp_handler(Arc::new(User)).build()?;
    let manager = runtime.mcp()?;
    manager.initialize(Deadline::after(Duration::from_secs(60))).await?;
    let called = call_tools(manager).await;
    runtime.shutdown(Deadline::after(Duration::from_secs(5))).await;
    called
}

fn config() -> Config {
    let url = std::env::args().next_back().unwrap_or_default();
    let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_default();
    let mut server = McpServerConfig::http("server", url);
    server.required = true;
    if std::env::args().nth(1).as_deref() == Some("given") {
        server.protocol = match version.as_str() {
            "2026-07-28" => McpProtocol::Stateless,
            _ => McpProtocol::Initialize,
        };
    }
    let mut config = Config::default();
    config.mcp.enabled = true;
    config.mcp.servers = vec![server];
    config
}

async fn call_tools(manager: &Arc<dyn McpServerManager>) -> Result<()> {
    for call in calls(manager.get_all_available_tools())? {
        // What a tool answers is the suite's matter.
        match manager.call_tool(call).await {
            Ok(result) => println!("{}", result.text()),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}

/// The calls that the suite asks for, else one of each tool.
fn calls(tools: Vec<McpTool>) -> Result<Vec<McpCall>> {
    let context: Context = match std::env::var("MCP_CONFORMANCE_CONTEXT") {
        Ok(context) => serde_json::from_str(&context)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, "conformance", error.to_string()))?,
        Err(_) => Context::default(),
    };
    if !context.tool_calls.is_empty() {
        let calls = context.tool_calls.into_iter();
        return Ok(calls
            .map(|call| McpCall::new("server", call.name).with_arguments(call.arguments))
            .collect());
    }
    let call = |tool: McpTool| {
        let arguments = fill_in(&tool.input_schema);
        McpCall::new("server", tool.original_name).with_arguments(arguments)
    };
    Ok(tools.into_iter().map(call).collect())
}
