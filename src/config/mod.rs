//! Configuration: defaults < file < environment < code.
//!
//! [`Config::load`] is what a service calls; it reads the process's environment, and the file that
//! `ARSHAI_CONFIG` names, once. Nothing else in the crate reads the environment. [`ConfigLoader`] does the same
//! from sources given explicitly, for embedding and tests.
//!
//! A wrong value is an error that names the variable or key, what was expected and an example; all of them are
//! reported together. [`Config::explain`] shows every value in force and where it came from.

mod effective;
mod explain;
mod file;
mod keys;
mod loader;
mod machine;
mod parse;
mod problems;
mod sections;
mod servers;

use std::ffi::OsString;

pub(crate) use effective::{LEGACY_BACKENDS, PASSED_BY_VALUE};
pub use explain::{Explained, Explanation, Source};
pub use loader::ConfigLoader;
pub use machine::Machine;
pub use problems::{ConfigProblems, Problem};
pub use sections::*;

use crate::error::Result;

impl Config {
    /// Loads the configuration of this process: its environment, the file that `ARSHAI_CONFIG` names, and limits
    /// adapted to the machine. Warnings are logged and kept in [`warnings`](Self::warnings).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) listing every bad variable and file key at once;
    /// [`ConfigProblems::of`] gives them one by one.
    pub fn load() -> Result<Self> {
        ConfigLoader::new().vars(std::env::vars_os()).machine(Machine::detect()).load()
    }

    /// Loads the configuration from an explicit list of variables, and the file that `ARSHAI_CONFIG` among them
    /// names. Reads neither the environment nor the machine.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        ConfigLoader::new().vars(vars).load()
    }

    /// Loads the configuration from a figment of the application's own, whose layers and provenance are kept.
    /// Reads neither the environment nor the machine.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_figment(figment: &figment::Figment) -> Result<Self> {
        ConfigLoader::new().figment(figment).load()
    }

    /// Every value in force and where it came from, secrets redacted.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        Explanation::of(self)
    }

    /// What was odd but not wrong: unknown `ARSHAI_*` variables, settings that a rollback flag overrides.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.origin.warnings
    }
}

impl TryFrom<figment::Figment> for Config {
    type Error = crate::Error;

    fn try_from(figment: figment::Figment) -> Result<Self> {
        Self::from_figment(&figment)
    }
}
