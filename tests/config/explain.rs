//! `explain()`, its completeness and what it hides.

use std::collections::BTreeSet;

use arshai::Config;

use super::vars;

const SENTINEL: &str = "sentinel-7f3a";

fn with_secrets() -> Config {
    let url = format!("redis://user:{SENTINEL}@localhost:6379/1");
    let endpoint = format!("https://me:{SENTINEL}@models.example.com/v1?key={SENTINEL}");
    Config::from_vars(vars([
        ("OPENAI_API_KEY", SENTINEL),
        ("OPENAI_BASE_URL", &endpoint),
        ("AZURE_OPENAI_API_KEY", SENTINEL),
        ("AZURE_OPENAI_ENDPOINT", &endpoint),
        ("OPENROUTER_API_KEY", SENTINEL),
        ("OPENROUTER_BASE_URL", &endpoint),
        ("GOOGLE_API_KEY", SENTINEL),
        ("MILVUS_TOKEN", SENTINEL),
        ("REDIS_URL", &url),
        ("ARSHAI_HTTP__PROXY", &endpoint),
        ("MCP_SERVER_URL", &endpoint),
        ("ARSHAI_MCP__ENABLED", "true"),
    ]))
    .expect("valid")
}

#[test]
fn no_secret_is_shown_anywhere() {
    let config = with_secrets();
    let explained = config.explain();
    let json = serde_json::to_string(&explained).expect("JSON");
    for text in [explained.to_string(), json, format!("{config:?}"), format!("{explained:?}")] {
        assert!(!text.contains(SENTINEL), "{text}");
    }
    assert_eq!(explained.get("llm.openai.api_key").expect("explained").value, "***");
    assert_eq!(explained.get("redis.url").expect("explained").value, "redis://***@localhost:6379/1");
}

#[test]
fn a_bad_secret_is_named_and_not_shown() {
    let bad = vars([("REDIS_URL", SENTINEL), ("ARSHAI_HTTP__PROXY", SENTINEL)]);
    let error = Config::from_vars(bad).expect_err("no URLs");
    assert!(error.to_string().contains("REDIS_URL"), "{error}");
    assert!(!format!("{error} {error:?}").contains(SENTINEL));
}

#[test]
fn the_table_is_aligned_and_serialises() {
    let explained = Config::default().explain();
    let table = explained.to_string();
    let columns: BTreeSet<_> =
        table.lines().map(|line| line.rfind("  default").expect("every value is")).collect();
    assert_eq!(columns.len(), 1, "{table}");
    let json = serde_json::to_value(&explained).expect("JSON");
    assert_eq!(json["values"][0]["key"], "memory.max_memory_mb");
    assert_eq!(json["values"][0]["source"]["from"], "default");
}

#[test]
fn the_documentation_lists_every_key() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"))
        .expect("the guide");
    for value in Config::default().explain().values {
        assert!(
            guide.contains(&format!("`{}`", value.key)),
            "docs/configuration.md does not list {}",
            value.key
        );
    }
}
