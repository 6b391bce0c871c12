//! The one table of keys: what loading, explaining and suggesting all go by.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Config;
use super::parse::{Kind, LONGEST_SECONDS, MOST, Parsed, WEB};

/// One key of the configuration.
pub(super) struct Key {
    /// Its path, for example `memory.max_entries`.
    pub path: &'static str,
    /// The variable of its own, besides `ARSHAI_<SECTION>__<KEY>`.
    pub variable: Option<&'static str>,
    pub kind: Kind,
    pub set: fn(&mut Config, Parsed),
    /// The value in force with its unit, secrets redacted.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// `ARSHAI_<SECTION>__<KEY>`, sections within sections included.
    pub(super) fn generic_variable(&self) -> String {
        format!("ARSHAI_{}", self.path.to_uppercase().replace('.', "__"))
    }
}

/// Variables that tell the loader something and are no keys.
pub(super) const LOADER_VARIABLES: [&str; 2] = ["ARSHAI_CONFIG", "ARSHAI_STRICT"];

/// Python arshai's own variables: known, and not ours.
pub(super) const PYTHON_VARIABLES: [&str; 17] = [
    "ARSHAI_COLLECT_METRICS",
    "ARSHAI_LOG_PROMPTS",
    "ARSHAI_LOG_RESPONSES",
    "ARSHAI_MAX_PROMPT_LENGTH",
    "ARSHAI_MAX_RESPONSE_LENGTH",
    "ARSHAI_OTLP_ENDPOINT",
    "ARSHAI_PACKAGE_NAME",
    "ARSHAI_PACKAGE_VERSION",
    "ARSHAI_SPAN_KIND",
    "ARSHAI_TELEMETRY_ENABLED",
    "ARSHAI_TELEMETRY_LEVEL",
    "ARSHAI_TRACE_AGENT_OPERATIONS",
    "ARSHAI_TRACE_LLM_CALLS",
    "ARSHAI_TRACE_REQUESTS",
    "ARSHAI_TRACE_WORKFLOW_EXECUTION",
    "ARSHAI_TRACK_COST_METRICS",
    "ARSHAI_TRACK_TOKEN_TIMING",
];

/// Python arshai takes attributes of its spans from variables that start like this.
pub(super) const PYTHON_PREFIX: &str = "ARSHAI_ATTR_";

const REDIS: [&str; 6] =
    ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];

const PROXY: [&str; 4] = ["http", "https", "socks4", "socks5"];

const fn count(least: u64, example: u64) -> Kind {
    Kind::Number { least, most: MOST, example }
}

const fn seconds(example: u64) -> Kind {
    Kind::Seconds { example }
}

const fn web(example: &'static str) -> Kind {
    Kind::Url { schemes: &WEB, example }
}

const fn text(example: &'static str) -> Kind {
    Kind::Text { example }
}

/// Describes keys. The first word says how a value is kept: a number, a duration, a flag, a text, …
macro_rules! keys {
    ($($how:ident $path:literal $variable:expr, $kind:expr, $($field:ident).+ $(, $unit:literal)?;)+) => {
        /// Every key, in the order of the documentation.
        pub(super) const KEYS: &[Key] = &[$(Key {
            path: $path,
            variable: $variable,
            kind: $kind,
            set: |config, value| config.$($field).+ = $how::set(value),
            show: |config| format!("{}{}", $how::show(&config.$($field).+), concat!($(" ", $unit)?)),
        }),+];
    };
}

keys! {
    number "memory.max_memory_mb" Some("ARSHAI_MAX_MEMORY_MB"), count(1, 500), memory.max_memory_mb, "MiB";
    number "memory.max_entries" Some("ARSHAI_MAX_ENTRIES"), count(1, 10_000), memory.max_entries;
    duration "memory.ttl" Some("ARSHAI_MEMORY_TTL"), seconds(43_200), memory.ttl, "s";
    string "memory.backend" Some("ARSHAI_MEMORY_BACKEND"), text("in_memory"), memory.backend;
    duration "cleanup_interval" Some("ARSHAI_CLEANUP_INTERVAL"), seconds(300), cleanup_interval, "s";
    string "pool.backend" None, text("bounded"), pool.backend;
    number "pool.max_connections" Some("ARSHAI_MAX_CONNECTIONS"), count(1, 20), pool.max_connections;
    number "pool.max_idle" None, count(0, 8), pool.max_idle;
    number "pool.max_waiting" None, count(0, 1_000), pool.max_waiting;
    duration "pool.idle_timeout" None, seconds(15), pool.idle_timeout, "s";
    duration "pool.connect_timeout" Some("ARSHAI_CONNECTION_TIMEOUT"), seconds(30), pool.connect_timeout, "s";
    string "tasks.backend" None, text("bounded"), tasks.backend;
    number "tasks.max_background_tasks" Some("ARSHAI_MAX_BACKGROUND_TASKS"), count(0, 1_000), tasks.max_background_tasks;
    number "tasks.background_warning_percent" None, Kind::Number { least: 1, most: 100, example: 80 },
        tasks.background_warning_percent, "%";
    number "tasks.max_concurrency" None, count(1, 64), tasks.max_concurrency;
    duration "tasks.timeout" None, seconds(60), tasks.timeout, "s";
    number "tasks.max_result_bytes" None, count(1, 1_048_576), tasks.max_result_bytes, "bytes";
    number "tasks.max_blocking_threads" None, count(1, 64), tasks.max_blocking_threads;
    string "vectors.backend" Some("ARSHAI_VECTOR_BACKEND"), text("embedded"), vectors.backend;
    number "vectors.max_memory_mb" None, count(1, 1_024), vectors.max_memory_mb, "MiB";
    string "http.backend" None, text("ureq"), http.backend;
    duration "http.connect_timeout" None, seconds(10), http.connect_timeout, "s";
    duration "http.read_timeout" None, seconds(60), http.read_timeout, "s";
    duration "http.write_timeout" None, seconds(10), http.write_timeout, "s";
    duration "http.pool_timeout" None, seconds(5), http.pool_timeout, "s";
    duration "http.total_timeout" None, seconds(600), http.total_timeout, "s";
    number "http.max_waiting" None, count(0, 1_000), http.max_waiting;
    number "http.max_body_bytes" None, count(1, 16_777_216), http.max_body_bytes, "bytes";
    number "http.max_retries" None, Kind::Number { least: 0, most: 100, example: 3 }, http.max_retries;
    list "http.insecure_hosts" None, Kind::List { example: "models.internal,10.0.0.5" }, http.insecure_hosts;
    optional_url "http.proxy" None, Kind::Url { schemes: &PROXY, example: "http://proxy.internal:3128" }, http.proxy;
    url "redis.url" Some("REDIS_URL"), Kind::Url { schemes: &REDIS, example: "redis://localhost:6379/1" }, redis.url;
    duration "redis.connect_timeout" None, seconds(30), redis.connect_timeout, "s";
    duration "redis.command_timeout" None, seconds(5), redis.command_timeout, "s";
    number "redis.max_pending_commands" None, count(1, 10_000), redis.max_pending_commands;
    number "redis.max_pending_bytes" None, count(1, 67_108_864), redis.max_pending_bytes, "bytes";
    number "redis.max_value_bytes" None, count(1, 16_777_216), redis.max_value_bytes, "bytes";
    optional "redis.ca_file" None, text("/etc/ssl/redis-ca.pem"), redis.ca_file;
    string "milvus.host" Some("MILVUS_HOST"), text("localhost"), milvus.host;
    number "milvus.port" Some("MILVUS_PORT"), Kind::Number { least: 1, most: 65_535, example: 19_530 }, milvus.port;
    duration "milvus.connect_timeout" None, seconds(30), milvus.connect_timeout, "s";
    string "milvus.db_name" Some("MILVUS_DB_NAME"), text("default"), milvus.db_name;
    number "milvus.batch_size" Some("MILVUS_BATCH_SIZE"), count(1, 1_000), milvus.batch_size;
    secret "milvus.token" Some("MILVUS_TOKEN"), Kind::Secret, milvus.token;
    flag "mcp.enabled" None, Kind::Flag, mcp.enabled;
    duration "mcp.connection_timeout" None, seconds(30), mcp.connection_timeout, "s";
    number "mcp.default_max_retries" None, Kind::Number { least: 1, most: 100, example: 3 }, mcp.default_max_retries;
    servers "mcp.servers" Some("MCP_SERVER_URL"), Kind::Servers, mcp.servers;
    flag "llm.adaptive_concurrency" None, Kind::Flag, llm.adaptive_concurrency;
    number "llm.max_concurrency" None, count(1, 64), llm.max_concurrency;
    secret "llm.openai.api_key" Some("OPENAI_API_KEY"), Kind::Secret, llm.openai.api_key;
    endpoint "llm.openai.base_url" Some("OPENAI_BASE_URL"), web("https://api.openai.com/v1"),
        llm.openai.base_url;
    endpoint "llm.azure.endpoint" Some("AZURE_OPENAI_ENDPOINT"),
        web("https://my-resource.openai.azure.com"), llm.azure.endpoint;
    secret "llm.azure.api_key" Some("AZURE_OPENAI_API_KEY"), Kind::Secret, llm.azure.api_key;
    optional "llm.azure.deployment" Some("AZURE_DEPLOYMENT"), text("gpt-4o"), llm.azure.deployment;
    optional "llm.azure.api_version" Some("AZURE_API_VERSION"), text("2024-10-21"), llm.azure.api_version;
    secret "llm.openrouter.api_key" Some("OPENROUTER_API_KEY"), Kind::Secret, llm.openrouter.api_key;
    endpoint "llm.openrouter.base_url" Some("OPENROUTER_BASE_URL"),
        web("https://openrouter.ai/api/v1"), llm.openrouter.base_url;
    endpoint "llm.openrouter.site_url" Some("OPENROUTER_SITE_URL"), web("https://example.com"),
        llm.openrouter.site_url;
    optional "llm.openrouter.app_name" Some("OPENROUTER_APP_NAME"), text("my service"), llm.openrouter.app_name;
    secret "llm.google.api_key" Some("GOOGLE_API_KEY"), Kind::Secret, llm.google.api_key;
    endpoint "llm.google.base_url" None, web("https://generativelanguage.googleapis.com/v1beta/openai"),
        llm.google.base_url;
    flag "rollback.disable_optimizations" Some("ARSHAI_DISABLE_OPTIMIZATIONS"), Kind::Flag,
        rollback.disable_optimizations;
    flag "rollback.use_legacy_memory" Some("ARSHAI_USE_LEGACY_MEMORY"), Kind::Flag, rollback.use_legacy_memory;
    flag "rollback.use_legacy_connections" Some("ARSHAI_USE_LEGACY_CONNECTIONS"), Kind::Flag,
        rollback.use_legacy_connections;
}

// How values are kept and shown. `set` is only called with what the key's kind parses to; anything else would be
// a slip in the table above, which a test that sets every key would find, and keeps the type's empty value.

mod number {
    use super::{MOST, Parsed};

    pub(super) fn set<T: TryFrom<u64> + Default>(value: Parsed) -> T {
        match value {
            // The kind's bounds keep it in range, on 32-bit machines too.
            Parsed::Number(number) => T::try_from(number).unwrap_or_default(),
            _ => T::default(),
        }
    }

    pub(super) fn show(value: &impl ToString) -> String {
        match value.to_string() {
            most if most == MOST.to_string() => "unlimited".to_owned(),
            number => number,
        }
    }
}

mod duration {
    use super::{Duration, Parsed};

    pub(super) fn set(value: Parsed) -> Duration {
        Duration::from_secs(super::number::set(value))
    }

    pub(super) fn show(value: &Duration) -> String {
        match value.as_secs() {
            super::LONGEST_SECONDS => "unlimited".to_owned(),
            seconds => seconds.to_string(),
        }
    }
}

mod flag {
    use super::Parsed;

    pub(super) fn set(value: Parsed) -> bool {
        matches!(value, Parsed::Flag(true))
    }

    pub(super) fn show(value: &bool) -> String {
        value.to_string()
    }
}

mod string {
    use super::Parsed;

    pub(super) fn set(value: Parsed) -> String {
        match value {
            Parsed::Text(text) => text,
            _ => String::new(),
        }
    }

    pub(super) fn show(value: &str) -> String {
        value.to_owned()
    }
}

mod optional {
    use super::Parsed;

    pub(super) fn set(value: Parsed) -> Option<String> {
        Some(super::string::set(value))
    }

    pub(super) fn show(value: &Option<String>) -> String {
        value.clone().unwrap_or_else(|| "none".to_owned())
    }
}

mod endpoint {
    use super::Parsed;

    pub(super) fn set(value: Parsed) -> Option<String> {
        super::optional::set(value)
    }

    pub(super) fn show(value: &Option<String>) -> String {
        value.as_deref().map_or_else(|| "none".to_owned(), super::redact_url)
    }
}

mod secret {
    use super::{Parsed, SecretString};

    pub(super) fn set(value: Parsed) -> Option<SecretString> {
        Some(super::string::set(value).into())
    }

    pub(super) fn show(value: &Option<SecretString>) -> String {
        if value.is_some() { "***" } else { "none" }.to_owned()
    }
}

mod url {
    use super::{ExposeSecret, Parsed, SecretString};

    pub(super) fn set(value: Parsed) -> SecretString {
        super::string::set(value).into()
    }

    pub(super) fn show(value: &SecretString) -> String {
        super::redact_url(value.expose_secret())
    }
}

mod optional_url {
    use super::{Parsed, SecretString};

    pub(super) fn set(value: Parsed) -> Option<SecretString> {
        Some(super::url::set(value))
    }

    pub(super) fn show(value: &Option<SecretString>) -> String {
        value.as_ref().map_or_else(|| "none".to_owned(), super::url::show)
    }
}

mod list {
    use super::Parsed;

    pub(super) fn set(value: Parsed) -> Vec<String> {
        match value {
            Parsed::List(items) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn show(value: &[String]) -> String {
        if value.is_empty() { "none".to_owned() } else { value.join(", ") }
    }
}

mod servers {
    use super::Parsed;
    use crate::config::McpServerConfig;

    pub(super) fn set(value: Parsed) -> Vec<McpServerConfig> {
        match value {
            Parsed::Servers(servers) => servers,
            _ => Vec::new(),
        }
    }

    /// Names only: a server's URL, arguments and environment may hold tokens.
    pub(super) fn show(value: &[McpServerConfig]) -> String {
        super::list::show(&value.iter().map(|server| server.name.clone()).collect::<Vec<_>>())
    }
}

/// A URL without its credentials, query and fragment.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let (rest, hidden) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?***"),
        None => (rest, ""),
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://***@{}{hidden}", &rest[at + 1..]),
        None => format!("{scheme}://{rest}{hidden}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_credentials_and_query() {
        assert_eq!(redact_url("redis://user:pa@ss@host:6379/1"), "redis://***@host:6379/1");
        assert_eq!(redact_url("https://host/v1?key=abc"), "https://host/v1?***");
        assert_eq!(redact_url("https://host/a@b"), "https://host/a@b");
        assert_eq!(redact_url("user:password@host"), "***");
    }
}
