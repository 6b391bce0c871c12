//! Values as Python arshai's `get_key` returns them.

use bytes::Bytes;
use serde_json::Value;

/// The value of a key: JSON if it parses, otherwise a string, otherwise bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RedisValue {
    /// Valid JSON.
    Json(Value),
    /// UTF-8, but not JSON.
    Text(String),
    /// Not UTF-8.
    Bytes(Bytes),
}

impl RedisValue {
    pub(super) fn parse(bytes: Bytes) -> Self {
        let Ok(text) = std::str::from_utf8(&bytes) else { return Self::Bytes(bytes) };
        match serde_json::from_str(text) {
            Ok(json) => Self::Json(json),
            Err(_) => Self::Text(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_json_if_it_parses_otherwise_text_otherwise_bytes() {
        let parse = |bytes: &'static [u8]| RedisValue::parse(Bytes::from_static(bytes));
        assert_eq!(parse(b"{\"a\": [1, null]}"), RedisValue::Json(json!({"a": [1, null]})));
        assert_eq!(parse(b"42"), RedisValue::Json(json!(42)));
        assert_eq!(parse(b"hello"), RedisValue::Text("hello".into()));
        assert_eq!(parse(b""), RedisValue::Text(String::new()));
        assert_eq!(parse(b"\xff\xfe"), RedisValue::Bytes(Bytes::from_static(b"\xff\xfe")));
    }
}
