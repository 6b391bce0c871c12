//! Where every value came from.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Config;
use super::effective::Annotation;
use super::key::Key;
use super::sections::KEYS;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum ValueSource {
    /// The built-in default.
    Default,
    /// Computed from the host's cores or the container's limits.
    Adaptive,
    /// A configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, if known.
        line: Option<usize>,
    },
    /// An environment variable.
    EnvVar {
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
        /// The flag's environment variable.
        flag: &'static str,
    },
    /// The application set it.
    Code,
}

impl ValueSource {
    /// Whether this value was set, rather than a default or derived from another setting.
    pub(super) fn is_explicit(&self) -> bool {
        matches!(self, Self::File { .. } | Self::EnvVar { .. } | Self::Code)
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Adaptive => f.write_str("adapted to the host"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::EnvVar { name } => f.write_str(name),
            Self::Key { key } => write!(f, "follows {key}"),
            Self::Rollback { flag } => write!(f, "rollback flag {flag}"),
            Self::Code => f.write_str("code"),
        }
    }
}

/// Where the values of a configuration came from.
#[derive(Clone, Default)]
pub(super) struct Provenance {
    /// The configuration as it was loaded, to find what code has changed since; `None` for the defaults.
    pub loaded: Option<Arc<Config>>,
    pub sources: Arc<BTreeMap<&'static str, ValueSource>>,
    pub annotations: Arc<BTreeMap<&'static str, Annotation>>,
    pub warnings: Arc<[String]>,
    /// Legacy backends that do not exist, by key and name.
    pub missing_backends: BTreeSet<(&'static str, &'static str)>,
}

/// Hidden: [`Config::explain`] shows it.
impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance").finish_non_exhaustive()
    }
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedValue {
    /// Its key.
    pub key: Cow<'static, str>,
    /// Its own environment variable, besides `ARSHAI_<SECTION>__<KEY>`.
    pub env_var: Option<&'static str>,
    /// Its description; empty for a setting of an outside backend.
    pub description: &'static str,
    /// The value with its unit, secrets redacted; `not used` where the selected backend does not read it.
    pub value: String,
    /// Where it came from.
    pub source: ValueSource,
}

/// Every effective value; a table when displayed, JSON when serialised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// In the order of the documentation, then the settings of outside backends.
    pub values: Vec<ExplainedValue>,
}

impl Explanation {
    pub(super) fn from_config(config: &Config) -> Self {
        let config = config.effective();
        let sources = config.sources();
        let keys = KEYS.iter().map(|key| ExplainedValue {
            key: Cow::Borrowed(key.path),
            env_var: key.env_var(),
            description: key.doc.trim(),
            value: key.explained(&config),
            source: sources[key.path].clone(),
        });
        let backends = config.backends.explain().map(|(key, value, source)| ExplainedValue {
            key: Cow::Owned(key.to_owned()),
            env_var: None,
            description: "",
            value,
            source: source.clone(),
        });
        Self { values: keys.chain(backends).collect() }
    }

    /// The value of one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&ExplainedValue> {
        self.values.iter().find(|value| value.key == key)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |length: fn(&ExplainedValue) -> usize| self.values.iter().map(length).max().unwrap_or(0);
        let (keys, values) = (width(|v| v.key.len()), width(|v| v.value.len()).min(48));
        for ExplainedValue { key, value, source, .. } in &self.values {
            writeln!(f, "{key:<keys$}  {value:<values$}  {source}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Where the value of each key came from. The fields are public: what differs from what was loaded, code has
    /// changed.
    pub(super) fn sources(&self) -> BTreeMap<&'static str, ValueSource> {
        let defaults;
        let loaded = match &self.provenance.loaded {
            Some(loaded) => &**loaded,
            None => {
                defaults = Self::default();
                &defaults
            }
        };
        let source = |key: &Key| match key.is_same(self, loaded) {
            true => self.provenance.sources.get(key.path).cloned().unwrap_or(ValueSource::Default),
            false => ValueSource::Code,
        };
        KEYS.iter().map(|key| (key.path, source(key))).collect()
    }
}

impl Key {
    /// The value as the effective configuration has it, secrets redacted.
    pub(super) fn explained(&self, effective: &Config) -> String {
        match effective.provenance.annotations.get(self.path) {
            Some(Annotation::NotUsed) => "not used".to_owned(),
            Some(Annotation::HttpOnly) => format!("{} (HTTP only)", self.display(effective)),
            None => self.display(effective),
        }
    }
}
