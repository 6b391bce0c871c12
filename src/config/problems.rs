//! Errors and warnings about a configuration.

use std::error::Error as StdError;
use std::fmt;

use figment::value::Value;

use super::env;
use super::explain::ValueSource;
use super::sections::KEYS;
use crate::error::{Error, ErrorKind};

/// Unknown names that are listed one by one; further ones are only counted.
const MAX_LISTED: usize = 20;

/// One error in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The variable or key, for example `ARSHAI_MAX_ENTRIES` or `memory.max_entries`.
    pub name: String,
    /// Where it is set: an environment variable, a file and line, code.
    pub location: String,
    /// The invalid value; `None` for secrets and for values that cannot be shown.
    pub found: Option<String>,
    /// The expected values, with an example.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(found) = &self.found {
            write!(f, " = {found}")?;
        }
        write!(f, " ({}): {}", self.location, self.expected)
    }
}

/// Every error in a configuration; the source of the error that loading it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(Vec<Problem>);

impl ConfigProblems {
    /// The problems behind `error`, if it came from a configuration.
    #[must_use]
    pub fn from_error(error: &Error) -> Option<&Self> {
        error.source()?.downcast_ref()
    }

    /// The problems: of files, then variables, then code, then those of strict mode.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 configuration error"),
            count => write!(f, "{count} configuration errors"),
        }
    }
}

impl StdError for ConfigProblems {}

impl From<Vec<Problem>> for Error {
    fn from(problems: Vec<Problem>) -> Self {
        let problems = ConfigProblems(problems);
        let mut message = problems.to_string();
        for problem in problems.as_slice() {
            message.push_str(&format!("\n  {problem}"));
        }
        Self::new(ErrorKind::Config, "config", message).with_source(problems)
    }
}

/// Problems and warnings found while loading.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
    /// Warnings that are errors in strict mode.
    strict_problems: Vec<Problem>,
    unknown_names: usize,
}

impl Report {
    pub(super) fn unknown_variable(&mut self, name: &str) {
        let hint = || did_you_mean(name, env::known_names());
        self.unknown(name, "environment variable", "environment variable".to_owned(), hint);
    }

    /// A newer file must not stop an older binary, so an unknown key of a file is a warning; one in code is an error.
    pub(super) fn unknown_key(
        &mut self,
        path: &str,
        known: impl Iterator<Item = String>,
        source: impl FnOnce() -> ValueSource,
    ) {
        if self.unknown_names > MAX_LISTED {
            self.unknown_names += 1;
            return;
        }
        let (source, hint) = (source(), || did_you_mean(path, known));
        if source == ValueSource::Code {
            let (name, expected) = (truncate_for_display(path.to_owned()), format!("unknown key{}", hint()));
            self.problems.push(Problem { name, location: source.to_string(), found: None, expected });
        } else {
            self.unknown(path, "key", source.to_string(), hint);
        }
    }

    fn unknown(&mut self, name: &str, what: &str, location: String, hint: impl FnOnce() -> String) {
        self.unknown_names += 1;
        if self.unknown_names > MAX_LISTED {
            return;
        }
        let (name, hint) = (truncate_for_display(name.to_owned()), hint());
        self.warnings.push(match what {
            "key" => format!("unknown key {name} in {location} (ignored){hint}"),
            _ => format!("unknown {what} {name} (ignored){hint}"),
        });
        let expected = format!("unknown {what}{hint}");
        self.strict_problems.push(Problem { name, location, found: None, expected });
    }

    /// Ends loading.
    pub(super) fn finish(&mut self, is_strict: bool) -> Result<(), Error> {
        if let Some(others) = self.unknown_names.checked_sub(MAX_LISTED).filter(|others| *others > 0) {
            self.warnings.push(format!("{others} more unknown names (ignored)"));
        }
        if is_strict {
            self.problems.append(&mut self.strict_problems);
        }
        match std::mem::take(&mut self.problems) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(problems.into()),
        }
    }
}

/// Every key and section.
pub(super) fn known_paths() -> impl Iterator<Item = String> {
    let sections = KEYS.iter().filter_map(|key| key.path.rsplit_once('.')).map(|(section, _)| section);
    KEYS.iter().map(|key| key.path).chain(sections).map(str::to_owned)
}

/// The known name that is closest to a misspelt one.
pub(crate) fn closest_match(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let name = truncate_for_display(name.to_owned());
    let max_distance = (name.chars().count() / 3).max(2);
    let distances = known.map(|known| (strsim::levenshtein(&name, &known), known));
    distances.min().filter(|(distance, _)| *distance <= max_distance).map(|(_, known)| known)
}

fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> String {
    closest_match(name, known).map_or_else(String::new, |closest| format!("; did you mean {closest}?"))
}

/// Enough of a name or value to recognise it.
pub(super) fn truncate_for_display(mut text: String) -> String {
    const MAX_CHARS: usize = 100;
    if let Some((at, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// An invalid value of a file, as far as it helps to recognise it.
pub(super) fn display_value(value: &Value) -> String {
    let text = match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(whole), ..) => whole.to_string(),
            (_, Some(whole), _) => whole.to_string(),
            (.., Some(float)) => format!("{float:?}"),
            _ => "a number".into(),
        },
        Value::Empty(..) => "null".into(),
        Value::Dict(..) => "a table".into(),
        Value::Array(..) => "a list".into(),
    };
    truncate_for_display(text)
}
