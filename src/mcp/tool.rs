//! Tools of MCP servers.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{McpCall, McpServerManager, ProgressListener};
use crate::tasks::{CallContext, Function, FunctionError};

/// A tool of a connected server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct McpTool {
    /// The name it is offered under: unique among all servers, and one that model providers accept.
    pub name: String,
    /// Its name on the server.
    pub original_name: String,
    /// The server's description.
    pub description: String,
    /// The JSON schema of its arguments.
    #[serde(rename = "inputSchema")]
    pub input_schema: Value,
    /// Identifies its definition on the server: `sha256:` and the hash of its JSON, without `_meta` and with sorted keys.
    /// Empty where the implementation takes none.
    pub fingerprint: String,
    /// The server's name.
    pub server_name: String,
    /// The server's URL; `None` for a child process.
    pub server_url: Option<String>,
}

impl McpTool {
    /// A tool of a server, offered under its own name until another is [assigned](super::ToolNames).
    #[must_use]
    pub fn new(
        server_name: impl Into<String>,
        name: impl Into<String>,
        description: impl Into<String>,
        input_schema: Value,
    ) -> Self {
        let original_name = name.into();
        Self {
            name: original_name.clone(),
            original_name,
            description: description.into(),
            input_schema,
            fingerprint: String::new(),
            server_name: server_name.into(),
            server_url: None,
        }
    }

    /// Sets the fingerprint.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.fingerprint = fingerprint.into();
        self
    }

    /// This tool as a function of the task executor. A result that the server marks as an error fails the call with its
    /// text.
    #[must_use]
    pub fn into_function(self, manager: Arc<dyn McpServerManager>) -> Function {
        let Self { name, original_name, description, input_schema, server_name, .. } = self;
        let call = move |context: CallContext, args: Value| {
            let manager = Arc::clone(&manager);
            let arguments = match args {
                Value::Object(arguments) => arguments,
                _ => Map::new(),
            };
            let mut call = McpCall::new(server_name.clone(), original_name.clone()).with_arguments(arguments);
            call.deadline = context.deadline();
            call.progress = Some(report_to(context));
            async move {
                let result =
                    manager.call_tool(call).await.map_err(|error| FunctionError::new(error.to_string()))?;
                if result.is_error {
                    return Err(FunctionError::new(result.text()));
                }
                Ok(result.into_output())
            }
        };
        // The manager limits results.
        Function::new_with_output(name, call)
            .with_description(description)
            .with_parameters(input_schema)
            .with_max_result_bytes(usize::MAX)
    }

    /// Size of the definition that a model is offered: name, description and schema as JSON, in bytes.
    #[must_use]
    pub fn definition_bytes(&self) -> usize {
        json!({ "name": self.name, "description": self.description, "parameters": self.input_schema })
            .to_string()
            .len()
    }
}

/// Reports the progress of a tool as that of the function's call.
fn report_to(context: CallContext) -> ProgressListener {
    Arc::new(move |progress, total, message| {
        context.report_progress(json!({ "progress": progress, "total": total, "message": message }));
    })
}
