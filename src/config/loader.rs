//! Loads a configuration from its layers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Tag, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use super::explain::{Origin, Source};
use super::file;
use super::keys::{KEYS, Key, LOADER_VARIABLES, PYTHON_PREFIX, PYTHON_VARIABLES};
use super::machine::Machine;
use super::parse::{Kind, Parsed, WEB};
use super::problems::Problem;
use super::sections::McpServerConfig;
use super::servers;
use crate::error::Result;

/// Loads a [`Config`] from sources given explicitly: defaults < file < variables < code.
///
/// ```
/// use arshai::config::{ConfigLoader, Machine};
///
/// let config = ConfigLoader::new()
///     .vars([("ARSHAI_MAX_ENTRIES".into(), "5000".into())])
///     .machine(Machine::new(4))
///     .set("memory.ttl", 7200)
///     .load()?;
/// assert_eq!(config.memory.max_entries, 5000);
/// assert_eq!(config.pool.max_idle, 8);
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct ConfigLoader {
    file: Option<PathBuf>,
    figment: Option<Figment>,
    vars: Variables,
    code: Vec<(String, Value)>,
    machine: Option<Machine>,
    strict: bool,
}

/// Variables as given. Their values may be secrets and are never shown.
#[derive(Default)]
struct Variables(Vec<(OsString, OsString)>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What loading has found so far.
struct Loading {
    config: Config,
    sources: BTreeMap<&'static str, Source>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// What warns otherwise and is an error in strict mode.
    dubious: Vec<Problem>,
}

impl ConfigLoader {
    /// Nothing but the built-in defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file, TOML, YAML or JSON by its ending, whatever `ARSHAI_CONFIG` says.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Adds a figment of the application's own, its selected profile, as a layer below the file.
    pub fn figment(mut self, figment: &Figment) -> Self {
        self.figment = Some(figment.clone());
        self
    }

    /// Uses these variables. `ARSHAI_CONFIG` and `ARSHAI_STRICT` among them count.
    pub fn vars(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.vars = Variables(vars.into_iter().collect());
        self
    }

    /// Sets one key in code, above all other layers.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.code.push((key.into(), value.into()));
        self
    }

    /// Adapts connection and memory limits to this machine. Without it they are the plain defaults.
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Makes unknown `ARSHAI_*` variables, and settings that a rollback flag overrides, errors instead of warnings.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Loads the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) listing every problem of every layer.
    pub fn load(self) -> Result<Config> {
        let mut loading = Loading {
            config: Config::default(),
            sources: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            dubious: Vec::new(),
        };
        if let Some(machine) = self.machine {
            loading.adapt(machine);
        }
        let vars = loading.read_variables(&self.vars.0);
        let file = self.file.clone().or(vars.file);
        if let Some(figment) = self.figment.as_ref() {
            loading.apply(figment, "");
        }
        if let Some(path) = &file {
            loading.read_file(path);
        }
        for (key, name, parsed) in vars.values {
            loading.put(key, parsed, Source::Variable { name });
        }
        for (path, value) in self.code {
            loading.apply_value(&path, &value, &|_| Source::Code, "code");
        }
        loading.name_default_server(vars.mcp_server_url);
        loading.settle_servers();
        loading.remember();
        loading.warn_overridden();
        loading.finish(self.strict || vars.strict)
    }
}

/// What the variables say.
#[derive(Default)]
struct FromVariables {
    values: Vec<(&'static Key, String, Parsed)>,
    file: Option<PathBuf>,
    strict: bool,
    mcp_server_url: Option<String>,
}

impl Loading {
    fn adapt(&mut self, machine: Machine) {
        let config = &mut self.config;
        config.pool.max_idle = machine.max_idle();
        config.memory.max_memory_mb = machine.memory_mb(config.memory.max_memory_mb, 2);
        config.vectors.max_memory_mb = machine.memory_mb(config.vectors.max_memory_mb, 4);
        let adaptive = ["pool.max_idle", "memory.max_memory_mb", "vectors.max_memory_mb"];
        self.sources.extend(adaptive.map(|key| (key, Source::Adaptive)));
    }

    fn read_variables(&mut self, vars: &[(OsString, OsString)]) -> FromVariables {
        let mut found = FromVariables::default();
        for (name, value) in vars {
            // An empty variable counts as unset.
            if value.to_str().is_some_and(|text| text.trim().is_empty()) {
                continue;
            }
            // A name that is not UTF-8 is none of ours, whatever it starts with.
            let name = name.to_string_lossy();
            match name.as_ref() {
                "ARSHAI_CONFIG" => found.file = Some(PathBuf::from(value)),
                "ARSHAI_STRICT" => {
                    let strict = self.variable(&name, value, Kind::Flag);
                    found.strict = matches!(strict, Some(Parsed::Flag(true)));
                }
                "MCP_SERVER_URL" => {
                    let kind = Kind::Url { schemes: &WEB, example: "https://mcp.example.com/mcp" };
                    let url = self.variable(&name, value, kind);
                    found.mcp_server_url = match url {
                        Some(Parsed::Text(url)) => Some(url),
                        _ => None,
                    };
                }
                _ => match key_of_variable(&name) {
                    Some(key) => {
                        if let Some(parsed) = self.variable(&name, value, key.kind) {
                            found.values.push((key, name.into_owned(), parsed));
                        }
                    }
                    None if name.starts_with("ARSHAI_") => self.unknown_variable(&name),
                    None => {}
                },
            }
        }
        // A key's own variable wins over its generic one, whatever order they came in.
        found.values.sort_by_key(|(key, name, _)| key.variable == Some(name.as_str()));
        found
    }

    fn variable(&mut self, name: &str, value: &OsStr, kind: Kind) -> Option<Parsed> {
        let parsed = value.to_str().and_then(|text| kind.parse_text(text.trim()));
        if parsed.is_none() {
            let shown = || shortened(format!("{:?}", value.to_string_lossy()));
            self.problems.push(Problem {
                name: name.to_owned(),
                place: "environment variable".into(),
                found: kind.is_public().then(shown),
                expected: match value.to_str() {
                    Some(_) => kind.expected(),
                    None => format!("the value is not UTF-8; {}", kind.expected()),
                },
            });
        }
        parsed
    }

    fn unknown_variable(&mut self, name: &str) {
        if PYTHON_VARIABLES.contains(&name) || name.starts_with(PYTHON_PREFIX) {
            self.warnings.push(format!("{name} is a variable of Python arshai; it has no effect here"));
            return;
        }
        let own = KEYS.iter().filter_map(|key| key.variable).map(str::to_owned);
        let generic = KEYS.iter().map(Key::generic_variable);
        let loader = LOADER_VARIABLES.map(str::to_owned);
        let nearest = nearest(name, own.chain(generic).chain(loader));
        self.warnings
            .push(format!("{name} is no variable of arshai and has no effect; did you mean {nearest}?"));
        self.dubious.push(Problem {
            name: name.to_owned(),
            place: "environment variable".into(),
            found: None,
            expected: format!("there is no such variable; did you mean {nearest}?"),
        });
    }

    fn read_file(&mut self, path: &Path) {
        match file::read(path) {
            Ok((figment, text)) => self.apply(&figment, &text),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Applies every value of a figment; `text` is the file's, to find lines in.
    fn apply(&mut self, figment: &Figment, text: &str) {
        let data = match figment.data() {
            Ok(data) => data,
            Err(error) => {
                // Figment's own words for a syntax error say what and where, and show no value of a variable.
                self.problems.extend(error.into_iter().map(|error| Problem {
                    name: "configuration".into(),
                    place: error.metadata.as_ref().map_or("figment".into(), |data| place(data, None)),
                    found: None,
                    expected: error.kind.to_string(),
                }));
                return;
            }
        };
        let source = |path: &str, tag: Tag| {
            let metadata = figment.get_metadata(tag);
            match metadata.and_then(|data| data.source.as_ref()).and_then(|source| source.file_path()) {
                Some(file) => Source::File { path: file.to_owned(), line: file::line_of(text, path) },
                None => Source::Code,
            }
        };
        let selected = figment.profile();
        let between = (*selected != Profile::Default && *selected != Profile::Global).then_some(selected);
        for profile in [Some(&Profile::Default), between, Some(&Profile::Global)].into_iter().flatten() {
            for (key, value) in data.get(profile).into_iter().flatten() {
                self.apply_value(key, value, &|path| source(path, value.tag()), "the configuration file");
            }
        }
    }

    /// Applies the value at `path`, or, where `path` is a section, each value in it.
    fn apply_value(&mut self, path: &str, value: &Value, source: &dyn Fn(&str) -> Source, layer: &str) {
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            match key.kind.parse_value(value) {
                Ok(parsed) => self.put(key, parsed, source(path)),
                Err(wrong) => self.problems.push(Problem {
                    name: format!("{path}{}", wrong.at),
                    place: source(path).to_string(),
                    found: key.kind.is_public().then(|| shortened(show(value))),
                    expected: wrong.expected,
                }),
            }
            return;
        }
        let is_section =
            KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
        match value {
            Value::Dict(_, dict) if is_section => {
                for (name, value) in dict {
                    self.apply_value(&format!("{path}.{name}"), value, source, layer);
                }
            }
            // A section with nothing under it, as YAML writes one whose keys are all comments.
            Value::Empty(..) if is_section => {}
            _ => {
                let nearest = nearest(path, KEYS.iter().map(|key| key.path.to_owned()));
                let expected = if is_section {
                    format!("this is a section: give its keys, for example {nearest}")
                } else {
                    format!("there is no such key in {layer}; did you mean {nearest}?")
                };
                self.problems.push(Problem {
                    name: path.to_owned(),
                    place: source(path).to_string(),
                    found: None,
                    expected,
                });
            }
        }
    }

    fn put(&mut self, key: &'static Key, parsed: Parsed, source: Source) {
        (key.set)(&mut self.config, parsed);
        self.sources.insert(key.path, source);
    }

    /// `MCP_SERVER_URL` is the server named `default` where MCP is enabled and no servers are listed.
    fn name_default_server(&mut self, url: Option<String>) {
        let Some(url) = url.filter(|_| self.config.mcp.enabled && self.config.mcp.servers.is_empty()) else {
            return;
        };
        self.config.mcp.servers.push(McpServerConfig::at("default", url));
        self.sources.insert("mcp.servers", Source::Variable { name: "MCP_SERVER_URL".into() });
    }

    fn settle_servers(&mut self) {
        if let Err(wrong) = servers::settle(&mut self.config.mcp) {
            let source = self.sources.get("mcp.servers").or_else(|| self.sources.get("mcp.enabled"));
            self.problems.push(Problem {
                name: "mcp.servers".into(),
                place: source.unwrap_or(&Source::Default).to_string(),
                found: None,
                expected: wrong.expected,
            });
        }
    }

    /// A rollback flag must work in an emergency, so it wins over explicit settings, with a warning.
    fn warn_overridden(&mut self) {
        let effective = self.config.explain();
        for (&key, source) in &self.sources {
            // Choosing a built-in backend and the flag for its legacy implementation is no contradiction.
            let is_explicit =
                !matches!(source, Source::Default | Source::Adaptive) && !key.ends_with(".backend");
            let Some(value) = effective.get(key).filter(|_| is_explicit) else { continue };
            if let by @ (Source::Rollback { .. } | Source::Key { .. }) = &value.source {
                let by = by.to_string();
                self.warnings
                    .push(format!("{key} ({source}) is overridden ({by}); effective value: {}", value.value));
            }
        }
    }

    fn remember(&mut self) {
        let loaded = Some(Arc::new(self.config.clone()));
        self.config.origin = Origin { loaded, sources: Arc::new(self.sources.clone()), ..Origin::default() };
    }

    fn finish(mut self, strict: bool) -> Result<Config> {
        if strict {
            self.problems.append(&mut self.dubious);
        }
        if !self.problems.is_empty() {
            return Err(self.problems.into());
        }
        for warning in &self.warnings {
            tracing::warn!(component = "config", "{warning}");
        }
        self.config.origin.warnings = self.warnings.into();
        Ok(self.config)
    }
}

fn key_of_variable(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable == Some(name)).or_else(|| {
        let path = name.strip_prefix("ARSHAI_")?.to_lowercase().replace("__", ".");
        let is_generic = |key: &&Key| key.path == path && key.generic_variable() == name;
        KEYS.iter().find(is_generic)
    })
}

/// The known name that is fewest edits away.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known.min_by_key(|known| strsim::levenshtein(name, known)).unwrap_or_default()
}

fn place(metadata: &Metadata, line: Option<usize>) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(path) => Source::File { path: path.to_owned(), line }.to_string(),
        None => metadata.name.to_string(),
    }
}

/// Enough of a wrong value to recognise it.
fn shortened(mut text: String) -> String {
    const ENOUGH: usize = 80;
    if let Some((at, _)) = text.char_indices().nth(ENOUGH) {
        text.truncate(at);
        text.push('…');
    }
    text
}

fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(float)) => float.to_string(),
            (None, None) => number.to_u128().map_or_else(|| "a number".into(), |n| n.to_string()),
        },
        Value::Empty(..) => "nothing".into(),
        Value::Dict(..) => "a section".into(),
        Value::Array(..) => "a list".into(),
    }
}
