//! Which layer wins, and limits that adapt.

use std::path::{Path, PathBuf};

use arshai::Config;
use arshai::config::{ConfigLoader, HostResources};
use figment::Figment;
use figment::providers::Serialized;

use super::{problems, vars};

#[test]
fn code_beats_variables_and_variables_beat_a_figment() {
    let figment = Figment::from(Serialized::default("memory.max_entries", 1))
        .merge(Serialized::default("memory.ttl", 1));
    let figment = figment.merge(Serialized::default("tasks.timeout", 1));
    let config = ConfigLoader::new()
        .figment(&figment)
        .vars(vars([("ARSHAI_MAX_ENTRIES", "2"), ("ARSHAI_MEMORY_TTL", "2")]))
        .set("memory.ttl", 3)
        .load()
        .expect("valid");
    assert_eq!(config.memory.max_entries, 2);
    assert_eq!(config.memory.ttl.as_secs(), 3);
    assert_eq!(config.tasks.timeout.as_secs(), 1);
    assert_eq!(config.explain().get("memory.ttl").expect("explained").source.to_string(), "code");
}

#[test]
fn a_figment_alone_makes_a_configuration() {
    let figment = Figment::from(Serialized::default("vectors.backend", "embedded"));
    assert_eq!(Config::from_figment(&figment).expect("valid").vectors.backend, "embedded");
}

#[test]
fn the_selected_profile_of_a_figment_counts() {
    let figment = Figment::new()
        .merge(Serialized::default("memory.max_entries", 1))
        .merge(Serialized::default("memory.ttl", 1))
        .merge(Serialized::default("memory.max_entries", 2).profile("production"));
    let config = Config::from_figment(&figment.clone().select("production")).expect("valid");
    assert_eq!((config.memory.max_entries, config.memory.ttl.as_secs()), (2, 1));
    assert_eq!(Config::from_figment(&figment).expect("valid").memory.max_entries, 1);
}

#[test]
fn a_keys_own_variable_beats_its_generic_one_in_any_order() {
    for list in [
        [("ARSHAI_MAX_ENTRIES", "1"), ("ARSHAI_MEMORY__MAX_ENTRIES", "2")],
        [("ARSHAI_MEMORY__MAX_ENTRIES", "2"), ("ARSHAI_MAX_ENTRIES", "1")],
    ] {
        assert_eq!(Config::from_vars(vars(list)).expect("valid").memory.max_entries, 1);
    }
}

#[test]
fn limits_adapt_to_the_host_unless_they_are_explicit() {
    let loader = || ConfigLoader::new().host_resources(HostResources::container(3, Some(600 << 20)));
    let config = loader().load().expect("valid");
    assert_eq!((config.pool.max_connections, config.pool.max_idle), (20, 3));
    assert_eq!((config.memory.max_memory_mb, config.vectors.max_memory_mb), (300, 150));
    assert_eq!(
        config.explain().get("pool.max_idle").expect("explained").source.to_string(),
        "adapted to the host"
    );

    let config =
        loader().vars(vars([("ARSHAI_MAX_CONNECTIONS", "50"), ("ARSHAI_MAX_MEMORY_MB", "900")])).load();
    let config = config.expect("valid");
    assert_eq!((config.pool.max_connections, config.memory.max_memory_mb), (50, 900));
}

#[test]
fn what_code_sets_is_checked_like_everything_else() {
    let problems = problems(ConfigLoader::new().set("memory.max_entries", 0).set("no.such.key", 1).load());
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|problem| problem.location == "code"), "{problems:?}");
}

#[test]
fn two_configurations_are_independent() {
    let one = Config::from_vars(vars([("ARSHAI_MAX_ENTRIES", "5")])).expect("valid");
    let other = Config::from_vars(vars([])).expect("valid");
    assert_eq!((one.memory.max_entries, other.memory.max_entries), (5, 10_000));
}

#[test]
fn nothing_but_loading_reads_the_environment() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("readable").path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("backends"), &mut files);
    let readers: Vec<_> = files
        .into_iter()
        .filter(|file| std::fs::read_to_string(file).expect("text").contains("env::var"))
        .map(|file| file.strip_prefix(root).expect("within").display().to_string())
        .collect();
    assert!(readers.iter().all(|file| file.starts_with("src/config/")), "{readers:?}");
    assert_eq!(readers.len(), 2, "Config::load and HostResources::detect: {readers:?}");
}
