//! What is wrong with a configuration.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The variable or key, for example `ARSHAI_MAX_ENTRIES` or `memory.max_entries`.
    pub name: String,
    /// Where it stands: a variable, a file and line, code.
    pub place: String,
    /// What was found; `None` for secrets and for values that cannot be shown.
    pub found: Option<String>,
    /// What was expected, with an example.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(found) = &self.found {
            write!(f, " = {found}")?;
        }
        write!(f, " ({}): {}", self.place, self.expected)
    }
}

/// Everything that is wrong with a configuration; the source of the error that loading it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(Vec<Problem>);

impl ConfigProblems {
    /// The problems behind `error`, if it came from loading a configuration.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        error.source()?.downcast_ref()
    }

    /// The problems: variables, then files, then code, then what only strict mode refuses.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("one problem in the configuration"),
            count => write!(f, "{count} problems in the configuration"),
        }
    }
}

impl StdError for ConfigProblems {}

impl From<Vec<Problem>> for Error {
    fn from(problems: Vec<Problem>) -> Self {
        let problems = ConfigProblems(problems);
        let mut message = problems.to_string();
        for problem in problems.all() {
            message.push_str(&format!("\n  {problem}"));
        }
        Self::new(ErrorKind::Config, "config", message).with_source(problems)
    }
}
