//! Reads the text files of a folder and splits them into passages.

use std::path::{Path, PathBuf};

/// Passages are at most about this many bytes.
const PASSAGE_BYTES: usize = 700;

/// One passage of a file.
#[derive(Debug)]
pub(crate) struct Passage {
    /// `README.md:12`, the file and the line it starts on.
    pub(crate) source: String,
    pub(crate) text: String,
}

/// All passages of the text files below `folder`, in the order of their paths.
pub(crate) fn read(folder: &Path) -> std::io::Result<Vec<Passage>> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut passages = Vec::new();
    for file in files {
        // Skip files that are not UTF-8, in spite of their extension.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(folder).unwrap_or(&file).display().to_string();
        passages.extend(split(&name, &text));
    }
    Ok(passages)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|kind| ["md", "txt", "rst"].iter().any(|text| kind == *text)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Splits at blank lines and headings, and joins what is short. Each row of a table is a passage of its own.
fn split(name: &str, text: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut add = |line: usize, text: &str| {
        if text.split_whitespace().count() >= 4 {
            passages.push(Passage { source: format!("{name}:{line}"), text: text.trim().to_owned() });
        }
    };
    let (mut current, mut began) = (String::new(), 1);
    let mut labels: Option<Vec<&str>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let row = line.strip_prefix('|').map(cells);
        let full = line.trim().is_empty() && current.len() >= PASSAGE_BYTES / 2;
        if line.starts_with('#') || full || row.is_some() || current.len() + line.len() > PASSAGE_BYTES {
            add(began, &current);
            current.clear();
        }
        match (row, &labels) {
            (None, _) => labels = None,
            (Some(row), None) => labels = Some(row),
            (Some(row), Some(labels)) => add(number, &labelled(labels, &row)),
        }
        if labels.is_none() {
            if current.is_empty() {
                began = number;
            }
            current.push_str(line);
            current.push('\n');
        }
    }
    add(began, &current);
    passages
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_end().trim_end_matches('|').split(" | ").map(str::trim).collect()
}

/// A row of a table as text: `variable: REDIS_URL; default: none`. Empty for the line below the header.
fn labelled(labels: &[&str], row: &[&str]) -> String {
    let cells = labels.iter().zip(row).filter(|(_, cell)| !cell.trim_matches(['-', ':', '|']).is_empty());
    cells.map(|(label, cell)| format!("{label}: {cell}")).collect::<Vec<_>>().join("; ")
}
