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
    /// The configuration as it was loaded, to tell what code has changed since; `None` for the defaults.
    pub loaded: Option<Arc<Config>>,
    pub sources: Arc<BTreeMap<&'static str, Source>>,
    pub warnings: Arc<[String]>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// Its key.
    pub key: &'static str,
    /// The variable of its own, besides `ARSHAI_<SECTION>__<KEY>`.
    pub variable: Option<&'static str>,
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
        let loaded = config.origin.loaded.clone().unwrap_or_default();
        let values = KEYS.iter().map(|key| {
            let explained =
                |value, source| Explained { key: key.path, variable: key.variable, value, source };
            if let Some((flag, value)) = rolled_back(config, key.path) {
                return explained(value.to_owned(), Source::Rollback { flag });
            }
            let value = (key.show)(config);
            // The fields are public: what differs from what was loaded, the application has changed.
            let source = if value == (key.show)(&loaded) {
                config.origin.sources.get(key.path).cloned().unwrap_or(Source::Default)
            } else {
                Source::Code
            };
            explained(value, source)
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
        for Explained { key, value, source, .. } in &self.values {
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
    // A flag swaps our own backends for their twins; another backend keeps its limits.
    let memory = rollback.legacy_memory() && config.memory.backend == "in_memory";
    let tasks = rollback.legacy_tasks() && config.tasks.backend == "bounded";
    let http = rollback.legacy_connections() && config.http.backend == "ureq";
    let (flag, instead) = match key {
        "memory.backend" if memory => (MEMORY, "legacy"),
        "memory.max_memory_mb" | "memory.max_entries" if memory => (MEMORY, "unbounded"),
        "cleanup_interval" if memory => (MEMORY, "on each operation"),
        "pool.backend" if rollback.legacy_connections() => (CONNECTIONS, "legacy"),
        "pool.max_waiting" if rollback.legacy_connections() => (CONNECTIONS, "unbounded"),
        "pool.max_connections" if rollback.legacy_connections() => (CONNECTIONS, "HTTP 50, Redis unbounded"),
        "pool.max_idle" if rollback.legacy_connections() => (CONNECTIONS, "20"),
        "pool.idle_timeout" if rollback.legacy_connections() => (CONNECTIONS, "30 s"),
        "pool.connection_timeout" if rollback.legacy_connections() => (CONNECTIONS, "none"),
        "http.backend" if http => (CONNECTIONS, "legacy"),
        "http.pool_timeout" if http => (CONNECTIONS, "the request's own"),
        "http.max_waiting" if http => (CONNECTIONS, "unbounded"),
        "tasks.backend" if tasks => (ALL, "legacy"),
        "tasks.max_background_tasks" | "tasks.max_concurrency" | "tasks.max_result_bytes" if tasks => {
            (ALL, "unbounded")
        }
        "tasks.background_warning_percent" | "tasks.timeout" if tasks => (ALL, "none"),
        "tasks.max_blocking_threads" if tasks => (ALL, "tokio's own"),
        "milvus.batch_size" if rollback.disable_optimizations => (ALL, "50"),
        "llm.adaptive_concurrency" if rollback.disable_optimizations => (ALL, "false"),
        "llm.max_concurrency" if rollback.disable_optimizations => (ALL, "unbounded"),
        _ => return None,
    };
    Some((by(flag), instead))
}
