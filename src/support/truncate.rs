//! Excerpts of values for messages.

use std::borrow::Cow;
use std::io;

use serde_json::Value;

/// `text`, or its beginning of at most `max` bytes and its length if it is longer.
#[must_use]
pub fn truncated(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len()))
}

/// `value` as JSON, or the beginning of it of at most `max` bytes, without writing the rest.
#[must_use]
pub fn json_excerpt(value: &Value, max: usize) -> String {
    let mut excerpt = Excerpt { bytes: Vec::new(), max };
    let is_complete = serde_json::to_writer(&mut excerpt, value).is_ok();
    // The end may be in the middle of a character.
    let text = excerpt.bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if is_complete { text.to_owned() } else { format!("{text}…") }
}

struct Excerpt {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Excerpt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.max - self.bytes.len());
        if length == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_too_long_is_truncated_between_characters() {
        assert_eq!(truncated("größe", 7), "größe");
        assert_eq!(truncated("größe", 3), "gr… (7 bytes)");
        assert_eq!(json_excerpt(&json!({"n": "ö"}), 10), r#"{"n":"ö"}"#);
        assert_eq!(json_excerpt(&json!({"n": "ö"}), 7), r#"{"n":"…"#);
    }
}
