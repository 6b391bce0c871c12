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
    Cow::Owned(format!("{}… ({} bytes)", &text[..floor_char_boundary(text, max)], text.len()))
}

/// `text`, or its beginning and its end of about `max` bytes together if it is longer, with a mark between them that says
/// how much is missing, followed by `hint`.
#[must_use]
pub(crate) fn cut_middle<'a>(text: &'a str, max: usize, hint: &str) -> Cow<'a, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let head = floor_char_boundary(text, max.div_ceil(2));
    let mut tail = text.len() - max / 2;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let (missing, all) = (tail - head, text.len());
    let (head, tail) = (&text[..head], &text[tail..]);
    Cow::Owned(format!("{head}\n[… {missing} of {all} bytes are not shown here{hint} …]\n{tail}"))
}

/// The last position not after `at` that is between two characters of `text`.
#[must_use]
pub(crate) fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// `value` as JSON, or the beginning of it of at most `max` bytes, without writing the rest.
#[must_use]
pub(crate) fn json_excerpt(value: &Value, max: usize) -> String {
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

    proptest::proptest! {
        #[test]
        fn what_is_cut_keeps_its_beginning_and_its_end(text in ".{0,200}", max in 0_usize..300) {
            let cut = cut_middle(&text, max, "");
            if text.len() <= max {
                proptest::prop_assert_eq!(&*cut, &text);
            } else {
                let (head, rest) = cut.split_once("\n[… ").expect("a mark");
                let (missing, tail) = rest.split_once(" …]\n").expect("a mark");
                proptest::prop_assert!(text.starts_with(head) && text.ends_with(tail));
                proptest::prop_assert!(head.len() + tail.len() <= max + 1);
                let missing: usize = missing.split(' ').next().expect("a number").parse().expect("a number");
                proptest::prop_assert_eq!(head.len() + missing + tail.len(), text.len());
            }
        }
    }

    #[test]
    fn only_what_is_too_long_is_truncated_between_characters() {
        assert_eq!(truncated("größe", 7), "größe");
        assert_eq!(truncated("größe", 3), "gr… (7 bytes)");
        assert_eq!(json_excerpt(&json!({"n": "ö"}), 10), r#"{"n":"ö"}"#);
        assert_eq!(json_excerpt(&json!({"n": "ö"}), 7), r#"{"n":"…"#);
    }
}
