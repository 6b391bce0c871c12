//! Floats as Python arshai writes them: as strings, at the top level of the metadata.
//!
//! Python arshai takes every value that has a method `hex` for a UUID, and floats have one. A numeric filter does not
//! find such a value.

use serde_json::Value;

/// Replaces the floats among an object's own values by their text in Python.
pub(super) fn write_as_python(metadata: &mut Value) {
    if let Value::Object(values) = metadata {
        values.values_mut().for_each(write_float);
    }
}

fn write_float(value: &mut Value) {
    if let Some(number) = value.as_f64().filter(|_| value.is_f64()) {
        *value = Value::String(repr(number));
    }
}

/// Python's `repr`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn repr(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn floats_have_the_text_of_python() {
        let cases = [
            (0.5, "0.5"),
            (1.0, "1.0"),
            (-2.0, "-2.0"),
            (0.1, "0.1"),
            (0.0, "0.0"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ];
        for (number, text) in cases {
            assert_eq!(repr(number), text);
        }
    }

    #[test]
    fn only_floats_at_the_top_become_strings() {
        let mut value = json!({"f": 0.5, "i": 1, "b": true, "in": {"f": 0.5}, "list": [0.5]});
        write_as_python(&mut value);
        assert_eq!(value, json!({"f": "0.5", "i": 1, "b": true, "in": {"f": 0.5}, "list": [0.5]}));
    }
}
