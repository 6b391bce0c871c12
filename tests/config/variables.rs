//! Every variable with every kind of value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use arshai::Config;
use arshai::config::ConfigLoader;
use secrecy::ExposeSecret;

use super::{problems, vars};

#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Flag,
    /// The minimum.
    Number(u64),
    Port,
    Text,
    /// A URL of the web.
    Host,
    Url,
    Redis,
}

/// The variables of the documented table, the key each sets, and what it takes.
const VARIABLES: [(&str, &str, Takes); 32] = [
    ("ARSHAI_MAX_MEMORY_MB", "memory.max_memory_mb", Takes::Number(1)),
    ("ARSHAI_MAX_ENTRIES", "memory.max_entries", Takes::Number(1)),
    ("ARSHAI_MEMORY_TTL", "memory.ttl", Takes::Number(1)),
    ("ARSHAI_MEMORY_BACKEND", "memory.backend", Takes::Text),
    ("ARSHAI_CLEANUP_INTERVAL", "cleanup_interval", Takes::Number(1)),
    ("ARSHAI_MAX_CONNECTIONS", "pool.max_connections", Takes::Number(1)),
    ("ARSHAI_CONNECTION_TIMEOUT", "pool.connect_timeout", Takes::Number(1)),
    ("ARSHAI_MAX_BACKGROUND_TASKS", "tasks.max_background_tasks", Takes::Number(0)),
    ("ARSHAI_VECTOR_BACKEND", "vectors.backend", Takes::Text),
    ("ARSHAI_VECTOR_PATH", "vectors.path", Takes::Text),
    ("ARSHAI_DISABLE_OPTIMIZATIONS", "rollback.disable_optimizations", Takes::Flag),
    ("ARSHAI_USE_LEGACY_MEMORY", "rollback.use_legacy_memory", Takes::Flag),
    ("ARSHAI_USE_LEGACY_CONNECTIONS", "rollback.use_legacy_connections", Takes::Flag),
    ("ARSHAI_TASKS__MAX_CONCURRENCY", "tasks.max_concurrency", Takes::Number(1)),
    ("ARSHAI_HTTP__READ_TIMEOUT", "http.read_timeout", Takes::Number(1)),
    ("REDIS_URL", "redis.url", Takes::Redis),
    ("MILVUS_HOST", "milvus.host", Takes::Host),
    ("MILVUS_PORT", "milvus.port", Takes::Port),
    ("MILVUS_DB_NAME", "milvus.db_name", Takes::Text),
    ("MILVUS_BATCH_SIZE", "milvus.batch_size", Takes::Number(1)),
    ("MILVUS_TOKEN", "milvus.token", Takes::Text),
    ("OPENAI_API_KEY", "llm.openai.api_key", Takes::Text),
    ("OPENAI_BASE_URL", "llm.openai.base_url", Takes::Url),
    ("AZURE_OPENAI_ENDPOINT", "llm.azure.endpoint", Takes::Url),
    ("AZURE_OPENAI_API_KEY", "llm.azure.api_key", Takes::Text),
    ("AZURE_DEPLOYMENT", "llm.azure.deployment", Takes::Text),
    ("AZURE_API_VERSION", "llm.azure.api_version", Takes::Text),
    ("OPENROUTER_API_KEY", "llm.openrouter.api_key", Takes::Text),
    ("OPENROUTER_BASE_URL", "llm.openrouter.base_url", Takes::Url),
    ("OPENROUTER_SITE_URL", "llm.openrouter.site_url", Takes::Url),
    ("OPENROUTER_APP_NAME", "llm.openrouter.app_name", Takes::Text),
    ("GOOGLE_API_KEY", "llm.google.api_key", Takes::Text),
];

const VALUES: [&str; 10] = [
    "true",
    "1",
    "500",
    "-1",
    "1e9",
    "0",
    "18446744073709551615",
    "99999999999999999999999",
    "redis://h:1/2",
    "https://h/1",
];

impl Takes {
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Flag => matches!(value, "true" | "1" | "0"),
            Self::Number(least) => value.parse::<u32>().is_ok_and(|number| u64::from(number) >= least),
            Self::Port => value.parse::<u16>().is_ok_and(|port| port > 0),
            Self::Text => true,
            Self::Host => !value.contains(':'),
            Self::Url => value.starts_with("https://"),
            Self::Redis => value.starts_with("redis://"),
        }
    }
}

fn load(name: &str, value: impl Into<OsString>) -> arshai::Result<Config> {
    Config::from_vars([(name.into(), value.into())])
}

#[test]
fn every_variable_accepts_valid_values_and_rejects_others_by_name() {
    for (name, key, takes) in VARIABLES {
        for value in VALUES {
            match load(name, value) {
                Ok(config) => {
                    assert!(takes.accepts(value), "{name}={value} must be rejected");
                    let explained = config.explain();
                    assert_eq!(explained.get(key).expect("explained").source.to_string(), name);
                }
                Err(error) => {
                    assert!(!takes.accepts(value), "{name}={value}: {error}");
                    let [problem] = problems(Err(error)).try_into().expect("one problem");
                    assert_eq!(problem.name, name);
                    assert!(problem.expected.contains("e.g."), "{problem}");
                }
            }
        }
    }
}

#[test]
fn no_variable_is_missing_above() {
    for value in Config::default().explain().values {
        // That one names a server and has separate tests.
        let Some(name) = value.env_var.filter(|name| *name != "MCP_SERVER_URL") else { continue };
        assert!(
            VARIABLES.iter().any(|(variable, key, _)| (*variable, *key) == (name, &*value.key)),
            "{name}"
        );
    }
}

#[test]
fn every_key_has_a_variable_made_of_its_path() {
    // A list of servers is for files and code; the server makes `ARSHAI_MCP__ENABLED` valid.
    let server = ("MCP_SERVER_URL", "https://mcp.example.com/mcp");
    for value in Config::default().explain().values.into_iter().filter(|value| value.key != "mcp.servers") {
        let name = format!("ARSHAI_{}", value.key.to_uppercase().replace('.', "__"));
        let sources = ["1", "https://h/1", "redis://h/1", "refuse"].map(|given| {
            let config = Config::from_vars(vars([server, (&name, given)])).ok()?;
            Some(config.explain().get(&value.key)?.source.to_string())
        });
        assert!(sources.contains(&Some(name.clone())), "{name}: {sources:?}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let all = VARIABLES.map(|(name, ..)| (OsString::from(name), OsString::new()));
    let config = Config::from_vars(all).expect("all unset");
    assert_eq!(config.explain(), Config::default().explain());
    assert_eq!(load("ARSHAI_MAX_ENTRIES", "  ").expect("unset").memory.max_entries, 10_000);
}

#[test]
fn a_value_that_is_not_utf_8_is_rejected() {
    for (name, ..) in VARIABLES {
        let problems = problems(load(name, OsString::from_vec(vec![b'1', 0xff])));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].name == name && problems[0].expected.contains("not UTF-8"), "{}", problems[0]);
    }
}

#[test]
fn a_misspelt_variable_warns_with_the_nearest_name_and_is_an_error_in_strict_mode() {
    for (name, ..) in VARIABLES.into_iter().filter(|(name, ..)| name.starts_with("ARSHAI_")) {
        let misspelt = format!("{name}S");
        let config = load(&misspelt, "1").expect("a warning, not an error");
        assert_eq!(config.warnings().len(), 1);
        assert!(config.warnings()[0].contains(&format!("; did you mean {name}?")), "{:?}", config.warnings());

        let strict = ConfigLoader::new().vars([(misspelt.clone().into(), "1".into())]).strict(true).load();
        assert_eq!(problems(strict)[0].name, misspelt);
    }
}

#[test]
fn names_that_are_not_utf_8_are_unknown() {
    let name = |text: &[u8]| (OsString::from_vec(text.to_vec()), OsString::from("1"));
    let config = Config::from_vars([name(b"\xff"), name(b"ARSHAI_MAX_ENTRIES\xff")]).expect("unknown names");
    assert_eq!(config.warnings().len(), 1, "{:?}", config.warnings());
}

#[test]
fn python_arshais_own_variables_are_recognised_even_in_strict_mode() {
    let config = Config::from_vars(vars([("ARSHAI_TELEMETRY_ENABLED", "true"), ("ARSHAI_STRICT", "true")]));
    assert!(config.expect("known").warnings()[0].contains("Python arshai"));
    let attribute = vars([("ARSHAI_ATTR_TEAM", "search"), ("ARSHAI_STRICT", "true")]);
    assert!(Config::from_vars(attribute).expect("known").warnings()[0].contains("Python arshai"));
}

#[test]
fn all_bad_variables_are_reported_together() {
    let bad = vars([
        ("ARSHAI_MAX_ENTRIES", "many"),
        ("ARSHAI_USE_LEGACY_MEMORY", "maybe"),
        ("MILVUS_PORT", "70000"),
        ("ARSHAI_MEMORY_TTL", "60"),
    ]);
    let error = Config::from_vars(bad).expect_err("three are bad");
    // What `fn main() -> arshai::Result<()>` prints.
    assert_eq!(format!("{error:?}"), error.to_string());
    assert_eq!(
        error.to_string(),
        "config: 3 configuration errors\n  \
         ARSHAI_MAX_ENTRIES = \"many\" (environment variable): expected a whole number from 1 to 4294967295, e.g. 10000\n  \
         ARSHAI_USE_LEGACY_MEMORY = \"maybe\" (environment variable): expected true or false (or 1/0, yes/no, on/off), e.g. false\n  \
         MILVUS_PORT = \"70000\" (environment variable): expected a whole number from 1 to 65535, e.g. 19530"
    );
}

#[test]
fn redis_urls_are_accepted_in_their_usual_forms() {
    for url in [
        "redis://:password@host",
        "rediss://:password@host:6380/1",
        "redis://user:password@[::1]:6379",
        "redis://user@host?db=3",
        "REDIS://host",
        "Rediss-Sentinel://:p%23w@host:26379?sentinelServiceName=main",
    ] {
        let config = load("REDIS_URL", url).expect(url);
        assert!(config.redis.url.expose_secret().starts_with("redis"), "the scheme is in lower case");
    }
    let error = load("REDIS_URL", "redis://:pass#word@host").expect_err("it would connect elsewhere");
    assert!(error.to_string().contains("percent-encoded"), "{error}");
}

#[test]
fn booleans_are_understood_in_every_spelling() {
    for (value, expected) in ["true", "1", "yes", "on", "TRUE", "Yes", "oN"]
        .map(|v| (v, true))
        .into_iter()
        .chain(["false", "0", "no", "OFF"].map(|v| (v, false)))
    {
        let config = load("ARSHAI_USE_LEGACY_MEMORY", value).expect(value);
        assert_eq!(config.rollback.use_legacy_memory, expected, "{value}");
    }
}

#[test]
fn a_long_invalid_value_is_truncated() {
    let problems = problems(load("ARSHAI_MAX_ENTRIES", "x".repeat(1_000_000)));
    assert!(problems[0].found.as_ref().is_some_and(|found| found.len() < 110));
}

#[test]
fn mcp_server_url_is_the_server_named_default_when_mcp_is_enabled_without_servers() {
    let url = ("MCP_SERVER_URL", "https://mcp.example.com/mcp");
    let config = Config::from_vars(vars([url, ("ARSHAI_MCP__ENABLED", "true")])).expect("valid");
    assert_eq!(config.mcp.servers[0].name, "default");
    assert_eq!(config.mcp.servers[0].url.as_deref(), Some("https://mcp.example.com/mcp"));
    assert!(Config::from_vars(vars([url])).expect("valid").mcp.servers.is_empty());

    let problems = problems(load("ARSHAI_MCP__ENABLED", "true"));
    assert!(problems[0].expected.contains("MCP_SERVER_URL"), "{}", problems[0]);
}
