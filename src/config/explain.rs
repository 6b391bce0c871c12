//! Every effective value with its source.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Config;
use super::key::Key;
use super::provenance::{Annotation, ValueSource};
use super::sections::KEYS;

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
