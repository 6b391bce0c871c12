//! Loads a configuration from its layers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use super::env::{self, EnvVar};
use super::file;
use super::host_resources::HostResources;
use super::key::Key;
use super::mcp_servers::{self, McpServerConfig};
use super::problems::{Problem, display_value, truncate_for_display};
use super::provenance::{Provenance, ValueSource};
use super::report::{Report, known_paths};
use super::sections::KEYS;
use super::setting::{Setting, ValueError};
use super::spec::Spec;
use crate::error::Result;
use crate::support::opaque_debug;

const MCP_URL: &str = "https://mcp.example.com/mcp";

/// Loads a [`Config`] from explicit sources: defaults < file < environment < code.
///
/// ```
/// use arshai::config::{ConfigLoader, HostResources};
///
/// let config = ConfigLoader::new()
///     .vars([("ARSHAI_MAX_ENTRIES".into(), "5000".into())])
///     .host_resources(HostResources::new(2))
///     .set("memory.ttl", 7200)
///     .load()?;
/// assert_eq!(config.memory.max_entries, 5000);
/// assert_eq!(config.pool.max_idle, 4);
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Default)]
#[must_use]
pub struct ConfigLoader {
    file: Option<PathBuf>,
    figment: Option<Figment>,
    vars: Vec<(OsString, OsString)>,
    code: Vec<(String, Value)>,
    host_resources: Option<HostResources>,
    strict: bool,
}

// Shows names only: values may be secrets.
opaque_debug!(ConfigLoader(self) {
    file: self.file,
    vars: self.vars.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    code: self.code.iter().map(|(path, _)| path).collect::<Vec<_>>(),
    host_resources: self.host_resources,
    strict: self.strict,
});

impl ConfigLoader {
    /// Only the built-in defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file (TOML, YAML or JSON by its extension) instead of the one `ARSHAI_CONFIG` names.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Adds the selected profile of a figment as a layer below the file.
    pub fn figment(mut self, figment: &Figment) -> Self {
        self.figment = Some(figment.clone());
        self
    }

    /// Uses these environment variables, `ARSHAI_CONFIG` and `ARSHAI_STRICT` among them.
    pub fn vars(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.vars = vars.into_iter().collect();
        self
    }

    /// Sets a key in code, above all other layers.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.code.push((key.into(), value.into()));
        self
    }

    /// Adapts limits to this host. Without it they are the plain defaults.
    pub fn host_resources(mut self, host: HostResources) -> Self {
        self.host_resources = Some(host);
        self
    }

    /// Makes unknown environment variables and unknown keys in files errors instead of warnings.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Loads the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) listing every problem of every layer.
    pub fn load(self) -> Result<Config> {
        let mut state = LoadState { is_strict: self.strict, ..LoadState::default() };
        if let Some(host) = self.host_resources {
            state.apply_host_defaults(host);
        }
        state.config.mcp.inherited_env = mcp_servers::inherited_env(&self.vars);
        let vars: Vec<_> = env::recognized(&self.vars).collect();
        for var in &vars {
            if let EnvVar::Strict(value) = var {
                state.apply_strict(value);
            }
        }
        if let Some(figment) = &self.figment {
            state.apply_figment(figment);
        }
        let named = vars.iter().find_map(|var| match var {
            EnvVar::File(path) => Some(path.clone()),
            _ => None,
        });
        if let Some(path) = self.file.or(named) {
            state.apply_file(&path);
        }
        state.apply_env(vars);
        for (path, value) in self.code {
            state.apply_value(&path, &value, &|_| ValueSource::Code);
        }
        state.finish()
    }
}

/// The configuration as loaded so far.
#[derive(Default)]
struct LoadState {
    config: Config,
    sources: BTreeMap<&'static str, ValueSource>,
    report: Report,
    mcp_server_url: Option<String>,
    is_strict: bool,
}

impl LoadState {
    fn apply_host_defaults(&mut self, host: HostResources) {
        self.config.pool.max_idle = host.max_idle();
        self.config.memory.max_memory_mb = host.capped_memory_mb(self.config.memory.max_memory_mb, 2);
        self.config.vectors.max_memory_mb = host.capped_memory_mb(self.config.vectors.max_memory_mb, 4);
        let adaptive = ["pool.max_idle", "memory.max_memory_mb", "vectors.max_memory_mb"];
        self.sources.extend(adaptive.map(|key| (key, ValueSource::Adaptive)));
    }

    fn apply_strict(&mut self, value: &OsStr) {
        let parsed = value.to_str().map(|text| {
            let mut strict = false;
            strict.parse(text.trim(), &Spec::NEW).map(|()| strict)
        });
        match parsed {
            Some(Ok(strict)) => self.is_strict |= strict,
            _ => {
                let expected = format!("expected {}, e.g. true", true.expected(&Spec::NEW));
                self.invalid_variable("ARSHAI_STRICT", value, false, expected);
            }
        }
    }

    fn apply_file(&mut self, path: &Path) {
        match file::read(path) {
            Ok((values, text)) => {
                let source = |key: &str| ValueSource::File {
                    path: path.to_owned(),
                    line: file::find_key_line(&text, key),
                };
                for (key, value) in &values {
                    self.apply_value(key, value, &source);
                }
            }
            Err(problem) => self.report.problems.push(problem),
        }
    }

    fn apply_figment(&mut self, figment: &Figment) {
        let data = match figment.data() {
            Ok(data) => data,
            Err(error) => {
                self.report.problems.extend(error.into_iter().map(|error| Problem {
                    name: "configuration".into(),
                    location: error.metadata.as_ref().map_or("figment".into(), location),
                    found: None,
                    expected: file::strip_source_snippet(&error.kind.to_string()),
                }));
                return;
            }
        };
        let file_of = |tag: Tag| {
            let source = figment.get_metadata(tag)?.source.as_ref()?;
            source.file_path().map(Path::to_owned)
        };
        let selected = figment.profile();
        let between = (*selected != Profile::Default && *selected != Profile::Global).then_some(selected);
        for profile in [Some(&Profile::Default), between, Some(&Profile::Global)].into_iter().flatten() {
            for (key, value) in data.get(profile).into_iter().flatten() {
                let source = match file_of(value.tag()) {
                    Some(path) => ValueSource::File { path, line: None },
                    None => ValueSource::Code,
                };
                self.apply_value(key, value, &|_| source.clone());
            }
        }
    }

    /// Applies the environment. A key's own variable wins over its generic one, regardless of their order.
    fn apply_env(&mut self, mut vars: Vec<EnvVar<'_>>) {
        vars.sort_by_key(EnvVar::is_own);
        for var in vars {
            match var {
                EnvVar::Key { key, name, value } if key.path == "mcp.servers" => {
                    let mut url = String::new();
                    let parsed = value.to_str().ok_or_else(ValueError::default);
                    match parsed.and_then(|text| url.parse(text.trim(), &key.spec)) {
                        Ok(()) => self.mcp_server_url = Some(url),
                        Err(_) => {
                            let expected = format!("expected {}, e.g. {MCP_URL}", url.expected(&key.spec));
                            self.invalid_variable(&name, value, true, expected);
                        }
                    }
                }
                EnvVar::Key { key, name, value } => {
                    let parsed = value.to_str().ok_or_else(ValueError::default);
                    match parsed.and_then(|text| key.parse(&mut self.config, text.trim())) {
                        Ok(()) => {
                            self.sources.insert(key.path, ValueSource::EnvVar { name: name.into() });
                        }
                        Err(_) => self.invalid_variable(&name, value, key.is_secret(), key.expected()),
                    }
                }
                EnvVar::Backend { path, name, value } => {
                    let source = |_: &str| ValueSource::EnvVar { name: name.clone().into_owned() };
                    match value.to_str() {
                        Some(text) => self.config.backends.insert(&path, Value::from(text.trim()), &source),
                        None => self.invalid_variable(&name, value, true, "expected a string".into()),
                    }
                }
                EnvVar::Unknown(name) => self.report.unknown_variable(&name),
                EnvVar::Python(name) => {
                    self.report
                        .warnings
                        .push(format!("{name} is a variable of Python arshai; it has no effect here"));
                }
                EnvVar::File(_) | EnvVar::Strict(_) => {}
            }
        }
    }

    fn invalid_variable(&mut self, name: &str, value: &OsStr, is_secret: bool, expected: String) {
        self.report.problems.push(Problem {
            name: name.to_owned(),
            location: "environment variable".into(),
            found: (!is_secret).then(|| truncate_for_display(format!("{:?}", value.to_string_lossy()))),
            expected: match value.to_str() {
                Some(_) => expected,
                None => format!("the value is not UTF-8; {expected}"),
            },
        });
    }

    /// Applies the value at `path`, or, where `path` is a section, each value in it.
    fn apply_value(&mut self, path: &str, value: &Value, source: &dyn Fn(&str) -> ValueSource) {
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            return self.apply_key(key, value, source);
        }
        let is_within = |section: &str| section.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let is_backend = path.starts_with("backends.");
        let is_section = is_backend || path == "backends" || KEYS.iter().any(|key| is_within(key.path));
        match value {
            Value::Dict(_, dict) if is_section && !is_backend => {
                for (name, value) in dict {
                    self.apply_value(&format!("{path}.{name}"), value, source);
                }
            }
            // A section without keys, as YAML writes one whose keys are all comments.
            Value::Empty(..) if is_section => {}
            // Only the backend knows the keys of its section.
            _ if is_backend && (path.matches('.').count() > 1 || value.as_dict().is_some()) => {
                self.config.backends.insert(&path["backends.".len()..], value.clone(), source);
            }
            _ if is_section => {
                let example = KEYS.iter().find(|key| is_within(key.path)).map(|key| key.path);
                let example = example.unwrap_or("backends.qdrant.url");
                self.report.problems.push(Problem {
                    name: truncate_for_display(path.to_owned()),
                    location: source(path).to_string(),
                    found: None,
                    expected: format!("expected a table of keys, e.g. {example}"),
                });
            }
            _ => self.report.unknown_key(path, known_paths(), || source(path)),
        }
    }

    fn apply_key(&mut self, key: &'static Key, value: &Value, source: &dyn Fn(&str) -> ValueSource) {
        match key.parse_value(&mut self.config, value) {
            Ok(()) => {
                self.sources.insert(key.path, source(key.path));
            }
            Err(error) => self.report.problems.push(Problem {
                name: format!("{}{}", key.path, error.path),
                location: source(key.path).to_string(),
                found: (!key.is_secret()).then(|| display_value(value)),
                expected: match error.reason {
                    Some(reason) if error.path.is_empty() && !key.is_secret() => {
                        format!("{reason}; {}", key.expected())
                    }
                    Some(reason) => reason,
                    None => key.expected(),
                },
            }),
        }
        if key.path == "mcp.servers" {
            for (index, name) in mcp_servers::unknown_keys(value) {
                let path = format!("mcp.servers[{index}].{name}");
                let known = mcp_servers::known_keys().map(|name| format!("mcp.servers[{index}].{name}"));
                self.report.unknown_key(&path, known, || source(key.path));
            }
        }
    }

    /// `MCP_SERVER_URL` is the server named `default` where MCP is enabled and no servers are listed.
    fn apply_mcp_server_url(&mut self) {
        let is_needed = self.config.mcp.enabled && self.config.mcp.servers.is_empty();
        let Some(url) = self.mcp_server_url.take().filter(|_| is_needed) else { return };
        self.config.mcp.servers.push(McpServerConfig::http("default", url));
        self.sources.insert("mcp.servers", ValueSource::EnvVar { name: "MCP_SERVER_URL".into() });
    }

    fn finalize_servers(&mut self) {
        if let Err(expected) = mcp_servers::finalize(&mut self.config.mcp) {
            let source = self.sources.get("mcp.servers").or_else(|| self.sources.get("mcp.enabled"));
            let location = source.unwrap_or(&ValueSource::Default).to_string();
            self.report.problems.push(Problem {
                name: "mcp.servers".into(),
                location,
                found: None,
                expected,
            });
        }
    }

    /// A rollback flag must work in an emergency, so it wins over explicit settings, with a warning.
    fn warn_overridden(&mut self) {
        let effective = self.config.effective();
        for key in KEYS {
            let Some(source) = self.sources.get(key.path).filter(|source| source.is_explicit()) else {
                continue;
            };
            let by = match &effective.provenance.sources[key.path] {
                ValueSource::Rollback { flag } => flag,
                ValueSource::Key { key } => key,
                _ => continue,
            };
            // Choosing a built-in backend and the flag for its legacy implementation is no contradiction.
            if !key.path.ends_with(".backend") {
                let (path, value) = (key.path, key.explained(&effective));
                let warning = format!("{path} ({source}) is overridden by {by}; effective value: {value}");
                self.report.warnings.push(warning);
            }
        }
    }

    fn finish(mut self) -> Result<Config> {
        self.apply_mcp_server_url();
        self.finalize_servers();
        self.report.finish(self.is_strict)?;
        let (loaded, sources) = (Arc::new(self.config.clone()), Arc::new(self.sources.clone()));
        self.config.provenance = Provenance { loaded: Some(loaded), sources, ..Provenance::default() };
        self.warn_overridden();
        for warning in &self.report.warnings {
            tracing::warn!(component = "config", "{warning}");
        }
        self.config.provenance.warnings = self.report.warnings.into();
        Ok(self.config)
    }
}

fn location(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => path.display().to_string(),
        None => metadata.name.to_string(),
    }
}
