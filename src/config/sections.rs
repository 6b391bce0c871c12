//! The sections of the configuration and their defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use super::explain::Origin;
use super::keys::redact_url;

/// Everything a runtime can be told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// How often expired entries are cleaned up in the background.
    pub cleanup_interval: Duration,
    /// Conversation memory.
    pub memory: MemoryConfig,
    /// Connection pools: HTTP and Redis each have one of this size.
    pub pool: PoolConfig,
    /// Task execution.
    pub tasks: TaskConfig,
    /// Vector storage.
    pub vectors: VectorConfig,
    /// HTTP.
    pub http: HttpConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Milvus.
    pub milvus: MilvusConfig,
    /// MCP servers.
    pub mcp: McpConfig,
    /// Model providers.
    pub llm: LlmConfig,
    /// Rollback flags.
    pub rollback: RollbackConfig,
    pub(super) origin: Origin,
}

/// Conversation memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Which backend.
    pub backend: String,
    /// The most memory the in-process store may take, in MiB.
    pub max_memory_mb: u64,
    /// The most entries of the in-process store.
    pub max_entries: u64,
    /// How long an entry lives.
    pub ttl: Duration,
}

/// Connection pools.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Which backend.
    pub backend: String,
    /// The most connections of each pool.
    pub max_connections: usize,
    /// The most idle connections kept.
    pub max_idle: usize,
    /// The most callers that wait for a connection; one more is refused at once.
    pub max_waiting: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Timeout for connecting to Redis, Milvus, an MCP server or by HTTP, unless that section sets its own.
    pub connect_timeout: Duration,
}

/// Task execution.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskConfig {
    /// Which backend.
    pub backend: String,
    /// The most background tasks at once.
    pub max_background_tasks: usize,
    /// The share of background slots, in percent, at which a warning is logged.
    pub background_warning_percent: u8,
    /// The most regular calls at once.
    pub max_concurrency: usize,
    /// The deadline of a call whose function has none of its own.
    pub timeout: Duration,
    /// The most bytes of a result's JSON.
    pub max_result_bytes: usize,
    /// The most threads for blocking functions.
    pub max_blocking_threads: usize,
}

/// Vector storage.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VectorConfig {
    /// Which backend.
    pub backend: String,
    /// The most memory the embedded store may take, in MiB.
    pub max_memory_mb: u64,
}

/// HTTP.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Which backend.
    pub backend: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a response may be silent.
    pub read_timeout: Duration,
    /// How long sending may take.
    pub write_timeout: Duration,
    /// How long a request may wait for a connection.
    pub pool_timeout: Duration,
    /// How long a whole call may take.
    pub total_timeout: Duration,
    /// The most requests that wait for a connection; one more is refused at once.
    pub max_waiting: usize,
    /// The most decoded bytes of a response's body.
    pub max_body_bytes: u64,
    /// How often a safe request is retried.
    pub max_retries: u32,
    /// Hosts to which plain `http` is allowed besides loopback.
    pub insecure_hosts: Vec<String>,
    /// A proxy's URL; none unless set. The environment's proxy variables are not read.
    pub proxy: Option<SecretString>,
}

/// Redis.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Its URL, which may hold a password.
    pub url: SecretString,
    /// Timeout for connecting, within that of the command that needs the connection.
    pub connect_timeout: Duration,
    /// How long a command may take, reconnecting included.
    pub command_timeout: Duration,
    /// Maximum number of pending commands; further commands fail immediately with `Capacity`.
    pub max_pending_commands: usize,
    /// The most bytes of commands sent or waiting and of the values they write.
    pub max_pending_bytes: usize,
    /// The most bytes of a value written or read.
    pub max_value_bytes: usize,
    /// A file of certificates (PEM) trusted for `rediss://`; the system's unless set.
    pub ca_file: Option<String>,
}

/// Milvus.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MilvusConfig {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Timeout for connecting.
    pub connect_timeout: Duration,
    /// The database.
    pub db_name: String,
    /// Entities per insert.
    pub batch_size: usize,
    /// The token, if it wants one.
    pub token: Option<SecretString>,
}

/// MCP servers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct McpConfig {
    /// Whether any are used.
    pub enabled: bool,
    /// How long connecting may take.
    pub connection_timeout: Duration,
    /// Attempts for servers that do not say.
    pub default_max_retries: u32,
    /// The servers.
    pub servers: Vec<McpServerConfig>,
    /// TMP
    pub inherited_env: BTreeMap<String, String>,
}

/// One MCP server.
#[derive(Clone)]
#[non_exhaustive]
pub struct McpServerConfig {
    /// Its name.
    pub name: String,
    /// Its URL, of an HTTP server.
    pub url: Option<String>,
    /// The program, of a stdio server.
    pub command: Option<String>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The program's environment.
    pub env: BTreeMap<String, SecretString>,
    /// The deadline of its calls.
    pub timeout: Duration,
    /// Attempts to connect.
    pub max_retries: Option<u32>,
    /// What it is for.
    pub description: Option<String>,
    /// TMP
    pub headers: BTreeMap<String, SecretString>,
    /// TMP
    pub token: Option<SecretString>,
    /// TMP
    pub protocol: McpProtocol,
    /// TMP
    pub max_concurrency: usize,
    /// TMP
    pub required: bool,
    /// TMP
    pub prefix: Option<String>,
    /// TMP
    pub allow_tools: Option<Vec<String>>,
    /// TMP
    pub deny_tools: Vec<String>,
}
/// TMP
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum McpProtocol {
    /// TMP
    #[default]
    Auto,
    /// TMP
    Stateless,
    /// TMP
    Initialize,
}

impl McpServerConfig {
    /// A server at `url` with Python arshai's defaults.
    #[must_use]
    pub fn at(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: Some(url.into()),
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_retries: None,
            description: None,
            headers: BTreeMap::new(),
            token: None,
            protocol: McpProtocol::Auto,
            max_concurrency: 16,
            required: false,
            prefix: None,
            allow_tools: None,
            deny_tools: Vec::new(),
        }
    }
}

/// Shows which server it is; URL, arguments and environment may hold tokens.
impl fmt::Debug for McpServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServerConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Model providers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LlmConfig {
    /// Whether the number of requests at once follows what a provider bears.
    pub adaptive_concurrency: bool,
    /// The most requests at once to one model with one key.
    pub max_concurrency: usize,
    /// OpenAI and whatever speaks its protocol.
    pub openai: OpenAiConfig,
    /// Azure OpenAI.
    pub azure: AzureConfig,
    /// OpenRouter.
    pub openrouter: OpenRouterConfig,
    /// Gemini.
    pub google: GoogleConfig,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            adaptive_concurrency: true,
            max_concurrency: 64,
            openai: OpenAiConfig::default(),
            azure: AzureConfig::default(),
            openrouter: OpenRouterConfig::default(),
            google: GoogleConfig::default(),
        }
    }
}

/// OpenAI and whatever speaks its protocol.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OpenAiConfig {
    /// The key.
    pub api_key: Option<SecretString>,
    /// The endpoint; `https://api.openai.com/v1` unless set.
    pub base_url: Option<String>,
}

/// Azure OpenAI.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct AzureConfig {
    /// The resource's endpoint.
    pub endpoint: Option<String>,
    /// The key.
    pub api_key: Option<SecretString>,
    /// The deployment.
    pub deployment: Option<String>,
    /// The API version.
    pub api_version: Option<String>,
}

/// OpenRouter.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OpenRouterConfig {
    /// The key.
    pub api_key: Option<SecretString>,
    /// The endpoint.
    pub base_url: Option<String>,
    /// Your site, for its rankings.
    pub site_url: Option<String>,
    /// Your application's name, for its rankings.
    pub app_name: Option<String>,
}

/// Shows an endpoint without its credentials and query.
fn shown(endpoint: &Option<String>) -> Option<String> {
    endpoint.as_deref().map(redact_url)
}

impl fmt::Debug for OpenAiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiConfig")
            .field("api_key", &self.api_key)
            .field("base_url", &shown(&self.base_url))
            .finish()
    }
}

impl fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureConfig")
            .field("endpoint", &shown(&self.endpoint))
            .field("api_key", &self.api_key)
            .field("deployment", &self.deployment)
            .field("api_version", &self.api_version)
            .finish()
    }
}

impl fmt::Debug for OpenRouterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRouterConfig")
            .field("api_key", &self.api_key)
            .field("base_url", &shown(&self.base_url))
            .field("site_url", &shown(&self.site_url))
            .field("app_name", &self.app_name)
            .finish()
    }
}

/// Gemini.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct GoogleConfig {
    /// The key.
    pub api_key: Option<SecretString>,
    /// The endpoint; Google's OpenAI-compatible one unless set.
    pub base_url: Option<String>,
}

impl fmt::Debug for GoogleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleConfig")
            .field("api_key", &self.api_key)
            .field("base_url", &shown(&self.base_url))
            .finish()
    }
}

/// Rollback flags: each puts a part back to its earlier behaviour.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct RollbackConfig {
    /// Both others, plus unbounded background tasks and per-call flush in Milvus inserts.
    pub disable_optimizations: bool,
    /// The in-process store as it was: unbounded, swept on each operation.
    pub use_legacy_memory: bool,
    /// HTTP, Redis and MCP connections as they were.
    pub use_legacy_connections: bool,
}

impl Default for Config {
    /// The defaults outside a container, without reading the machine.
    fn default() -> Self {
        Self {
            cleanup_interval: Duration::from_secs(300),
            memory: MemoryConfig {
                backend: "in_memory".into(),
                max_memory_mb: 500,
                max_entries: 10_000,
                ttl: Duration::from_secs(43_200),
            },
            pool: PoolConfig {
                backend: "bounded".into(),
                max_connections: 20,
                max_idle: 8,
                max_waiting: 1_000,
                idle_timeout: Duration::from_secs(15),
                connect_timeout: Duration::from_secs(30),
            },
            tasks: TaskConfig {
                backend: "bounded".into(),
                max_background_tasks: 1_000,
                background_warning_percent: 80,
                max_concurrency: 64,
                timeout: Duration::from_secs(60),
                max_result_bytes: 1 << 20,
                max_blocking_threads: 64,
            },
            vectors: VectorConfig { backend: "embedded".into(), max_memory_mb: 1_024 },
            http: HttpConfig {
                backend: "ureq".into(),
                connect_timeout: Duration::from_secs(10),
                read_timeout: Duration::from_secs(60),
                write_timeout: Duration::from_secs(10),
                pool_timeout: Duration::from_secs(5),
                total_timeout: Duration::from_secs(600),
                max_waiting: 1_000,
                max_body_bytes: 16 << 20,
                max_retries: 3,
                insecure_hosts: Vec::new(),
                proxy: None,
            },
            redis: RedisConfig {
                url: "redis://localhost:6379/1".into(),
                connect_timeout: Duration::from_secs(30),
                command_timeout: Duration::from_secs(5),
                max_pending_commands: 10_000,
                max_pending_bytes: 64 << 20,
                max_value_bytes: 16 << 20,
                ca_file: None,
            },
            milvus: MilvusConfig {
                host: "localhost".into(),
                port: 19_530,
                connect_timeout: Duration::from_secs(30),
                db_name: "default".into(),
                batch_size: 1_000,
                token: None,
            },
            mcp: McpConfig {
                enabled: false,
                connection_timeout: Duration::from_secs(30),
                default_max_retries: 3,
                servers: Vec::new(),
                inherited_env: BTreeMap::new(),
            },
            llm: LlmConfig::default(),
            rollback: RollbackConfig::default(),
            origin: Origin::default(),
        }
    }
}
