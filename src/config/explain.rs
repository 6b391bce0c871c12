//! Where every value came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Config;
use super::effective::Annotation;
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
    /// It follows from another key.
    Key {
        /// The other key.
        key: &'static str,
    },
    /// A rollback flag replaced it.
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
            Self::Key { key } => write!(f, "follows {key}"),
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
    pub annotations: Arc<BTreeMap<&'static str, Annotation>>,
    pub warnings: Arc<[String]>,
    /// Legacy backends, by key and name, that do not exist.
    pub missing_backends: BTreeSet<(&'static str, &'static str)>,
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
        let config = config.effective();
        let values = KEYS.iter().map(|key| {
            let value = match config.origin.annotations.get(key.path) {
                Some(Annotation::NotUsed) => "not used".to_owned(),
                Some(Annotation::HttpOnly) => format!("{} (HTTP only)", (key.show)(&config)),
                None => (key.show)(&config),
            };
            let source = config.source_of(key.path);
            Explained { key: key.path, variable: key.variable, value, source }
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

impl Config {
    /// Where the value of this key came from. The fields are public: what differs from what was loaded, the application
    /// has changed.
    pub(super) fn source_of(&self, path: &str) -> Source {
        let loaded = self.origin.loaded.clone().unwrap_or_default();
        let is_unchanged = |key: &&super::keys::Key| (key.show)(self) == (key.show)(&loaded);
        match KEYS.iter().find(|key| key.path == path).filter(is_unchanged) {
            Some(_) => self.origin.sources.get(path).cloned().unwrap_or(Source::Default),
            None => Source::Code,
        }
    }
}
