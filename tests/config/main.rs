//! Configuration: every variable, every kind of invalid value, files, rollback flags and `explain()`.

mod backends;
mod effective;
mod explain;
mod files;
mod layers;
mod secrets;
mod variables;

use std::ffi::OsString;
use std::path::PathBuf;

use arshai::Config;
use arshai::config::{ConfigLoader, ConfigProblems, Problem};

/// Variables as the environment would give them.
fn vars<const N: usize>(list: [(&str, &str); N]) -> Vec<(OsString, OsString)> {
    list.map(|(name, value)| (name.into(), value.into())).into()
}

/// The problems of a configuration that does not load.
fn problems(loaded: arshai::Result<Config>) -> Vec<Problem> {
    let error = loaded.expect_err("it has problems");
    assert_eq!(error.kind(), arshai::ErrorKind::Config);
    ConfigProblems::from_error(&error).expect("the problems are its source").as_slice().to_vec()
}

/// The value and the source that `explain()` shows for a key.
fn explained(config: &Config, key: &str) -> (String, String) {
    let explanation = config.explain();
    let value = explanation.get(key).expect("explained");
    (value.value.clone(), value.source.to_string())
}

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, text: &str) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    File { _folder: folder, path }
}

fn load_file(name: &str, text: &str) -> arshai::Result<Config> {
    ConfigLoader::new().file(&file(name, text).path).load()
}
