//! JSON as Python's `json` module writes it, which strict JSON forbids.

use std::borrow::Cow;

/// The same JSON without what strict JSON forbids: `NaN` and `Infinity` are numbers, lone surrogates are U+FFFD, and a
/// leading byte-order mark is white space. Every replacement has the length of what it replaces, so that a position in
/// one is the same position in the other.
pub(super) fn to_strict(json: &str) -> Cow<'_, str> {
    let mut replacements = Vec::new();
    if json.starts_with('\u{feff}') {
        replacements.push((0, "   "));
    }
    let (mut at, mut in_string) = (0, false);
    let bytes = json.as_bytes();
    while let Some(byte) = bytes.get(at) {
        at += match (in_string, byte) {
            (_, b'"') => {
                in_string = !in_string;
                1
            }
            (true, b'\\') => match escaped_unit(&bytes[at..]) {
                Some(0xD800..=0xDBFF) if matches!(escaped_unit(&bytes[at + 6..]), Some(0xDC00..=0xDFFF)) => {
                    12
                }
                Some(0xD800..=0xDFFF) => {
                    replacements.push((at, "\\ufffd"));
                    6
                }
                _ => 2,
            },
            (false, b'N') if bytes[at..].starts_with(b"NaN") => {
                replacements.push((at, "0.0"));
                3
            }
            (false, b'I') if bytes[at..].starts_with(b"Infinity") => {
                replacements.push((at, "0.000000"));
                8
            }
            _ => 1,
        };
    }
    if replacements.is_empty() {
        return Cow::Borrowed(json);
    }
    let mut strict = json.to_owned();
    for (at, replacement) in replacements {
        strict.replace_range(at..at + replacement.len(), replacement);
    }
    Cow::Owned(strict)
}

/// The UTF-16 unit of an escape `\uXXXX`.
fn escaped_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strict_json_forbids_is_replaced_at_the_same_length() {
        let cases = [
            (r#"{"a": NaN, "b": [Infinity, -Infinity]}"#, r#"{"a": 0.0, "b": [0.000000, -0.000000]}"#),
            (r#"["NaN Infinity \" NaN", "\\", NaN]"#, r#"["NaN Infinity \" NaN", "\\", 0.0]"#),
            (
                r#"["\ud800", "\udc00x", "\ud83d\ude00", "\\ud800"]"#,
                r#"["\ufffd", "\ufffdx", "\ud83d\ude00", "\\ud800"]"#,
            ),
            (r#"["\ud83d\ud83d\ude00"]"#, r#"["\ufffd\ud83d\ude00"]"#),
            ("\u{feff}{}", "   {}"),
        ];
        for (json, strict) in cases {
            assert_eq!(to_strict(json), strict);
            assert_eq!(json.len(), strict.len());
            serde_json::from_str::<serde_json::Value>(strict).expect("strict JSON");
        }
    }

    #[test]
    fn anything_else_is_unchanged() {
        for json in ["", "\"", "\"\\", "\"\\u", "\"\\ud8", "{\"a\": 1}", "سلام \\ud800", "N", "Inf"] {
            assert!(matches!(to_strict(json), Cow::Borrowed(same) if same == json), "{json}");
        }
    }
}
