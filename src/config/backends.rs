//! `backends.<name>`: the settings of outside backends, which only they know.

use std::collections::BTreeMap;
use std::fmt;

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use figment::{Figment, error::Error as FigmentError};
use serde::de::DeserializeOwned;

use super::explain::ValueSource;
use super::problems::{Problem, display_value};
use crate::error::{Error, Result};

/// Settings of outside backends: the keys under `backends.<name>` in a file, and the variables
/// `ARSHAI_BACKENDS__<NAME>__<KEY>`.
///
/// A backend reads its section with serde when it is built:
///
/// ```
/// use arshai::Config;
///
/// #[derive(serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     url: String,
///     batch_size: usize,
/// }
/// # impl Default for Settings { fn default() -> Self { Self { url: String::new(), batch_size: 10 } } }
///
/// let config = Config::from_vars([("ARSHAI_BACKENDS__QDRANT__URL".into(), "http://localhost:6334".into())])?;
/// let settings: Settings = config.backends.get("qdrant")?;
/// assert_eq!((settings.url.as_str(), settings.batch_size), ("http://localhost:6334", 10));
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct BackendSections {
    sections: BTreeMap<String, Value>,
    /// By full path, for example `backends.qdrant.url`.
    sources: BTreeMap<String, ValueSource>,
}

impl BackendSections {
    /// The section of this backend; an empty one if nothing is set. Variables hold strings, which are read as numbers and
    /// booleans where the type asks for them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming the key and its source, never its value.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let empty = Value::from(Dict::new());
        let section = self.sections.get(name).unwrap_or(&empty);
        Figment::from(Serialized::defaults(section)).extract_lossy().map_err(|error| self.error(name, error))
    }

    /// Sets a key in code: `set("qdrant", "url", "http://localhost:6334")`. Dots in the key separate tables.
    pub fn set(&mut self, name: &str, key: &str, value: impl Into<Value>) {
        self.insert(&format!("{name}.{key}"), value.into(), &|_| ValueSource::Code);
    }

    /// The names of the sections.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Sets what is at `path` (without `backends.`), key by key.
    pub(super) fn insert(&mut self, path: &str, value: Value, source: &dyn Fn(&str) -> ValueSource) {
        if let Value::Dict(_, dict) = value {
            for (key, value) in dict {
                self.insert(&format!("{path}.{key}"), value, source);
            }
            return;
        }
        let full_path = format!("backends.{path}");
        let mut parts = path.split('.');
        let mut section = self
            .sections
            .entry(parts.next().unwrap_or_default().to_owned())
            .or_insert_with(|| Value::from(Dict::new()));
        for part in parts {
            if section.as_dict().is_none() {
                *section = Value::from(Dict::new());
            }
            let Value::Dict(_, dict) = section else { return };
            section = dict.entry(part.to_owned()).or_insert_with(|| Value::from(Dict::new()));
        }
        *section = value;
        self.sources.insert(full_path.clone(), source(&full_path));
    }

    /// Every key with what may be shown of its value and its source. Which strings are secrets only the backend knows.
    pub(super) fn explain(&self) -> impl Iterator<Item = (&str, String, &ValueSource)> {
        self.sources.iter().filter_map(|(path, source)| {
            let mut parts = path.split('.').skip(1);
            let section = self.sections.get(parts.next()?)?;
            let value = parts.try_fold(section, |value, part| value.as_dict()?.get(part))?;
            Some((path.as_str(), displayed(value), source))
        })
    }

    fn error(&self, name: &str, error: FigmentError) -> Error {
        let path = error.path.iter().fold(format!("backends.{name}"), |path, key| path + "." + key);
        // What was found could be a secret, so the error's own message is not used.
        let expected = match error.kind {
            Kind::InvalidType(_, expected)
            | Kind::InvalidValue(_, expected)
            | Kind::InvalidLength(_, expected) => {
                format!("expected {expected}")
            }
            Kind::UnknownField(field, known) => {
                format!("unknown key {field:?}; expected one of {}", known.join(", "))
            }
            Kind::MissingField(field) => format!("missing key {field:?}"),
            _ => "invalid value".to_owned(),
        };
        let source = self.sources.get(&path);
        let location = source.map_or_else(|| format!("backends.{name}"), ToString::to_string);
        vec![Problem { name: path, location, found: None, expected }].into()
    }
}

fn displayed(value: &Value) -> String {
    match value {
        Value::Bool(..) | Value::Num(..) | Value::Empty(..) => display_value(value),
        _ => "***".to_owned(),
    }
}

/// Shows the keys; values may be secrets.
impl fmt::Debug for BackendSections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.keys()).finish()
    }
}
