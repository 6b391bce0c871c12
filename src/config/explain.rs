//! Where every value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Config;
use super::keys::KEYS;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// The built-in default.
    Default,
    /// Computed from the machine's cores or the container's limits.
    Adaptive,
    /// A configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, where it could be told.
        line: Option<usize>,
    },
    /// A variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A rollback flag took its place.
    Rollback {
        /// The flag's variable.
        flag: &'static str,
    },
    /// The application set it.
    Code,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Adaptive => f.write_str("adapted to the machine"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Rollback { flag } => write!(f, "rollback flag {flag}"),
            Self::Code => f.write_str("code"),
        }
    }
}

/// Where a configuration came from: kept beside it.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub sources: Arc<BTreeMap<&'static str, Source>>,
    pub warnings: Arc<[String]>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// Its key.
    pub key: &'static str,
    /// The value, secrets redacted, with its unit.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

/// Every value in force; a table when displayed, JSON when serialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// In the order of the documentation.
    pub values: Vec<Explained>,
}

impl Explanation {
    pub(super) fn of(config: &Config) -> Self {
        let values = KEYS.iter().map(|key| {
            let from = || config.origin.sources.get(key.path).cloned().unwrap_or(Source::Default);
            match rolled_back(config, key.path) {
                Some((flag, value)) => {
                    Explained { key: key.path, value: value.into(), source: Source::Rollback { flag } }
                }
                None => Explained { key: key.path, value: (key.show)(config), source: from() },
            }
        });
        Self { values: values.collect() }
    }

    /// The value of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Explained> {
        self.values.iter().find(|value| value.key == key)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |length: fn(&Explained) -> usize| self.values.iter().map(length).max().unwrap_or(0);
        let (keys, values) = (width(|v| v.key.len()), width(|v| v.value.len()).min(48));
        for Explained { key, value, source } in &self.values {
            writeln!(f, "{key:<keys$}  {value:<values$}  {source}")?;
        }
        Ok(())
    }
}

/// What a rollback flag puts in place of a key's value, and which flag.
pub(super) fn rolled_back(config: &Config, key: &str) -> Option<(&'static str, &'static str)> {
    const MEMORY: &str = "ARSHAI_USE_LEGACY_MEMORY";
    const CONNECTIONS: &str = "ARSHAI_USE_LEGACY_CONNECTIONS";
    const ALL: &str = "ARSHAI_DISABLE_OPTIMIZATIONS";
    let rollback = config.rollback;
    let by = |flag| if rollback.disable_optimizations { ALL } else { flag };
    let in_process = config.memory.backend == "in_memory";
    match key {
        "memory.max_memory_mb" | "memory.max_entries" if rollback.legacy_memory() && in_process => {
            Some((by(MEMORY), "unbounded"))
        }
        "cleanup_interval" if rollback.legacy_memory() && in_process => {
            Some((by(MEMORY), "on each operation"))
        }
        "pool.max_connections" if rollback.legacy_connections() => {
            Some((by(CONNECTIONS), "HTTP 50, Redis unbounded"))
        }
        "pool.max_idle" if rollback.legacy_connections() => Some((by(CONNECTIONS), "20")),
        "pool.idle_timeout" if rollback.legacy_connections() => Some((by(CONNECTIONS), "30 s")),
        "pool.connection_timeout" if rollback.legacy_connections() => Some((by(CONNECTIONS), "none")),
        "tasks.max_background_tasks" if rollback.legacy_tasks() => Some((ALL, "unbounded")),
        "milvus.batch_size" if rollback.disable_optimizations => Some((ALL, "50")),
        _ => None,
    }
}
