//! Environment variables: which are arshai's, and what each is for.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::key::Key;
use super::sections::KEYS;

/// Variables of the loader itself.
const LOADER_VARIABLES: [&str; 2] = ["ARSHAI_CONFIG", "ARSHAI_STRICT"];

/// Variables that only Python arshai uses; recognized, but ignored.
const PYTHON_VARIABLES: [&str; 17] = [
    "ARSHAI_COLLECT_METRICS",
    "ARSHAI_LOG_PROMPTS",
    "ARSHAI_LOG_RESPONSES",
    "ARSHAI_MAX_PROMPT_LENGTH",
    "ARSHAI_MAX_RESPONSE_LENGTH",
    "ARSHAI_OTLP_ENDPOINT",
    "ARSHAI_PACKAGE_NAME",
    "ARSHAI_PACKAGE_VERSION",
    "ARSHAI_SPAN_KIND",
    "ARSHAI_TELEMETRY_ENABLED",
    "ARSHAI_TELEMETRY_LEVEL",
    "ARSHAI_TRACE_AGENT_OPERATIONS",
    "ARSHAI_TRACE_LLM_CALLS",
    "ARSHAI_TRACE_REQUESTS",
    "ARSHAI_TRACE_WORKFLOW_EXECUTION",
    "ARSHAI_TRACK_COST_METRICS",
    "ARSHAI_TRACK_TOKEN_TIMING",
];

/// Prefix of the variables from which Python arshai takes span attributes.
const PYTHON_PREFIX: &str = "ARSHAI_ATTR_";

/// Prefix of the settings of outside backends: `ARSHAI_BACKENDS__<NAME>__<KEY>`.
const BACKENDS_PREFIX: &str = "ARSHAI_BACKENDS__";

/// A variable of arshai.
#[derive(Debug)]
pub(super) enum EnvVar<'a> {
    /// `ARSHAI_CONFIG`.
    File(PathBuf),
    /// `ARSHAI_STRICT`.
    Strict(&'a OsStr),
    Key {
        key: &'static Key,
        name: Cow<'a, str>,
        value: &'a OsStr,
    },
    /// A setting of an outside backend; the path is that within `backends`.
    Backend {
        path: String,
        name: Cow<'a, str>,
        value: &'a OsStr,
    },
    Python(Cow<'a, str>),
    Unknown(Cow<'a, str>),
}

impl EnvVar<'_> {
    /// Whether it is a key's own variable, not its generic one.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Key { key, name, .. } if key.env_var() == Some(name))
    }
}

/// The variables of arshai among these. An empty variable counts as unset.
pub(super) fn recognized(vars: &[(OsString, OsString)]) -> impl Iterator<Item = EnvVar<'_>> {
    let is_set = |value: &OsStr| value.to_str().is_none_or(|text| !text.trim().is_empty());
    vars.iter().filter(move |(_, value)| is_set(value)).filter_map(|(name, value)| {
        // A name that is not UTF-8 is unknown, even if it starts with ours.
        let name = name.to_string_lossy();
        Some(match name.as_ref() {
            "ARSHAI_CONFIG" => EnvVar::File(PathBuf::from(value)),
            "ARSHAI_STRICT" => EnvVar::Strict(value),
            _ => match (key_of(&name), backend_path(&name)) {
                (Some(key), _) => EnvVar::Key { key, name, value },
                (None, Some(path)) => EnvVar::Backend { path, name, value },
                _ if PYTHON_VARIABLES.contains(&name.as_ref()) || name.starts_with(PYTHON_PREFIX) => {
                    EnvVar::Python(name)
                }
                _ if name.starts_with("ARSHAI_") => EnvVar::Unknown(name),
                _ => return None,
            },
        })
    })
}

fn key_of(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.env_var() == Some(name)).or_else(|| {
        let path = name.strip_prefix("ARSHAI_")?.to_lowercase().replace("__", ".");
        KEYS.iter().find(|key| key.path == path && key.generic_env_var() == name)
    })
}

/// `ARSHAI_BACKENDS__QDRANT__URL` as `qdrant.url`.
fn backend_path(name: &str) -> Option<String> {
    let path = name.strip_prefix(BACKENDS_PREFIX)?.to_lowercase().replace("__", ".");
    let is_complete = path.contains('.') && path.split('.').all(|part| !part.is_empty());
    is_complete.then_some(path)
}

/// Every known name, for suggestions.
pub(super) fn known_names() -> impl Iterator<Item = String> {
    let own = KEYS.iter().filter_map(Key::env_var).map(str::to_owned);
    own.chain(KEYS.iter().map(Key::generic_env_var)).chain(LOADER_VARIABLES.map(str::to_owned))
}
