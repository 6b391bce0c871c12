//! Configuration files: reading them, and where in them a key stands.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Json, Toml, Yaml};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};

use super::problems::Problem;

/// A figment of one file, and its text.
pub(super) fn read(path: &Path) -> Result<(Figment, String), Problem> {
    let problem = |expected: String| Problem {
        name: "configuration file".into(),
        place: path.display().to_string(),
        found: None,
        expected,
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| problem(format!("it cannot be read: {error}")))?;
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    let data = match ending.as_str() {
        "toml" => Toml::string(&text).data(),
        "yaml" | "yml" if text.trim().is_empty() => Ok(Map::new()),
        "yaml" | "yml" => Yaml::string(&text).data(),
        "json" => Json::string(&text).data(),
        _ => return Err(problem("expected a name that ends in .toml, .yaml, .yml or .json".into())),
    };
    let data = data.map_err(|error| {
        let says = without_excerpts(&error.kind.to_string());
        problem(format!("it is not valid {}: {says}", ending.to_uppercase()))
    })?;
    Ok((Figment::from(File { path: path.to_owned(), data }), text))
}

/// What a parser says, without the piece of the file it repeats, which may hold a secret.
fn without_excerpts(message: &str) -> String {
    if message.starts_with("invalid type") {
        return "expected keys and sections, for example a key ttl in a section memory".into();
    }
    // The TOML parser draws the line, between bars, after saying where it is.
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let drawn = lines.iter().rposition(|line| line.contains('|')).map_or(1, |last| last + 1);
    let words = lines.first().into_iter().chain(lines.get(drawn..).into_iter().flatten());
    words.copied().collect::<Vec<_>>().join("; ")
}

/// A file already parsed, as a layer that knows its path.
struct File {
    path: PathBuf,
    data: Map<Profile, Dict>,
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::from("configuration file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(self.data.clone())
    }
}

/// The line on which the last part of `path` stands, looking for its parts one after the other. Good for files
/// written the usual way; `None` where it finds nothing.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let mut lines = text.lines().enumerate();
    let mut found = None;
    for part in path.split('.') {
        let mentions = |line: &str| {
            let line = line.trim_start();
            let header = line.strip_prefix('[').and_then(|rest| rest.split(']').next());
            if let Some(header) = header {
                return header.split('.').any(|name| name.trim() == part);
            }
            // JSON may have several on one line, and quotes them.
            if line.contains(&format!("\"{part}\":")) {
                return true;
            }
            let name = line.split(['=', ':']).next().unwrap_or_default();
            name.split('.').any(|name| name.trim().trim_matches('"') == part) && line.len() > name.len()
        };
        // The part may stand on the line already found: `[llm.openai]`, `memory.ttl = 5`.
        let here = found.and_then(|number| text.lines().nth(number)).is_some_and(mentions);
        if !here {
            found = lines.find(|(_, line)| mentions(line)).map(|(number, _)| number);
        }
        found?;
    }
    found.map(|number| number + 1)
}
