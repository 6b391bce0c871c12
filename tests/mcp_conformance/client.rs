//! The client: connects through the manager, lists the tools and calls them.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arshai::config::{McpAuth, McpProtocol, McpServerConfig};
use arshai::http::HttpRequest;
use arshai::mcp::{
    McpCall, McpClientCapabilities, McpClientHandler, McpElicitation, McpElicitationResult, McpServerHealth,
    McpServerManager, McpTool,
};
use arshai::{Arshai, Config, Deadline, Error, ErrorKind, Result};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Where the suite expects the client's metadata document and its redirects.
const CLIENT_METADATA: &str = "https://conformance-test.local/client-metadata.json";
const REDIRECT: &str = "http://localhost:3000/callback";
/// How often the client follows a server that wants authorization once more.
const MAX_AUTHORIZATIONS: usize = 3;

/// What the suite says besides the scenario's name and the server's URL.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Context {
    tool_calls: Vec<ToolCall>,
    #[serde(rename = "client_id")]
    client_id: Option<String>,
    #[serde(rename = "client_secret")]
    client_secret: Option<String>,
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
    let context = context()?;
    let runtime = Arshai::builder(config(&context)).mcp_handler(Arc::new(User)).build()?;
    let manager = runtime.mcp()?;
    manager.initialize(soon()).await?;
    let called = match authorize(&runtime, manager).await {
        Ok(()) => call_tools(&runtime, manager, context).await,
        failed => failed,
    };
    runtime.shutdown(Deadline::after(Duration::from_secs(5))).await;
    called
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn context() -> Result<Context> {
    let Ok(context) = std::env::var("MCP_CONFORMANCE_CONTEXT") else { return Ok(Context::default()) };
    serde_json::from_str(&context)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, "conformance", error.to_string()))
}

fn config(context: &Context) -> Config {
    let url = std::env::args().next_back().unwrap_or_default();
    let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_default();
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let mut server = McpServerConfig::http("server", url);
    if std::env::args().nth(1).as_deref() == Some("given") {
        server.protocol = match version.as_str() {
            "2026-07-28" => McpProtocol::Stateless,
            _ => McpProtocol::Initialize,
        };
    }
    server.auth = scenario.starts_with("auth/").then(|| auth(context));
    let mut config = Config::default();
    config.mcp.enabled = true;
    config.mcp.servers = vec![server];
    config
}

fn auth(context: &Context) -> McpAuth {
    let mut auth = McpAuth::oauth();
    if let McpAuth::OAuth { client_id, client_secret, client_metadata_url, .. } = &mut auth {
        client_id.clone_from(&context.client_id);
        *client_secret = context.client_secret.clone().map(Into::into);
        *client_metadata_url = Some(CLIENT_METADATA.to_owned());
    }
    auth
}

/// Authorizes as often as the server wants it, within reason.
async fn authorize(runtime: &Arshai, manager: &Arc<dyn McpServerManager>) -> Result<()> {
    for _ in 0..MAX_AUTHORIZATIONS {
        match manager.servers()[0].health {
            McpServerHealth::Healthy => return Ok(()),
            McpServerHealth::NeedsAuthorization => match visit(runtime, manager).await {
                // It moved to another authorization server in the middle of connecting.
                Err(error) if error.kind() == ErrorKind::Authentication => {}
                visited => visited?,
            },
            _ => break,
        }
    }
    let message = format!("not connected: {:?}", manager.servers());
    Err(Error::new(ErrorKind::Unavailable, "conformance", message))
}

/// The user's visit to the authorization server.
async fn visit(runtime: &Arshai, manager: &Arc<dyn McpServerManager>) -> Result<()> {
    let url = manager.begin_authorization("server", REDIRECT, soon()).await?;
    let invalid = |what: &str| Error::new(ErrorKind::Protocol, "conformance", format!("no {what}"));
    let request = http::Request::get(url).body(Default::default()).map_err(|_| invalid("URL to open"))?;
    let response = runtime.http()?.send(HttpRequest::new(request).with_deadline(Some(soon()))).await?;
    let location = response.headers.get("location").and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| invalid("redirect"))?;
    manager.complete_authorization("server", location, soon()).await
}

async fn call_tools(runtime: &Arshai, manager: &Arc<dyn McpServerManager>, context: Context) -> Result<()> {
    for call in calls(context, manager.get_all_available_tools()) {
        for _ in 0..MAX_AUTHORIZATIONS {
            // What a tool answers is the suite's matter.
            match manager.call_tool(call.clone()).await {
                Ok(result) => println!("{}", result.text()),
                Err(error) if error.kind() == ErrorKind::Authentication => {
                    println!("{error}");
                    visit(runtime, manager).await?;
                    continue;
                }
                Err(error) => println!("{error}"),
            }
            break;
        }
    }
    Ok(())
}

/// The calls that the suite asks for, else one of each tool.
fn calls(context: Context, tools: Vec<McpTool>) -> Vec<McpCall> {
    if !context.tool_calls.is_empty() {
        let calls = context.tool_calls.into_iter();
        return calls.map(|call| McpCall::new("server", call.name).with_arguments(call.arguments)).collect();
    }
    let call = |tool: McpTool| {
        let arguments = fill_in(&tool.input_schema);
        McpCall::new("server", tool.original_name).with_arguments(arguments)
    };
    tools.into_iter().map(call).collect()
}
