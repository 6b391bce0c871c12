//! An embedding of texts as hashed bags of words, weighted as BM25 weights them: enough to find passages that share
//! words with a question, without a model to download.

use std::collections::HashMap;

/// Dimensions of the embedding: so many that words seldom share one.
pub(crate) const DIMENSIONS: usize = 4096;

/// How much a repeated word, and the length of a passage, count (k₁ and b of BM25).
const REPETITION: f32 = 1.2;
const LENGTH: f32 = 0.4;

/// Embeds passages so that the inner product with an embedded question is the BM25 score.
pub(crate) struct Embedder {
    passages: f32,
    average_words: f32,
    /// The number of passages that contain a word.
    found_in: HashMap<String, f32>,
}

impl Embedder {
    /// Counts how rare each word of these passages is.
    pub(crate) fn new<'a>(passages: impl IntoIterator<Item = &'a str>) -> Self {
        let mut embedder = Self { passages: 0.0, average_words: 0.0, found_in: HashMap::new() };
        for passage in passages {
            let counts = counts(passage);
            embedder.passages += 1.0;
            embedder.average_words += counts.values().sum::<f32>();
            for word in counts.into_keys() {
                *embedder.found_in.entry(word).or_default() += 1.0;
            }
        }
        embedder.average_words /= embedder.passages.max(1.0);
        embedder
    }

    pub(crate) fn passage(&self, text: &str) -> Vec<f32> {
        let counts = counts(text);
        let length = counts.values().sum::<f32>() / self.average_words.max(1.0);
        let damping = REPETITION * (1.0 - LENGTH + LENGTH * length);
        vector(counts.iter().map(|(word, count)| {
            let found_in = self.found_in.get(word).copied().unwrap_or_default();
            let rarity = (1.0 + (self.passages - found_in + 0.5) / (found_in + 0.5)).ln();
            (word, rarity * count * (REPETITION + 1.0) / (count + damping))
        }))
    }
}

pub(crate) fn question(text: &str) -> Vec<f32> {
    vector(counts(text).keys().map(|word| (word, 1.0)))
}

fn counts(text: &str) -> HashMap<String, f32> {
    let mut counts = HashMap::new();
    for word in words(text) {
        *counts.entry(word).or_default() += 1.0;
    }
    counts
}

/// Sums in the order of the words, so that equal texts have equal vectors.
fn vector<'a>(weights: impl Iterator<Item = (&'a String, f32)>) -> Vec<f32> {
    let mut weights: Vec<_> = weights.collect();
    weights.sort_by_key(|(word, _)| *word);
    let mut vector = vec![0.0_f32; DIMENSIONS];
    for (word, weight) in weights {
        let hash = fnv1a(word.as_bytes());
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        vector[(hash % DIMENSIONS as u64) as usize] += sign * weight;
    }
    vector
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The words of `text` that carry meaning: in lower case, in the singular, one word for what is limited.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    const COMMON: &[&str] = &[
        "the", "and", "for", "are", "is", "was", "what", "which", "how", "does", "did", "can", "with",
        "that", "this", "from", "it", "its", "in", "of", "to", "on", "or", "an", "as", "by", "be", "do",
        "me", "my", "you", "your", "about", "there", "when", "where", "who", "why", "will", "tell", "more",
        "happens", "has", "have", "not", "no", "if",
    ];
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_lowercase)
        .filter(|word| !COMMON.contains(&word.as_str()))
        .map(|word| match word.as_str() {
            "max" | "maximum" | "limited" | "limits" => "limit".to_owned(),
            _ if word.len() > 3 && !["ss", "us", "is"].iter().any(|end| word.ends_with(end)) => {
                word.trim_end_matches('s').to_owned()
            }
            _ => word,
        })
}
