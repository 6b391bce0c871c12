//! A page of the documentation, as far as a newcomer copies from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a newcomer copies from a page.
#[derive(Debug)]
pub(crate) struct Page {
    /// `page-` and the file's name in lower case, without extension.
    pub(crate) name: String,
    /// The crates that its `cargo add` line names, and their features.
    pub(crate) crates: BTreeMap<String, Vec<String>>,
    /// Its first program.
    pub(crate) program: String,
}

/// The README and every guide.
pub(crate) fn all() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guides = fs::read_dir(root.join("docs")).expect("there are guides");
    let mut files: Vec<_> = guides.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.push(root.join("README.md"));
    files.iter().map(|file| Page::read(file)).collect()
}

impl Page {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a readable page");
        let add = text.lines().find_map(|line| line.strip_prefix("cargo add "));
        let program = code_blocks(&text).find(|(language, _)| language.starts_with("rust"));
        Self {
            name: format!("page-{}", file.file_stem().expect("a file").to_string_lossy().to_lowercase()),
            crates: crates(
                add.unwrap_or_else(|| panic!("{file:?} has no line that begins with `cargo add`")),
            ),
            program: program.unwrap_or_else(|| panic!("{file:?} has no program")).1,
        }
    }

    /// The features of arshai that it needs.
    pub(crate) fn features(&self) -> &[String] {
        &self.crates["arshai"]
    }
}

/// Language and contents of each code block.
fn code_blocks(text: &str) -> impl Iterator<Item = (&str, String)> {
    // Outside, inside, outside, …
    text.split("\n```").skip(1).step_by(2).filter_map(|block| {
        let (language, code) = block.split_once('\n')?;
        Some((language, format!("{code}\n")))
    })
}

/// The arguments of a `cargo add`: crates, then `--features` as `CRATE/FEATURE,…`, or `FEATURE,…` of the only crate.
fn crates(arguments: &str) -> BTreeMap<String, Vec<String>> {
    let (names, features) = arguments.split_once(" --features ").unwrap_or((arguments, ""));
    let mut crates: BTreeMap<String, Vec<String>> =
        names.split_whitespace().map(|name| (name.to_owned(), Vec::new())).collect();
    for feature in features.split(',').map(str::trim).filter(|feature| !feature.is_empty()) {
        let (name, feature) = feature.split_once('/').unwrap_or((names, feature));
        crates
            .get_mut(name)
            .unwrap_or_else(|| panic!("{feature} is a feature of no crate"))
            .push(feature.to_owned());
    }
    crates
}
