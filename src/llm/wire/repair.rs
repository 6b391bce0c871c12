//! JSON that the standard forbids and some servers write.

use std::mem::take;

use serde_json::{Map, Value};

/// The first of the characters that stand for the surrogates U+D800 to U+DFFF; the last is the last of Unicode.
const FIRST_MARK: u32 = 0x10_F800;

/// The same JSON with null for words that are not JSON, such as `NaN`, and a mark for each surrogate without its other
/// half, which a string in Rust cannot hold. The other half may follow in the next part: see [`join_surrogates`].
pub(super) fn repair(json: &str) -> String {
    let mut repaired = String::with_capacity(json.len());
    let (mut rest, mut in_string) = (json, false);
    while let Some(first) = rest.chars().next() {
        let length = match (in_string, first) {
            (_, '"') => {
                in_string = !in_string;
                1
            }
            (true, '\\') => match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
                (Some(half), _) => {
                    repaired.extend(char::from_u32(FIRST_MARK - 0xD800 + u32::from(half)));
                    rest = &rest[6..];
                    continue;
                }
                (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            },
            (false, first) if is_word(first) => {
                let length = rest.find(|next| !is_word(next)).unwrap_or(rest.len());
                if serde_json::from_str::<Value>(&rest[..length]).is_err() {
                    repaired.push_str("null");
                    rest = &rest[length..];
                    continue;
                }
                length
            }
            (_, other) => other.len_utf8(),
        };
        repaired.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    repaired
}

/// Of a number or of `true`, `false` and `null`.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '+' | '-' | '.' | '_')
}

/// The surrogate whose escape begins `json`.
fn surrogate(json: &str) -> Option<u16> {
    let digits = json.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|unit| matches!(unit, 0xD800..=0xDFFF))
}

/// Whether a character is the mark of a high surrogate.
pub(super) fn is_high_mark(character: char) -> bool {
    (FIRST_MARK..FIRST_MARK + 0x400).contains(&character.into())
}

/// The same text with the marks of two halves joined to their character; of any other half, U+FFFD.
pub(super) fn join_surrogates(text: &str) -> String {
    let mut units = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character).checked_sub(FIRST_MARK) {
            Some(offset) => units.push(0xD800 + offset as u16),
            None => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        }
    }
    String::from_utf16_lossy(&units)
}

/// [`join_surrogates`] for every text in `fields`.
pub(super) fn join_in_fields(fields: &mut Map<String, Value>) {
    let join = |(name, mut value): (String, Value)| {
        join_in_value(&mut value);
        (join_surrogates(&name), value)
    };
    *fields = take(fields).into_iter().map(join).collect();
}

/// [`join_surrogates`] for every text in `value`.
pub(super) fn join_in_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = join_surrogates(text),
        Value::Array(items) => items.iter_mut().for_each(join_in_value),
        Value::Object(fields) => join_in_fields(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_not_json_become_null_outside_strings() {
        let json =
            r#"{"NaN":[NaN, -Infinity,inf,-nan,undefined,1e999],"a":"NaN \" NaN","b":[true,-1.5E+3,null]}"#;
        let expected = r#"{"NaN":[null, null,null,null,null,null],"a":"NaN \" NaN","b":[true,-1.5E+3,null]}"#;
        assert_eq!(repair(json), expected);
    }

    #[test]
    fn unpaired_surrogates_are_replaced_and_everything_else_is_unchanged() {
        let joined = |json: &str| join_surrogates(&repair(json));
        assert_eq!(joined(r#""\ud83e!\udd80""#), "\"\u{fffd}!\u{fffd}\"");
        assert_eq!(joined(r#""\ud83e\ud83e\udd80""#), r#""�\ud83e\udd80""#);
        for json in [r#""\ud83e\udd80 \\ud83e \n \" \u00e9 é🦀""#, r#""\"#, r#""\u12"#, "\"\\é\"", "{a:}"]
        {
            assert_eq!(joined(json).replace("null", "a"), json);
        }
    }
}
