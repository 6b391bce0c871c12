//! UTF-16 surrogate pairs that a server split over two chunks.

/// Rewrites JSON that holds unpaired surrogates, which are not valid in a Rust string: a pair split over two chunks is
/// joined in the second one, a surrogate without the other half becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct SurrogateJoiner {
    /// The escape of a high surrogate at the end of the last chunk's string.
    pending: Option<String>,
}

impl SurrogateJoiner {
    /// The same JSON with every surrogate paired.
    pub(super) fn repair(&mut self, json: &str) -> String {
        let mut repaired = String::with_capacity(json.len());
        let mut rest = json;
        while let Some(at) = rest.find('\\') {
            repaired.push_str(&rest[..at]);
            rest = &rest[at..];
            let length = match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
                (Some(Half::High), Some(Half::Low)) => {
                    repaired.push_str(&rest[..12]);
                    12
                }
                (Some(Half::High), _) if rest.as_bytes().get(6) == Some(&b'"') => {
                    self.pending = Some(rest[..6].to_owned());
                    6
                }
                (Some(half), _) => {
                    match self.pending.take_if(|_| matches!(half, Half::Low)) {
                        Some(high) => repaired.extend([&*high, &rest[..6]]),
                        None => repaired.push_str("\\ufffd"),
                    }
                    6
                }
                // Any other escape: the backslash and the character after it.
                (None, _) => {
                    let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                    repaired.push_str(&rest[..length]);
                    length
                }
            };
            rest = &rest[length..];
        }
        repaired.push_str(rest);
        repaired
    }
}

enum Half {
    High,
    Low,
}

/// The surrogate whose escape begins `json`.
fn surrogate(json: &str) -> Option<Half> {
    let digits = json.strip_prefix("\\u")?.get(..4)?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xD800..=0xDBFF => Some(Half::High),
        0xDC00..=0xDFFF => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_split_over_two_chunks_is_joined_in_the_second() {
        let mut joiner = SurrogateJoiner::default();
        assert_eq!(joiner.repair(r#"{"a":"x\ud83e"}"#), r#"{"a":"x"}"#);
        assert_eq!(joiner.repair(r#"{"a":"\udd80y"}"#), r#"{"a":"\ud83e\udd80y"}"#);
    }

    #[test]
    fn unpaired_surrogates_are_replaced_and_everything_else_is_unchanged() {
        let mut joiner = SurrogateJoiner::default();
        assert_eq!(joiner.repair(r#""\ud83e!\udd80""#), r#""\ufffd!\ufffd""#);
        for json in [r#""\ud83e\udd80 \\ud83e \n \" \u00e9 é""#, r#""\"#, r#""\u12"#, "\"\\é\""] {
            assert_eq!(joiner.repair(json), json);
        }
    }
}
