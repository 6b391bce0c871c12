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

use super::NAME_IN_ERRORS;
use crate::memory::WorkingMemory;
use crate::{Clock, Error, ErrorKind, Result};

/// Writes entries and reads them.
pub(in crate::backends::memory) struct Codec {
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

/// All that reading needs of an entry; the rest is skipped.
#[derive(Deserialize)]
struct HeldEntry<'a> {
    #[serde(borrow)]
    data: HeldData<'a>,
}

#[derive(Deserialize)]
struct HeldData<'a> {
    #[serde(borrow)]
    working_memory: Cow<'a, str>,
}

impl Codec {
    /// Timestamps follow `clock` in the machine's time zone.
    pub(in crate::backends::memory) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, zone: TimeZone::system() }
    }

    /// A new entry.
    pub(in crate::backends::memory) fn encode(
        &self,
        memory: &WorkingMemory,
        metadata: &Map<String, Value>,
    ) -> Result<Bytes> {
        let now = self.now();
        let data = NewData { working_memory: memory.as_str() };
        let entry = NewEntry { data, metadata, created_at: &now, last_update: &now };
        // The text, its escapes and some 100 bytes of the format's own.
        let mut json = Vec::with_capacity(memory.as_str().len() * 9 / 8 + 192);
        serde_json::to_writer(&mut json, &entry).map_err(|cause| {
            Error::new(ErrorKind::Internal, NAME_IN_ERRORS, "an entry cannot be written as JSON")
                .with_source(cause)
        })?;
        Ok(json.into())
    }

    /// The text of an entry.
    pub(in crate::backends::memory) fn text(&self, json: &[u8]) -> Result<WorkingMemory> {
        let entry: HeldEntry<'_> = serde_json::from_slice(json).map_err(not_ours)?;
        Ok(WorkingMemory::new(&*entry.data.working_memory))
    }

    /// The entry with another text and time of update; every other field stays as it is, byte for byte.
    pub(in crate::backends::memory) fn with_text(
        &self,
        json: &[u8],
        memory: &WorkingMemory,
    ) -> Result<Bytes> {
        let mut entry: Fields<'_> = serde_json::from_slice(json).map_err(not_ours)?;
        let data = entry.get("data").ok_or_else(|| missing("data"))?;
        let mut data: Fields<'_> = serde_json::from_str(data).map_err(not_ours)?;
        data.set("working_memory", json_of(memory.as_str())?);
        let data = data.write(json.len() + memory.as_str().len())?;
        entry.set("data", data);
        entry.set("last_update", json_of(&self.now())?);
        entry.write(json.len() + memory.as_str().len()).map(Bytes::from)
    }

    /// Local time without offset and with microseconds, as Python's `datetime.now().isoformat()`.
    fn now(&self) -> String {
        let now = Timestamp::try_from(self.clock.system_time()).unwrap_or(Timestamp::MIN);
        format!("{:.6}", self.zone.to_datetime(now))
    }
}

/// The fields of a JSON object in their order, their values unread.
struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, json)| &**json)
    }

    fn set(&mut self, name: &'static str, json: String) {
        self.0.retain(|(field, _)| field != name);
        self.0.push((Cow::Borrowed(name), Cow::Owned(json)));
    }

    fn write(&self, size: usize) -> Result<String> {
        let mut json = String::with_capacity(size + 64);
        for (field, value) in &self.0 {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&json_of(field)?);
            json.push(':');
            json.push_str(value);
        }
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        Ok(json)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    fields.push((name.0, Cow::Borrowed(value.get())));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A field's name, borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn json_of(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|cause| {
        Error::new(ErrorKind::Internal, NAME_IN_ERRORS, "a text cannot be written as JSON").with_source(cause)
    })
}

/// The cause is shown by its place and kind alone: its words may repeat what is held.
fn not_ours(cause: serde_json::Error) -> Error {
    let message = "the key holds something that is not an arshai memory entry; delete or store it anew";
    let error = Error::new(ErrorKind::Corrupt, NAME_IN_ERRORS, message);
    let what = match cause.classify() {
        serde_json::error::Category::Data => "the fields are not those of an entry",
        serde_json::error::Category::Eof => "the JSON ends too early",
        _ => "it is not JSON",
    };
    error.with_context("why", what).with_context("at_byte", cause.column())
}

fn missing(field: &'static str) -> Error {
    let message = "the key holds something that is not an arshai memory entry; delete or store it anew";
    Error::new(ErrorKind::Corrupt, NAME_IN_ERRORS, message).with_context("missing", field)
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
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
    fn an_entry_reads_back_whatever_its_text() {
        for text in ["", "plain", "\"quoted\" \\ \n\u{0}", "سلام 👋", "\u{2028}"] {
            let json = codec().encode(&text.into(), &Map::new()).expect("it encodes");
            assert_eq!(codec().text(&json).expect("it is ours").as_str(), text);
            let value: Value = serde_json::from_slice(&json).expect("it is JSON");
            assert_eq!(value["metadata"], json!({}));
            let created = value["created_at"].as_str().expect("it is a text");
            assert_eq!(created.len(), "2026-01-02T03:04:05.000006".len(), "{created}");
        }
    }

    #[test]
    fn another_text_keeps_every_field_that_is_not_ours() {
        let held = r#"{"data": {"working_memory": "old", "mood": 1e400},
            "metadata": {"n": 12345678901234567890123, "deep": [[{}]]}, "created_at": "then",
            "last_update": "then", "\u0061dded": NULL}"#
            .replace("NULL", "null");
        let json = codec().with_text(held.as_bytes(), &"new".into()).expect("it is ours");
        let json = std::str::from_utf8(&json).expect("it is UTF-8");
        assert_eq!(codec().text(json.as_bytes()).expect("it is ours").as_str(), "new");
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
    fn what_is_not_ours_is_told_without_repeating_it() {
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
            for error in [
                codec().text(case).expect_err("not ours"),
                codec().with_text(case, &"new".into()).err().unwrap_or_else(|| missing("x")),
            ] {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(!format!("{error} {error:?}").contains("secret"));
            }
        }
    }

    #[test]
    fn deep_metadata_is_no_hindrance() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let json = format!(r#"{{"metadata": {{"deep": {deep}}}, "data": {{"working_memory": "text"}}}}"#);
        assert_eq!(codec().text(json.as_bytes()).expect("it is skipped").as_str(), "text");
        let json = codec().with_text(json.as_bytes(), &"new".into()).expect("it is kept");
        assert_eq!(codec().text(&json).expect("it is ours").as_str(), "new");
    }
}
