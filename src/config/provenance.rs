//! Where the values of a configuration came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Config;
use crate::support::opaque_debug;

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

// Hidden: [`Config::explain`] shows it.
opaque_debug!(Provenance {});

/// A note that is part of an explained value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Annotation {
    /// The selected backend does not read it.
    NotUsed,
    /// The legacy pool does not read it; HTTP does.
    HttpOnly,
}
