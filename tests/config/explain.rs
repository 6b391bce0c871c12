//! `explain()`.

use std::collections::BTreeSet;

use arshai::Config;
use arshai::config::ConfigLoader;

use super::{explained, vars};

#[test]
fn the_table_is_aligned_and_serialises() {
    let explained = Config::default().explain();
    let table = explained.to_string();
    let columns: BTreeSet<_> = table
        .lines()
        .map(|line| line.rfind("  default").or_else(|| line.rfind("  follows")).expect("every value is"))
        .collect();
    assert_eq!(columns.len(), 1, "{table}");
    let json = serde_json::to_value(&explained).expect("JSON");
    assert_eq!(json["values"][1]["key"], "memory.backend");
    assert_eq!(json["values"][1]["env_var"], "ARSHAI_MEMORY_BACKEND");
    assert_eq!(json["values"][1]["source"]["from"], "default");
}

#[test]
fn a_field_that_code_changed_is_explained_as_code() {
    let mut config = Config::default();
    config.memory.max_entries = 5;
    assert_eq!(explained(&config, "memory.max_entries").1, "code");
    assert_eq!(explained(&config, "memory.ttl").1, "default");

    let mut config = Config::from_vars(vars([("ARSHAI_MAX_ENTRIES", "7")])).expect("valid");
    assert_eq!(explained(&config, "memory.max_entries").1, "ARSHAI_MAX_ENTRIES");
    config.memory.max_entries = 8;
    assert_eq!(explained(&config, "memory.max_entries").1, "code");
}

#[test]
fn a_secret_that_code_replaced_no_longer_names_its_variable() {
    let mut config = Config::from_vars(vars([("OPENAI_API_KEY", "one")])).expect("valid");
    assert_eq!(explained(&config, "llm.openai.api_key").1, "OPENAI_API_KEY");
    config.llm.openai.api_key = Some("other".into());
    assert_eq!(explained(&config, "llm.openai.api_key").1, "code");
}

#[test]
fn durations_set_in_code_are_not_rounded() {
    let mut config = Config::default();
    config.http.read_timeout = std::time::Duration::from_millis(1_500);
    assert_eq!(explained(&config, "http.read_timeout").0, "1.5 s");
}

#[test]
fn a_setting_that_is_overridden_is_a_warning_even_in_strict_mode() {
    for (name, key, value) in [
        ("ARSHAI_MAX_MEMORY_MB", "memory.max_memory_mb", "500"),
        ("ARSHAI_MAX_ENTRIES", "memory.max_entries", "500"),
        ("ARSHAI_POOL__MAX_WAITING", "pool.max_waiting", "5"),
        ("ARSHAI_MAX_BACKGROUND_TASKS", "tasks.max_background_tasks", "5"),
        ("MILVUS_BATCH_SIZE", "milvus.batch_size", "5"),
    ] {
        let both = vars([(name, value), ("ARSHAI_DISABLE_OPTIMIZATIONS", "true")]);
        let config = ConfigLoader::new().vars(both).strict(true).load().expect("an emergency must not fail");
        assert_eq!(explained(&config, key).1, "rollback flag ARSHAI_DISABLE_OPTIMIZATIONS");
        let warnings = config.warnings();
        assert!(
            warnings.len() == 1 && warnings[0].starts_with(&format!("{key} ({name}) is overridden by")),
            "{warnings:?}"
        );
    }
}
