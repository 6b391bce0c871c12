//! Configuration files: reading them, and finding the line of a key.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::path::Path;

use figment::providers::{Format, Json, Toml, Yaml};
use figment::value::{Dict, Empty, Tag, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::problems::{Problem, truncate_for_display};

/// Maximum size of a file.
const MAX_BYTES: u64 = 1 << 20;

/// The values of a file, and its text.
pub(super) fn read(path: &Path) -> Result<(Dict, String), Problem> {
    let problem = |expected: String| Problem {
        name: "configuration file".into(),
        location: path.display().to_string(),
        found: None,
        expected,
    };
    let text = read_text(path).map_err(|reason| problem(format!("cannot read file: {reason}")))?;
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    let table = match extension.as_str() {
        "toml" => Toml::from_str::<Table>(&text).map_err(|error| error.to_string()),
        "yaml" | "yml" if text.trim().is_empty() => Ok(Table(Dict::new())),
        "yaml" | "yml" => Yaml::from_str::<Table>(&text).map_err(|error| error.to_string()),
        "json" => Json::from_str::<Table>(&text).map_err(|error| error.to_string()),
        _ => return Err(problem("expected a file name ending in .toml, .yaml, .yml or .json".into())),
    };
    match table {
        Ok(Table(values)) => Ok((values, text)),
        Err(message) => {
            let message = strip_source_snippet(&message);
            Err(problem(format!("invalid {}: {message}", extension.to_uppercase())))
        }
    }
}

/// The text of a regular file. Anything else could block for ever or never end.
fn read_text(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.len() as u64 {
        // Editors on Windows write a byte-order mark.
        0..=MAX_BYTES => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        _ => Err(format!("larger than {MAX_BYTES} bytes")),
    }
}

/// A parser's message without the part of the file it repeats, which may hold a secret.
pub(super) fn strip_source_snippet(message: &str) -> String {
    if message.starts_with("invalid type") {
        return "expected keys and tables, e.g. a key ttl in a table memory".into();
    }
    // The TOML parser draws the line, between bars, after saying where it is.
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let drawn = lines.iter().rposition(|line| line.contains('|')).map_or(1, |last| last + 1);
    let words = lines.first().into_iter().chain(lines.get(drawn..).into_iter().flatten());
    words.copied().collect::<Vec<_>>().join("; ")
}

/// A table of values in which a key that appears twice is an error, in every format.
struct Table(Dict);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor;

        impl<'de> Visitor<'de> for TableVisitor {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
                unique_keys(map).map(Table)
            }
        }

        deserializer.deserialize_map(TableVisitor)
    }
}

fn unique_keys<'de, A: MapAccess<'de>>(mut map: A) -> Result<Dict, A::Error> {
    let mut dict = Dict::new();
    while let Some((key, Unique(value))) = map.next_entry::<String, _>()? {
        if key == "<<" {
            return Err(A::Error::custom("merge keys (<<) are not supported; repeat the keys"));
        }
        if dict.contains_key(&key) {
            return Err(A::Error::custom(format!("duplicate key {:?}", truncate_for_display(key))));
        }
        dict.insert(key, value);
    }
    Ok(dict)
}

/// A value whose tables have unique keys.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        macro_rules! visit {
            ($($visit:ident: $Type:ty),+) => {$(
                fn $visit<E>(self, value: $Type) -> Result<Unique, E> {
                    Ok(Unique(Value::from(value)))
                }
            )+};
        }

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            visit!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Empty(Tag::Default, Empty::Unit)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
                let mut items = Vec::new();
                while let Some(Unique(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Unique(Value::Array(Tag::Default, items)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Unique, A::Error> {
                unique_keys(map).map(|dict| Unique(Value::Dict(Tag::Default, dict)))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

/// The line of the last part of `path`, found by looking for its parts one after the other. Good for files written the
/// usual way; `None` where it finds nothing.
pub(super) fn find_key_line(text: &str, path: &str) -> Option<usize> {
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
        // The part may be on the line already found: `[llm.openai]`, `memory.ttl = 5`.
        let here = found.and_then(|number| text.lines().nth(number)).is_some_and(mentions);
        if !here {
            found = lines.find(|(_, line)| mentions(line)).map(|(number, _)| number);
        }
        found?;
    }
    found.map(|number| number + 1)
}
