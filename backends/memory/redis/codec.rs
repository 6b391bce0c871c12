//! The JSON of an entry, as Python arshai writes it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::COMPONENT;
use super::python_json::to_strict;
use crate::memory::WorkingMemory;
use crate::{Clock, Error, ErrorKind, Result};

/// Encodes and decodes entries.
#[derive(Debug)]
pub(super) struct Codec {
    clock: Arc<dyn Clock>,
    zone: TimeZone,
}

#[derive(Serialize)]
struct NewEntry<'a> {
    data: NewData<'a>,
    metadata: &'a Map<String, Value>,
    created_at: &'a str,
    last_update: &'a str,
}

#[derive(Serialize)]
struct NewData<'a> {
    working_memory: &'a str,
}

/// The part of an entry that reading needs; the rest is skipped. Only for strict JSON without duplicate keys, which is
/// nearly every entry.
#[derive(Deserialize)]
struct StoredEntry<'a> {
    #[serde(borrow)]
    data: StoredData<'a>,
}

#[derive(Deserialize)]
struct StoredData<'a> {
    #[serde(borrow)]
    working_memory: Cow<'a, str>,
}

impl Codec {
    /// Timestamps follow `clock` in the system's time zone.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, zone: TimeZone::system() }
    }

    /// Encodes a new entry.
    pub(super) fn encode(&self, memory: &WorkingMemory, metadata: &Map<String, Value>) -> Result<Bytes> {
        let now = self.now();
        let data = NewData { working_memory: memory.as_str() };
        let entry = NewEntry { data, metadata, created_at: &now, last_update: &now };
        // The text, its escapes and some 100 bytes of fixed fields.
        let mut json = Vec::with_capacity(memory.as_str().len() * 9 / 8 + 192);
        serde_json::to_writer(&mut json, &entry).map_err(|cause| {
            Error::new(ErrorKind::Internal, COMPONENT, "failed to serialize the entry").with_source(cause)
        })?;
        Ok(json.into())
    }

    /// Decodes the text of an entry.
    pub(super) fn decode_text(&self, json: &[u8]) -> Result<WorkingMemory> {
        if let Ok(entry) = serde_json::from_slice::<StoredEntry<'_>>(json) {
            return Ok(WorkingMemory::new(&*entry.data.working_memory));
        }
        let json = to_strict(utf8(json)?);
        let entry: RawFields<'_> = serde_json::from_str(&json).map_err(invalid_entry_error)?;
        let data: RawFields<'_> =
            serde_json::from_str(entry.required("data")?).map_err(invalid_entry_error)?;
        let text: String =
            serde_json::from_str(data.required("working_memory")?).map_err(invalid_entry_error)?;
        Ok(WorkingMemory::new(&*text))
    }

    /// Replaces the text and the time of update of an entry; every other field is kept byte for byte.
    pub(super) fn replace_text(&self, json: &[u8], memory: &WorkingMemory) -> Result<Bytes> {
        let json = utf8(json)?;
        let size = json.len() + memory.as_str().len();
        let mut entry = RawFields::parse(json)?;
        let mut data = RawFields::parse(entry.required("data")?)?;
        data.set("working_memory", to_json_string(memory.as_str())?);
        let data = data.write(size)?;
        entry.set("data", data);
        entry.set("last_update", to_json_string(&self.now())?);
        entry.write(size).map(Bytes::from)
    }

    /// Local time without offset and with microseconds, as Python's `datetime.now().isoformat()`.
    fn now(&self) -> String {
        let now = Timestamp::try_from(self.clock.system_time()).unwrap_or(Timestamp::MIN);
        format!("{:.6}", self.zone.to_datetime(now))
    }
}

/// The fields of a JSON object in order, with their values as raw JSON.
struct RawFields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> RawFields<'a> {
    /// The fields of an object in Python's JSON, with their values as they are there.
    fn parse(json: &'a str) -> Result<Self> {
        let strict = to_strict(json);
        let fields: RawFields<'_> = serde_json::from_str(&strict).map_err(invalid_entry_error)?;
        let position = |value: &str| value.as_ptr() as usize - strict.as_ptr() as usize;
        let original = |value: &str| json[position(value)..][..value.len()].into();
        Ok(Self(
            fields
                .0
                .iter()
                .map(|(name, value)| (name.clone().into_owned().into(), original(value)))
                .collect(),
        ))
    }

    /// The value of a field; of the last one, where a name is there more than once.
    fn required(&self, name: &'static str) -> Result<&str> {
        let field = self.0.iter().rev().find(|(field, _)| field == name);
        field.map(|(_, json)| &**json).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, COMPONENT, INVALID_ENTRY).with_context("missing", name)
        })
    }

    fn set(&mut self, name: &'static str, json: String) {
        self.0.retain(|(field, _)| field != name);
        self.0.push((Cow::Borrowed(name), Cow::Owned(json)));
    }

    fn write(&self, size: usize) -> Result<String> {
        let mut json = String::with_capacity(size + 64);
        for (field, value) in &self.0 {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&to_json_string(field)?);
            json.push(':');
            json.push_str(value);
        }
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        Ok(json)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    fields.push((name.0, Cow::Borrowed(value.get())));
                }
                Ok(RawFields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A field name, borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn to_json_string(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|cause| {
        Error::new(ErrorKind::Internal, COMPONENT, "failed to serialize the entry").with_source(cause)
    })
}

const INVALID_ENTRY: &str = "stored value is not an arshai memory entry; delete or overwrite the key";

/// Without the cause, whose message may repeat the stored value.
fn invalid_entry_error(cause: serde_json::Error) -> Error {
    let reason = match cause.classify() {
        serde_json::error::Category::Data => "unexpected fields",
        serde_json::error::Category::Eof => "truncated JSON",
        _ => "invalid JSON",
    };
    Error::new(ErrorKind::Corrupt, COMPONENT, INVALID_ENTRY)
        .with_context("reason", reason)
        .with_context("at_byte", cause.column())
}

fn utf8(json: &[u8]) -> Result<&str> {
    std::str::from_utf8(json).map_err(|cause| {
        Error::new(ErrorKind::Corrupt, COMPONENT, INVALID_ENTRY)
            .with_context("reason", "not UTF-8")
            .with_context("at_byte", cause.valid_up_to())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;
    use serde_json::json;

    fn codec() -> Codec {
        Codec { clock: Arc::new(ManualClock::new()), zone: TimeZone::UTC }
    }

    #[test]
    fn every_text_survives_encoding() {
        for text in ["", "plain", "\"quoted\" \\ \n\u{0}", "سلام 👋", "\u{2028}"] {
            let json = codec().encode(&text.into(), &Map::new()).expect("encodes");
            assert_eq!(codec().decode_text(&json).expect("an entry").as_str(), text);
            let value: Value = serde_json::from_slice(&json).expect("JSON");
            assert_eq!(value["metadata"], json!({}));
            let created = value["created_at"].as_str().expect("a string");
            assert_eq!(created.len(), "2026-01-02T03:04:05.000006".len(), "{created}");
        }
    }

    #[test]
    fn replacing_the_text_keeps_every_other_field() {
        let held = r#"{"data": {"working_memory": "old", "mood": 1e400},
            "metadata": {"n": 12345678901234567890123, "deep": [[{}]]}, "created_at": "then",
            "last_update": "then", "\u0061dded": NULL}"#
            .replace("NULL", "null");
        let json = codec().replace_text(held.as_bytes(), &"new".into()).expect("an entry");
        let json = std::str::from_utf8(&json).expect("UTF-8");
        assert_eq!(codec().decode_text(json.as_bytes()).expect("an entry").as_str(), "new");
        for kept in [
            r#""mood":1e400"#,
            r#""metadata":{"n": 12345678901234567890123, "deep": [[{}]]}"#,
            r#""created_at":"then""#,
            r#""added":null"#,
        ] {
            assert!(json.contains(kept), "{kept} in {json}");
        }
        assert!(!json.contains(r#""last_update":"then""#));
    }

    #[test]
    fn an_invalid_entry_is_reported_without_repeating_it() {
        let deep = "[".repeat(200_000);
        let deep_entry = format!(r#"{{"data": {{"working_memory": {deep}"#);
        let cases: [&[u8]; 8] = [
            b"secret",
            b"{\"data\": {\"working_memory\": \"sec",
            b"[\"secret\"]",
            b"{\"secret\": 1}",
            b"{\"data\": {\"working_memory\": 7}}",
            b"\xff\xfe",
            deep.as_bytes(),
            deep_entry.as_bytes(),
        ];
        for case in cases {
            let errors = [codec().decode_text(case).err(), codec().replace_text(case, &"new".into()).err()];
            for error in errors.into_iter().flatten() {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(!format!("{error} {error:?}").contains("secret"));
            }
        }
    }

    #[test]
    fn deeply_nested_metadata_is_skipped() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(r#"{{"metadata": {{"deep": {deep}}}, "data": {{"working_memory": "text"}}}}"#);
        assert_eq!(codec().decode_text(json.as_bytes()).expect("skipped").as_str(), "text");
        let json = codec().replace_text(json.as_bytes(), &"new".into()).expect("kept");
        assert_eq!(codec().decode_text(&json).expect("an entry").as_str(), "new");
    }

    #[test]
    fn what_python_writes_beyond_strict_json_is_read_and_kept() {
        let held = concat!(
            "\u{feff}",
            r#"{"data": {"working_memory": "first"}, "metadata": {"score": NaN, "top": [-Infinity]}, "#,
            r#""data": {"working_memory": "x", "working_memory": "half \ud83d", "mood": Infinity}, "odd": "\udc00"}"#
        );
        assert_eq!(codec().decode_text(held.as_bytes()).expect("an entry").as_str(), "half \u{fffd}");
        let json = codec().replace_text(held.as_bytes(), &"new".into()).expect("an entry");
        let json = std::str::from_utf8(&json).expect("UTF-8");
        assert_eq!(codec().decode_text(json.as_bytes()).expect("an entry").as_str(), "new");
        for kept in
            [r#""metadata":{"score": NaN, "top": [-Infinity]}"#, r#""mood":Infinity"#, r#""odd":"\udc00""#]
        {
            assert!(json.contains(kept), "{kept} in {json}");
        }
    }
}
