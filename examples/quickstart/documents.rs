//! Reads the text files of a folder, splits them into passages and embeds them.

use std::path::{Path, PathBuf};

/// Dimensions of the embedding.
pub(crate) const DIMENSIONS: usize = 512;

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

/// Splits at blank lines and headings, and joins what is short.
fn split(name: &str, text: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut current = String::new();
    let mut began = 1;
    let mut finish = |current: &mut String, began: usize| {
        let text = current.trim().to_owned();
        current.clear();
        if text.split_whitespace().count() >= 4 {
            passages.push(Passage { source: format!("{name}:{began}"), text });
        }
    };
    for (number, line) in text.lines().enumerate() {
        let full = line.trim().is_empty() && current.len() >= PASSAGE_BYTES / 2;
        if line.starts_with('#') || full || current.len() + line.len() > PASSAGE_BYTES {
            finish(&mut current, began);
        }
        if current.is_empty() {
            began = number + 1;
        }
        current.push_str(line);
        current.push('\n');
    }
    finish(&mut current, began);
    passages
}

/// A hashed bag of words and character trigrams, of unit length: enough to find passages that share words
/// with a question, without a model to download.
pub(crate) fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSIONS];
    let mut add = |feature: &str, weight: f32| {
        let hash = fnv1a(feature.as_bytes());
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        vector[(hash % DIMENSIONS as u64) as usize] += sign * weight;
    };
    for word in words(text) {
        add(&word, 2.0);
        let letters: Vec<char> = format!(" {word} ").chars().collect();
        for trigram in letters.windows(3) {
            add(&trigram.iter().collect::<String>(), 0.5);
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// The words of `text` that carry meaning, in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    const COMMON: [&str; 42] = [
        "the", "and", "for", "are", "is", "was", "what", "which", "how", "does", "did", "can", "with",
        "that", "this", "from", "it", "its", "in", "of", "to", "on", "or", "an", "as", "by", "be", "do",
        "me", "my", "you", "your", "about", "there", "when", "where", "who", "why", "will", "tell", "more",
        "happens",
    ];
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_lowercase)
        .filter(|word| !COMMON.contains(&word.as_str()))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
