//! Replies of the type that their command has.
//!
//! fred's own conversions take nearly anything for anything, which would hide that replies are out of step with their
//! commands. A reply of another type is a parse error, after which the connection is not used again.

use bytes::Bytes;
use fred::error::{Error, ErrorKind};
use fred::types::{FromValue, Value};

/// The bytes of a value.
pub(crate) struct BytesReply(pub(crate) Bytes);

impl FromValue for BytesReply {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Bytes(bytes) => Ok(Self(bytes)),
            Value::String(text) => Ok(Self(text.into_inner())),
            other => Err(unexpected(&other)),
        }
    }
}

/// A number.
pub(crate) struct IntegerReply(pub(crate) i64);

impl FromValue for IntegerReply {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::Integer(number) => Ok(Self(number)),
            other => Err(unexpected(&other)),
        }
    }
}

/// Whether a value was written: not if a condition of the command did not hold.
pub(crate) struct WrittenReply(pub(crate) bool);

impl FromValue for WrittenReply {
    fn from_value(value: Value) -> Result<Self, Error> {
        match value {
            Value::String(text) if &*text == "OK" => Ok(Self(true)),
            Value::Null => Ok(Self(false)),
            other => Err(unexpected(&other)),
        }
    }
}

/// Without the reply itself, which may be private.
fn unexpected(reply: &Value) -> Error {
    Error::new(ErrorKind::Parse, format!("unexpected reply of type {:?}", reply.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_another_type_is_an_error_that_does_not_contain_it() {
        let text = || Value::from("hunter2");
        let number = || Value::Integer(1);
        let list = || Value::Array(vec![text()]);
        let errors = [
            BytesReply::from_value(number()).err(),
            BytesReply::from_value(list()).err(),
            BytesReply::from_value(Value::Null).err(),
            IntegerReply::from_value(text()).err(),
            IntegerReply::from_value(Value::Boolean(true)).err(),
            WrittenReply::from_value(text()).err(),
            WrittenReply::from_value(number()).err(),
        ];
        for error in errors {
            let error = error.expect("another type");
            assert_eq!(*error.kind(), ErrorKind::Parse);
            assert!(!error.details().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_reply_of_its_type_is_returned() {
        assert_eq!(BytesReply::from_value(Value::from("text")).expect("text").0, "text");
        assert_eq!(
            BytesReply::from_value(Value::Bytes(Bytes::from_static(b"\xff"))).expect("bytes").0,
            b"\xff"[..]
        );
        assert_eq!(IntegerReply::from_value(Value::Integer(2)).expect("a number").0, 2);
        assert!(WrittenReply::from_value(Value::from("OK")).expect("written").0);
        assert!(!WrittenReply::from_value(Value::Null).expect("not written").0);
    }
}
