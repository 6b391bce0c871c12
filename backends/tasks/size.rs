//! How long a value is as JSON, without writing it.

use std::fmt::{self, Write};

use serde_json::Value;

/// Whether `value` takes at most `max` bytes as compact JSON. Stops at the first byte too many, and never
/// looks into a text that is too long by itself.
pub(super) fn fits(value: &Value, max: usize) -> bool {
    Left(max).value(value).is_some()
}

/// Bytes left; every method takes some away and gives none when there are too few.
struct Left(usize);

impl Left {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes)?;
        Some(())
    }

    fn value(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::Null | Value::Bool(true) => self.take(4),
            Value::Bool(false) => self.take(5),
            Value::Number(number) => write!(self, "{number}").ok(),
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.take(2 + items.len().saturating_sub(1))?;
                items.iter().try_for_each(|item| self.value(item))
            }
            Value::Object(fields) => {
                // A colon in each field and a comma between two.
                self.take(2 + (2 * fields.len()).saturating_sub(1))?;
                fields.iter().try_for_each(|(name, field)| {
                    self.text(name)?;
                    self.value(field)
                })
            }
        }
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.take(2 + text.len())?;
        let escapes = text.bytes().map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
            0..0x20 => 5,
            _ => 0,
        });
        self.take(escapes.sum())
    }
}

impl Write for Left {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.len()).ok_or(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_size_is_that_of_the_json_to_the_byte(value in any_json()) {
            let length = value.to_string().len();
            prop_assert!(fits(&value, length));
            prop_assert!(!fits(&value, length - 1));
        }
    }
}
