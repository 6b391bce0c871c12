//! Errors in a configuration.

use std::error::Error as StdError;
use std::fmt;

use figment::value::Value;

use crate::error::{Error, ErrorKind};

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

/// The known name that is closest to a misspelt one.
pub(crate) fn closest_match(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let name = truncate_for_display(name.to_owned());
    let max_distance = (name.chars().count() / 3).max(2);
    let distances = known.map(|known| (strsim::levenshtein(&name, &known), known));
    distances.min().filter(|(distance, _)| *distance <= max_distance).map(|(_, known)| known)
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
