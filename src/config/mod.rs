//! Configuration: defaults < file < environment < code.
//!
//! A service calls [`Config::load`]; it reads the environment of the process, and the file that `ARSHAI_CONFIG` names,
//! once. Nothing else in the crate reads the environment. [`ConfigLoader`] loads from explicit sources, for embedding
//! and tests.
//!
//! An invalid value is an error that names the variable or key, what was expected and an example; all of them are
//! reported together. [`Config::explain`] shows every effective value and where it came from.

mod backends;
mod effective;
mod env;
mod explain;
mod file;
mod host_resources;
mod key;
mod loader;
mod mcp_auth;
mod mcp_guards;
mod mcp_servers;
mod mcp_tool_changes;
mod mcp_validation;
mod problems;
mod provenance;
mod report;
mod sections;
mod setting;
mod spec;
mod url;

use std::ffi::OsString;

pub use backends::BackendSections;
pub(crate) use effective::PASSED_BY_VALUE;
pub use explain::{ExplainedValue, Explanation};
pub use host_resources::HostResources;
pub use loader::ConfigLoader;
pub use mcp_auth::{McpAuth, McpSigningAlgorithm};
pub use mcp_guards::McpGuardOverrides;
pub use mcp_servers::{InheritedEnv, McpProtocol, McpServerConfig};
pub use mcp_tool_changes::McpToolChanges;
pub(crate) use problems::closest_match;
pub use problems::{ConfigProblems, Problem};
pub use provenance::ValueSource;
pub use sections::{
    AzureConfig, Config, GoogleConfig, HttpConfig, LlmConfig, McpConfig, McpGuards, MemoryConfig,
    MilvusConfig, OpenAiConfig, OpenRouterConfig, PoolConfig, RedisConfig, RollbackConfig, TaskConfig,
    VectorConfig,
};

use crate::error::Result;

impl Config {
    /// Loads the configuration of this process: its environment, the file that `ARSHAI_CONFIG` names, and limits
    /// adapted to the host. Warnings are logged and kept in [`warnings`](Self::warnings).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) listing every invalid variable and key;
    /// [`ConfigProblems::from_error`] returns them one by one.
    pub fn load() -> Result<Self> {
        ConfigLoader::new().vars(std::env::vars_os()).host_resources(HostResources::detect()).load()
    }

    /// Loads the configuration from a list of variables, and the file that `ARSHAI_CONFIG` among them names. Reads
    /// neither the environment nor the host.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        ConfigLoader::new().vars(vars).load()
    }

    /// Loads the configuration from an application's figment. Reads neither the environment nor the host.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_figment(figment: &figment::Figment) -> Result<Self> {
        ConfigLoader::new().figment(figment).load()
    }

    /// Checks values that were written into fields as if they had been loaded.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn validate(&self) -> Result<()> {
        let invalid = sections::KEYS.iter().filter(|key| !(key.get)(self).is_valid(&key.spec));
        let sources = self.sources();
        let problems = invalid.map(|key| Problem {
            name: key.path.to_owned(),
            location: sources[key.path].to_string(),
            found: (!key.is_secret()).then(|| problems::truncate_for_display(key.display(self))),
            expected: key.expected(),
        });
        match problems.collect::<Vec<_>>() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(problems.into()),
        }
    }

    /// Every effective value and where it came from, secrets redacted.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        Explanation::from_config(self)
    }

    /// Unknown `ARSHAI_*` variables and keys, and settings that are overridden.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.provenance.warnings
    }
}
