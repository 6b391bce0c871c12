//! `explain()`, its completeness and what it hides.

use std::collections::BTreeSet;

use arshai::Config;
use arshai::config::Source;

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
fn a_field_that_code_changed_is_explained_as_code() {
    let mut config = Config::default();
    config.memory.max_entries = 5;
    let explained = config.explain();
    assert_eq!(explained.get("memory.max_entries").expect("explained").source.to_string(), "code");
    assert_eq!(explained.get("memory.ttl").expect("explained").source.to_string(), "default");

    let mut config = Config::from_vars(vars([("ARSHAI_MAX_ENTRIES", "7")])).expect("valid");
    let source =
        |config: &Config| config.explain().get("memory.max_entries").expect("explained").source.to_string();
    assert_eq!(source(&config), "ARSHAI_MAX_ENTRIES");
    config.memory.max_entries = 8;
    assert_eq!(source(&config), "code");
}

/// The rows of the guide's table: key, variable, unit, default, what it is, with its rollback flag.
fn documented() -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let guide = std::fs::read_to_string(path).expect("the guide");
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    guide.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

#[test]
fn the_guide_lists_every_key_with_its_variable_unit_and_default() {
    let (rows, explained) = (documented(), Config::default().explain());
    assert_eq!(rows.len(), explained.values.len());
    for (row, value) in rows.iter().zip(&explained.values) {
        assert_eq!(row[0], value.key);
        assert_eq!(row[1], value.variable.unwrap_or_default(), "{}", value.key);
        let (default, unit) = match value.value.split_once(' ') {
            Some((number, unit)) => (number, unit),
            None => (value.value.as_str(), ""),
        };
        assert!(unit.is_empty() || row[2] == unit, "{row:?}");
        let digits = row[3].replace(' ', "");
        assert!(row[3].starts_with(default) || digits.starts_with(default), "{row:?}: {default}");
    }
}

#[test]
fn the_guide_says_what_rollback_flags_change() {
    let config = Config::from_vars(vars([("ARSHAI_DISABLE_OPTIMIZATIONS", "true")])).expect("valid");
    let explained = config.explain();
    for row in documented() {
        let source = &explained.get(&row[0]).expect("documented and explained alike").source;
        let changed = !matches!(row[5].as_str(), "same" | "");
        assert_eq!(matches!(source, Source::Rollback { .. }), changed, "{row:?}");
    }
}
