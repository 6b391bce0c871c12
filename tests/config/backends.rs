//! Settings of outside backends.

use arshai::Config;
use arshai::config::ConfigLoader;
use serde::Deserialize;

use super::{explained, file, problems, vars};

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    url: String,
    batch_size: usize,
    verify: bool,
    tls: Tls,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct Tls {
    ca_file: String,
}

const TOML: &str =
    "[backends.theirs]\nurl = \"http://a\"\nbatch_size = 5\n[backends.theirs.tls]\nca_file = \"ca\"\n";

#[test]
fn a_backend_reads_its_own_section_from_every_layer() {
    let file = file("a.toml", TOML);
    let config = ConfigLoader::new()
        .file(&file.path)
        .vars(vars([
            ("ARSHAI_BACKENDS__THEIRS__BATCH_SIZE", "7"),
            ("ARSHAI_BACKENDS__THEIRS__VERIFY", "true"),
        ]))
        .set("backends.theirs.url", "http://b")
        .strict(true)
        .load()
        .expect("valid");
    let settings: Settings = config.backends.get("theirs").expect("it fits");
    let tls = Tls { ca_file: "ca".into() };
    assert_eq!(settings, Settings { url: "http://b".into(), batch_size: 7, verify: true, tls });
    assert_eq!(config.backends.get::<Settings>("others").expect("defaults"), Settings::default());
    assert_eq!(config.backends.names().collect::<Vec<_>>(), ["theirs"]);
}

#[test]
fn settings_of_outside_backends_are_explained_and_redacted() {
    let file = file("a.toml", TOML);
    let config = ConfigLoader::new().file(&file.path).load().expect("valid");
    let (value, source) = explained(&config, "backends.theirs.batch_size");
    assert!(value == "5" && source.ends_with("a.toml:3"), "{value} {source}");
    assert_eq!(explained(&config, "backends.theirs.url").0, "***");
    assert_eq!(explained(&config.effective(), "backends.theirs.tls.ca_file").0, "***");
}

#[test]
fn a_setting_that_does_not_fit_is_named_with_its_source_and_without_its_value() {
    let config = Config::from_vars(vars([("ARSHAI_BACKENDS__THEIRS__BATCH_SIZE", "secret")])).expect("kept");
    let error = config.backends.get::<Settings>("theirs").expect_err("not a number");
    let text = format!("{error:?}");
    assert!(
        text.contains("backends.theirs.batch_size (ARSHAI_BACKENDS__THEIRS__BATCH_SIZE): expected"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");

    let mut config = Config::default();
    config.backends.set("theirs", "bacth_size", 5);
    let error = config.backends.get::<Settings>("theirs").expect_err("unknown");
    assert!(
        error.to_string().contains("unknown key \"bacth_size\"; expected one of url, batch_size"),
        "{error}"
    );
}

#[test]
fn a_section_of_an_outside_backend_is_a_table() {
    let loaded = ConfigLoader::new().set("backends.theirs", 5).set("backends", 5).load();
    assert_eq!(problems(loaded).len(), 2);
}
