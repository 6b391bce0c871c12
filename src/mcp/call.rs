//! One call of a tool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::deadline::Deadline;
use crate::support::opaque_debug;

/// Receives progress of a call: what is done, the total where the server knows it, and a message.
pub type ProgressListener = Arc<dyn Fn(f64, Option<f64>, Option<&str>) + Send + Sync>;

/// A call of a tool.
#[derive(Clone)]
#[non_exhaustive]
pub struct McpCall {
    /// The server's name.
    pub server: String,
    /// The tool's name on the server.
    pub tool: String,
    /// The arguments.
    pub arguments: Map<String, Value>,
    /// When the call must have ended, in addition to the server's own `timeout`.
    pub deadline: Option<Deadline>,
    /// How long the server may be silent; each progress notification restarts the time. Default: the server's `timeout`.
    pub idle_timeout: Option<Duration>,
    /// Metadata of this call alone (`_meta`): the tenant, the user's token, a trace id. Keys of the protocol
    /// (`progressToken`, `io.modelcontextprotocol/…`) cannot be set.
    pub meta: Map<String, Value>,
    /// HTTP headers of this call alone, in addition to the server's own. Those of the protocol cannot be set.
    pub headers: BTreeMap<String, SecretString>,
    /// Bearer token of this call alone, instead of the server's authorization: the user's.
    pub token: Option<SecretString>,
    /// Called for every progress notification.
    pub progress: Option<ProgressListener>,
}

impl McpCall {
    /// A call without arguments.
    pub fn new(server: impl Into<String>, tool: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            tool: tool.into(),
            arguments: Map::new(),
            deadline: None,
            idle_timeout: None,
            meta: Map::new(),
            headers: BTreeMap::new(),
            token: None,
            progress: None,
        }
    }

    /// Sets the arguments.
    #[must_use]
    pub fn with_arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.arguments = arguments;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn with_argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how long the server may be silent.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Adds metadata of this call alone.
    #[must_use]
    pub fn with_meta(mut self, key: impl Into<String>, value: Value) -> Self {
        self.meta.insert(key.into(), value);
        self
    }

    /// Adds an HTTP header of this call alone.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the bearer token of this call alone.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<SecretString>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Calls `listener` for every progress notification.
    #[must_use]
    pub fn with_progress(
        mut self,
        listener: impl Fn(f64, Option<f64>, Option<&str>) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(listener));
        self
    }
}

// Shows which tool is called; arguments and metadata may be private.
opaque_debug!(McpCall { server, tool });
