//! Configuration: every variable, every kind of bad value, files, rollback flags and `explain()`.

mod explain;
mod files;
mod layers;
mod variables;

use std::ffi::OsString;

use arshai::Config;
use arshai::config::{ConfigProblems, Problem};

/// Variables as the environment would give them.
fn vars<const N: usize>(list: [(&str, &str); N]) -> Vec<(OsString, OsString)> {
    list.map(|(name, value)| (name.into(), value.into())).into()
}

/// What is wrong with a configuration that does not load.
fn problems(loaded: arshai::Result<Config>) -> Vec<Problem> {
    let error = loaded.expect_err("it has problems");
    assert_eq!(error.kind(), arshai::ErrorKind::Config);
    ConfigProblems::of(&error).expect("loading says what is wrong").all().to_vec()
}
