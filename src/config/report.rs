//! Problems and warnings found while loading.

use super::env;
use super::problems::{Problem, closest_match, truncate_for_display};
use super::provenance::ValueSource;
use super::sections::KEYS;
use crate::error::Error;

/// Unknown names that are listed one by one; further ones are only counted.
const MAX_LISTED: usize = 20;

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

fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> String {
    closest_match(name, known).map_or_else(String::new, |closest| format!("; did you mean {closest}?"))
}
