//! The table of every key: section, type, default, environment variable, unit, range and legacy value.

use std::time::Duration;

use secrecy::SecretString;

use super::backends::BackendSections;
use super::key::{Key, sections};
use super::mcp_servers::{InheritedEnv, McpServerConfig};
use super::mcp_tool_changes::McpToolChanges;
use super::provenance::Provenance;
use super::setting::Setting;
use super::spec::Legacy::{HttpPool, NotUsed, Optimization, Unlimited};
use super::spec::Spec;

const HTTP: &[&str] = &["http", "https"];
const PROXY: &[&str] = &["http", "https"];
const REDIS: &[&str] =
    &["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

sections! {
    /// The complete runtime configuration. The defaults are those outside a container.
    Config () {
        /// Interval between background removals of expired conversations.
        cleanup_interval: Duration = Duration::from_secs(300), env: "ARSHAI_CLEANUP_INTERVAL", unit: "s",
            legacy: NotUsed("memory.backend");
        sections:
        /// Conversation memory.
        pub memory: MemoryConfig;
        /// Connection pools: HTTP and Redis each have one of this size.
        pub pool: PoolConfig;
        /// Task execution.
        pub tasks: TaskConfig;
        /// Vector storage.
        pub vectors: VectorConfig;
        /// HTTP.
        pub http: HttpConfig;
        /// Redis.
        pub redis: RedisConfig;
        /// Milvus.
        pub milvus: MilvusConfig;
        /// MCP servers.
        pub mcp: McpConfig;
        /// Model providers.
        pub llm: LlmConfig;
        /// Rollback flags.
        pub rollback: RollbackConfig;
        /// Settings of outside backends.
        pub backends: BackendSections;
        /// Where the values came from.
        pub(super) provenance: Provenance;
    }

    /// Conversation memory.
    MemoryConfig (memory) {
        /// Backend of conversation memory.
        backend: String = "in_memory".into(), env: "ARSHAI_MEMORY_BACKEND";
        /// Maximum memory of the in-process store, its overhead included; by default at most half the container's limit.
        max_memory_mb: u64 = 500, env: "ARSHAI_MAX_MEMORY_MB", unit: "MiB",
            legacy: Unlimited("memory.backend");
        /// Maximum number of entries of the in-process store.
        max_entries: u64 = 10_000, env: "ARSHAI_MAX_ENTRIES", legacy: Unlimited("memory.backend");
        /// TTL of an entry.
        ttl: Duration = Duration::from_secs(43_200), env: "ARSHAI_MEMORY_TTL", unit: "s";
    }

    /// Connection pools.
    PoolConfig (pool) {
        /// Connection pool implementation: `bounded`, `mobc` or `legacy`.
        backend: String = "bounded".into();
        /// Maximum number of connections of each pool.
        max_connections: usize = 20, env: "ARSHAI_MAX_CONNECTIONS", legacy: HttpPool("50");
        /// Maximum number of idle connections of each pool; by default at most 2 × cores, in a container min(5, cores).
        max_idle: usize = 8, min: 0, legacy: HttpPool("20");
        /// Maximum number of callers queued for a connection; further callers fail immediately.
        max_waiting: usize = 1_000, min: 0, legacy: Unlimited("pool.backend");
        /// Time after which an idle connection is closed.
        idle_timeout: Duration = Duration::from_secs(15), unit: "s", legacy: HttpPool("30");
        /// Timeout for connecting to Redis, Milvus, an MCP server or by HTTP, unless that section's own key is set.
        connect_timeout: Duration = Duration::from_secs(30), env: "ARSHAI_CONNECTION_TIMEOUT", unit: "s";
    }

    /// Task execution.
    TaskConfig (tasks) {
        /// Task executor.
        backend: String = "bounded".into();
        /// Maximum number of concurrent background tasks; 0 rejects them all.
        max_background_tasks: usize = 1_000, env: "ARSHAI_MAX_BACKGROUND_TASKS", min: 0,
            legacy: Unlimited("tasks.backend");
        /// Percentage of `max_background_tasks` at which a warning is logged.
        background_warning_percent: u8 = 80, unit: "%", max: 100, legacy: NotUsed("tasks.backend");
        /// Maximum number of concurrent regular calls.
        max_concurrency: usize = 64, legacy: Unlimited("tasks.backend");
        /// Timeout of a call whose function sets none.
        timeout: Duration = Duration::from_secs(60), unit: "s", legacy: Unlimited("tasks.backend");
        /// Maximum size of a result as JSON.
        max_result_bytes: usize = 1 << 20, unit: "bytes", legacy: Unlimited("tasks.backend");
        /// Maximum number of threads for blocking functions.
        max_blocking_threads: usize = 64, legacy: NotUsed("tasks.backend");
    }

    /// Vector storage.
    VectorConfig (vectors) {
        /// Vector store.
        backend: String = "embedded".into(), env: "ARSHAI_VECTOR_BACKEND";
        /// Maximum memory of the embedded store; by default at most a quarter of the container's limit.
        max_memory_mb: u64 = 1_024, unit: "MiB";
        /// Folder in which the embedded store keeps its collections; without one, they are in memory only.
        path: Option<String> = None, env: "ARSHAI_VECTOR_PATH", example: "/var/lib/my-service/vectors";
        /// Whether a write to `vectors.path` is acknowledged only once it is on the disk, so that it survives a power failure.
        sync: bool = true;
        /// Maximum number of threads of the embedded store for large searches and queries.
        search_threads: usize = 4;
        /// Maximum number of threads of the embedded store for large writes.
        write_threads: usize = 2;
    }

    /// HTTP.
    HttpConfig (http) {
        /// HTTP transport: `ureq`, or `hyper` (cargo feature `hyper`) for hundreds of concurrent streams.
        backend: String = "ureq".into();
        /// Timeout for connecting.
        connect_timeout: Duration = Duration::from_secs(10), unit: "s";
        /// Maximum silence before a response begins: the time that a model may think without streaming.
        first_byte_timeout: Duration = Duration::from_secs(300), unit: "s";
        /// Maximum silence within a response body; a stream may last longer.
        read_timeout: Duration = Duration::from_secs(60), unit: "s";
        /// Timeout for sending.
        write_timeout: Duration = Duration::from_secs(10), unit: "s";
        /// Timeout for waiting for a connection, for requests without a deadline; other requests wait until theirs.
        pool_timeout: Duration = Duration::from_secs(5), unit: "s", legacy: Unlimited("http.backend");
        /// Timeout of a whole call, retries included.
        total_timeout: Duration = Duration::from_secs(600), unit: "s";
        /// Maximum number of requests queued for a connection; further requests fail immediately.
        max_waiting: usize = 1_000, min: 0, legacy: Unlimited("http.backend");
        /// Maximum decoded size of a response body.
        max_body_bytes: u64 = 16 << 20, unit: "bytes";
        /// Maximum number of retries of a request that is safe to repeat.
        max_retries: u32 = 3, min: 0, max: 100;
        /// Hosts that may be reached over plain `http`, besides loopback: `host`, `host:port`, `.domain`, a network or `*`.
        insecure_hosts: Vec<String> = Vec::new(), host: true, example: "models.internal,10.0.0.5:8000";
        /// Proxy URL, with user and password where it needs them. The proxy variables of the environment are not read.
        proxy: Option<SecretString> = None, schemes: PROXY, example: "http://proxy.internal:3128";
        /// Hosts that are reached without the proxy, besides loopback; written as in `insecure_hosts`.
        no_proxy: Vec<String> = Vec::new(), host: true, example: ".internal,10.0.0.0/8";
        /// Certificates (PEM) trusted in addition to the system's.
        ca_file: Option<String> = None, example: "/etc/ssl/company-ca.pem";
        /// Client certificate chain (PEM), for servers that require one.
        client_cert: Option<String> = None, example: "/etc/ssl/client.pem";
        /// Private key (PEM) of the client certificate.
        client_key: Option<String> = None, example: "/etc/ssl/client.key";
    }

    /// Redis.
    RedisConfig (redis) {
        /// Redis URL: `redis://`, `rediss://` (TLS, feature `redis-tls`), or either with `-sentinel` or `-cluster`.
        url: SecretString = "redis://localhost:6379/1".into(), env: "REDIS_URL", schemes: REDIS;
        /// Timeout for connecting, within that of the command that needs the connection.
        connect_timeout: Duration = Duration::from_secs(30), unit: "s";
        /// Timeout of a command, queueing and reconnecting included.
        command_timeout: Duration = Duration::from_secs(5), unit: "s";
        /// Maximum number of pending commands; further commands fail immediately.
        max_pending_commands: usize = 10_000;
        /// Maximum size of the pending commands and of the values they write and read.
        max_pending_bytes: usize = 64 << 20, unit: "bytes";
        /// Maximum size of a value that is written or read.
        max_value_bytes: usize = 16 << 20, unit: "bytes";
        /// Certificates (PEM) trusted for `rediss://` instead of the system's.
        ca_file: Option<String> = None, example: "/etc/ssl/redis-ca.pem";
    }

    /// Milvus.
    MilvusConfig (milvus) {
        /// Milvus host.
        host: String = "localhost".into(), env: "MILVUS_HOST", host: true;
        /// Milvus port.
        port: u16 = 19_530, env: "MILVUS_PORT", max: 65_535;
        /// Milvus database.
        db_name: String = "default".into(), env: "MILVUS_DB_NAME";
        /// Milvus token: an API key, or `user:password`.
        token: Option<SecretString> = None, env: "MILVUS_TOKEN";
        /// Whether to connect with TLS.
        tls: bool = false;
        /// Certificates (PEM) trusted for TLS instead of the system's.
        ca_file: Option<String> = None, example: "/etc/ssl/milvus-ca.pem";
        /// Client certificate chain (PEM), for servers that require one.
        client_cert: Option<String> = None, example: "/etc/ssl/client.pem";
        /// Private key (PEM) of the client certificate.
        client_key: Option<String> = None, example: "/etc/ssl/client.key";
        /// Timeout for connecting, within that of the request that needs the connection.
        connect_timeout: Duration = Duration::from_secs(30), unit: "s";
        /// Timeout of a request, connecting and retries included.
        request_timeout: Duration = Duration::from_secs(30), unit: "s";
        /// Timeout for loading a collection, and for flushing one.
        load_timeout: Duration = Duration::from_secs(120), unit: "s";
        /// Number of entities per insert of a bulk insert.
        batch_size: usize = 1_000, env: "MILVUS_BATCH_SIZE", legacy: Optimization("50");
        /// Maximum number of pending requests; further requests fail immediately.
        max_pending_requests: usize = 1_000;
        /// Maximum size of a response.
        max_response_bytes: usize = 64 << 20, unit: "bytes";
        /// Whether floats at the top level of the metadata are written as strings, as Python arshai writes them.
        python_floats: bool = false;
    }

    /// MCP servers.
    McpConfig (mcp) {
        /// MCP server manager: `rmcp` or `legacy`.
        backend: String = "rmcp".into();
        /// Whether MCP servers are used.
        enabled: bool = false;
        /// Timeout for connecting to a server.
        connection_timeout: Duration = Duration::from_secs(30), unit: "s", legacy: NotUsed("mcp.backend");
        /// Number of attempts to connect to a server that sets no `max_retries`.
        default_max_retries: u32 = 3, max: 100, legacy: NotUsed("mcp.backend");
        /// Maximum size of all tool definitions together; beyond it tools are offered by the function `search_tools`.
        max_offered_bytes: usize = 64 << 10, unit: "bytes", legacy: NotUsed("mcp.backend");
        /// Tools that are offered even then, by the names they are offered under.
        always_offer: Vec<String> = Vec::new(), example: "search,read_file", legacy: NotUsed("mcp.backend");
        /// Response to a server that changes a tool under the same name: `ignore`, `report` or `refuse`.
        tool_changes: McpToolChanges = McpToolChanges::Report, legacy: NotUsed("mcp.backend");
        /// Maximum number of streams that stay open to hear from HTTP servers, besides `pool.max_connections`.
        max_streams: usize = 64, legacy: NotUsed("mcp.backend");
        /// Whether HTTP servers at private addresses are refused, loopback included.
        deny_private_addresses: bool = false;
        /// MCP servers. The variable is the URL of a server named `default`, where MCP is enabled and none are listed.
        servers: Vec<McpServerConfig> = Vec::new(), env: "MCP_SERVER_URL", schemes: HTTP,
            example: "[{ name = \"search\", url = \"https://mcp.example.com\" }]";
        sections:
        /// Limits on what one server may send.
        pub guards: McpGuards;
        /// Variables that child processes inherit.
        pub inherited_env: InheritedEnv;
    }

    /// Limits on what one MCP server may send; what exceeds them is left out with a warning, or fails alone.
    McpGuards (mcp.guards) {
        /// Maximum number of pages of a server's tool list.
        max_pages: usize = 100, legacy: Unlimited("mcp.backend");
        /// Maximum number of tools of a server.
        max_tools: usize = 1_000, legacy: Unlimited("mcp.backend");
        /// Maximum size of a tool's name.
        max_name_bytes: usize = 256, unit: "bytes", legacy: Unlimited("mcp.backend");
        /// Maximum size of a tool's description; longer ones are truncated.
        max_description_bytes: usize = 8 << 10, unit: "bytes", legacy: Unlimited("mcp.backend");
        /// Maximum size of a tool's schema.
        max_schema_bytes: usize = 64 << 10, unit: "bytes", legacy: Unlimited("mcp.backend");
        /// Maximum nesting of a tool's schema.
        max_schema_depth: usize = 64, legacy: Unlimited("mcp.backend");
        /// Maximum size of a result as JSON.
        max_result_bytes: usize = 4 << 20, unit: "bytes", legacy: Unlimited("mcp.backend");
    }

    /// Model providers.
    LlmConfig (llm) {
        /// Whether the number of concurrent requests per model and key adapts to provider throttling.
        adaptive_concurrency: bool = true, legacy: Optimization("false");
        /// Maximum number of concurrent requests per model and key while it adapts, and at most `pool.max_connections`.
        max_concurrency: usize = 64;
        sections:
        /// OpenAI and compatible endpoints.
        pub openai: OpenAiConfig;
        /// Azure OpenAI.
        pub azure: AzureConfig;
        /// OpenRouter.
        pub openrouter: OpenRouterConfig;
        /// Gemini.
        pub google: GoogleConfig;
    }

    /// OpenAI and compatible endpoints.
    OpenAiConfig (llm.openai) {
        /// OpenAI API key.
        api_key: Option<SecretString> = None, env: "OPENAI_API_KEY";
        /// Endpoint of OpenAI or of a compatible server instead of `https://api.openai.com/v1`.
        base_url: Option<String> = None, env: "OPENAI_BASE_URL", schemes: HTTP,
            example: "https://api.openai.com/v1";
    }

    /// Azure OpenAI.
    AzureConfig (llm.azure) {
        /// Endpoint of the Azure OpenAI resource.
        endpoint: Option<String> = None, env: "AZURE_OPENAI_ENDPOINT", schemes: HTTP,
            example: "https://my-resource.openai.azure.com";
        /// Azure OpenAI API key.
        api_key: Option<SecretString> = None, env: "AZURE_OPENAI_API_KEY";
        /// Azure OpenAI deployment.
        deployment: Option<String> = None, env: "AZURE_DEPLOYMENT", example: "gpt-4o";
        /// Azure OpenAI API version.
        api_version: Option<String> = None, env: "AZURE_API_VERSION", example: "2024-10-21";
    }

    /// OpenRouter.
    OpenRouterConfig (llm.openrouter) {
        /// OpenRouter API key.
        api_key: Option<SecretString> = None, env: "OPENROUTER_API_KEY";
        /// Endpoint instead of `https://openrouter.ai/api/v1`.
        base_url: Option<String> = None, env: "OPENROUTER_BASE_URL", schemes: HTTP,
            example: "https://openrouter.ai/api/v1";
        /// Site URL for OpenRouter's rankings.
        site_url: Option<String> = None, env: "OPENROUTER_SITE_URL", schemes: HTTP,
            example: "https://example.com";
        /// Application name for OpenRouter's rankings.
        app_name: Option<String> = None, env: "OPENROUTER_APP_NAME", example: "my service";
    }

    /// Gemini.
    GoogleConfig (llm.google) {
        /// Gemini API key.
        api_key: Option<SecretString> = None, env: "GOOGLE_API_KEY";
        /// Endpoint instead of Google's OpenAI-compatible one.
        base_url: Option<String> = None, schemes: HTTP,
            example: "https://generativelanguage.googleapis.com/v1beta/openai";
    }

    /// Rollback flags: each selects legacy implementations.
    RollbackConfig (rollback) {
        /// Both other flags, unbounded task execution and small Milvus batches.
        disable_optimizations: bool = false, env: "ARSHAI_DISABLE_OPTIMIZATIONS";
        /// Legacy in-process conversation store: unbounded, expired entries removed on each operation.
        use_legacy_memory: bool = false, env: "ARSHAI_USE_LEGACY_MEMORY";
        /// Legacy HTTP, Redis and MCP connections.
        use_legacy_connections: bool = false, env: "ARSHAI_USE_LEGACY_CONNECTIONS";
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::MAX_COUNT;
    use super::*;
    use crate::config::ValueSource;

    const HEADER: &str = "| key | variable | values | default | description | with a rollback flag |\n|---|---|---|---|---|---|\n";

    /// The values that a key takes, in a word.
    fn values(key: &Key) -> String {
        let expected = (key.get)(&Config::default()).expected(&key.spec);
        let (min, max) = (key.spec.min, key.spec.max);
        match expected {
            text if text.starts_with("a whole number from") && max == MAX_COUNT => format!("≥ {min}"),
            text if text.starts_with("a whole number from") => format!("{min} to {max}"),
            text if text.starts_with("a whole number of seconds") => "≥ 1 s".into(),
            text if text.starts_with("true or false") => "flag".into(),
            text if text.starts_with("a URL") => "URL".into(),
            text if text.starts_with("a list") => "list".into(),
            text if text.contains("secret") => "secret".into(),
            _ => "string".into(),
        }
    }

    /// The changes of each rollback flag, as an effective configuration shows them.
    fn rollback(key: &Key) -> String {
        type Flag = fn(&mut RollbackConfig) -> &mut bool;
        let set: [(&str, Flag); 3] = [
            ("M", |rollback| &mut rollback.use_legacy_memory),
            ("C", |rollback| &mut rollback.use_legacy_connections),
            ("D", |rollback| &mut rollback.disable_optimizations),
        ];
        let mut changes = Vec::new();
        for (flag, field) in set {
            let mut config = Config::default();
            *field(&mut config.rollback) = true;
            let explained = config.explain();
            let value = explained.get(key.path).expect("every key is explained");
            // D is both others and more.
            if matches!(value.source, ValueSource::Rollback { .. }) && changes.is_empty() {
                changes.push(format!("{flag}: {}", value.value));
            }
        }
        changes.join(", ")
    }

    #[cfg(all(feature = "ureq", feature = "mcp"))]
    #[test]
    fn the_guide_has_the_table_of_every_key() {
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let rows = KEYS.iter().map(|key| {
            let default = match key.display(&Config::default()).as_str() {
                "none" => "none".to_owned(),
                value if value.starts_with(|c: char| c.is_ascii_digit()) => value.to_owned(),
                value => code(value),
            };
            let (path, variable, values) = (code(key.path), code(key.spec.env), values(key));
            let (doc, rollback) = (key.doc.trim(), rollback(key));
            format!("| {path} | {variable} | {values} | {default} | {doc} | {rollback} |\n")
        });
        let table = HEADER.to_owned() + &rows.collect::<String>();
        let guide = include_str!("../../docs/configuration.md");
        if !guide.contains(&table) {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/configuration-table.md");
            std::fs::write(path, table).expect("the folder of this build");
            panic!("docs/configuration.md differs from the table of keys, which was written to {path}");
        }
    }

    #[test]
    fn every_default_is_valid_and_every_example_can_be_parsed() {
        assert!(Config::default().validate().is_ok());
        for key in KEYS.iter().filter(|key| !key.spec.example.is_empty() && key.path != "mcp.servers") {
            assert!(key.parse(&mut Config::default(), key.spec.example).is_ok(), "{key:?}");
        }
    }
}
