//! Server-sent events, read as their bytes arrive.
//!
//! The parser follows the WHATWG rules for interpreting an event stream: lines end with CR, LF or CRLF, several
//! `data` lines make one event, comments are skipped, one leading byte order mark is dropped, and an event that the
//! stream's end cuts short is discarded. A chunk may end anywhere, in the middle of a character too. `retry` is
//! ignored: a model's answer cannot be resumed.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};

const COMPONENT: &str = "llm.sse";
const BOM: &[u8] = "\u{feff}".as_bytes();

/// One event, borrowed from the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent<'a> {
    /// Its type; `message` unless the stream says otherwise.
    pub event: &'a str,
    /// Its data lines, joined by line feeds.
    pub data: &'a str,
    /// The last id the stream gave, empty if none.
    pub id: &'a str,
}

/// An incremental parser.
///
/// It holds the line and the event it is in the middle of and nothing else, at most `max_event_bytes` of them; its
/// buffers are used again for each event.
///
/// ```
/// use arshai::llm::sse::SseParser;
///
/// let mut parser = SseParser::new(1024);
/// let mut seen = Vec::new();
/// for chunk in ["data: hel", "lo\r", "\n\r\ndata: [DONE]\n\n"] {
///     parser.feed(chunk.as_bytes(), |event| seen.push(event.data.to_owned()))?;
/// }
/// assert_eq!(seen, ["hello", "[DONE]"]);
/// # Ok::<_, arshai::Error>(())
/// ```
#[derive(Debug)]
pub struct SseParser {
    max_event_bytes: usize,
    /// The line so far, when a chunk ended within it.
    line: Vec<u8>,
    event: String,
    data: String,
    id: String,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    started: bool,
}

impl SseParser {
    /// A parser of one stream, for events of at most `max_event_bytes`.
    #[must_use]
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            event: String::new(),
            data: String::new(),
            id: String::new(),
            after_cr: false,
            started: false,
        }
    }

    /// Reads the next bytes of the stream and gives `each` the events that they complete, in order.
    ///
    /// # Errors
    /// `TooLarge` for an event beyond the bound. The stream cannot be read on after that.
    pub fn feed(&mut self, mut chunk: &[u8], mut each: impl FnMut(SseEvent<'_>)) -> Result<()> {
        while !chunk.is_empty() {
            if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.bound(chunk.len())?;
                self.line.extend_from_slice(chunk);
                return Ok(());
            };
            self.bound(end)?;
            self.after_cr = chunk[end] == b'\r';
            if self.line.is_empty() {
                self.line_ends(&chunk[..end], &mut each);
            } else {
                self.line.extend_from_slice(&chunk[..end]);
                let mut line = std::mem::take(&mut self.line);
                self.line_ends(&line, &mut each);
                line.clear();
                self.line = line;
            }
            chunk = &chunk[end + 1..];
        }
        Ok(())
    }

    /// Refuses to hold `more` bytes if that made the event too large.
    fn bound(&self, more: usize) -> Result<()> {
        if self.line.len() + self.data.len() + more <= self.max_event_bytes {
            return Ok(());
        }
        let message = "an event of the stream is larger than its bound";
        Err(Error::new(ErrorKind::TooLarge, COMPONENT, message).with_context("limit", self.max_event_bytes))
    }

    fn line_ends(&mut self, line: &[u8], each: &mut impl FnMut(SseEvent<'_>)) {
        let first = !std::mem::replace(&mut self.started, true);
        let line = if first { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch(each);
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            None => (line, &b""[..]),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
        };
        let value = text(value.strip_prefix(b" ").unwrap_or(value));
        match name {
            b"data" => {
                self.data.push_str(&value);
                self.data.push('\n');
            }
            b"event" => value.as_ref().clone_into(&mut self.event),
            b"id" if !value.contains('\0') => value.as_ref().clone_into(&mut self.id),
            // A comment has an empty name; other fields mean nothing.
            _ => {}
        }
    }

    fn dispatch(&mut self, each: &mut impl FnMut(SseEvent<'_>)) {
        if let Some(data) = self.data.strip_suffix('\n') {
            let event = if self.event.is_empty() { "message" } else { &self.event };
            each(SseEvent { event, data, id: &self.id });
        }
        self.data.clear();
        self.event.clear();
    }
}

/// What is not UTF-8 is replaced, as the rules say.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The events of `chunks`, as (type, data, id).
    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String, String)> {
        let mut parser = SseParser::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            let each = |event: SseEvent<'_>| {
                events.push((event.event.to_owned(), event.data.to_owned(), event.id.to_owned()));
            };
            parser.feed(chunk, each).expect("within the bound");
        }
        events
    }

    fn data(stream: &str) -> Vec<String> {
        parse([stream.as_bytes()]).into_iter().map(|(_, data, _)| data).collect()
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
        let stream =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
        let read = parse([stream.as_bytes()]);
        let expected = [("message", "first event", "1"), ("message", "second event", "")];
        assert_eq!(read, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
        assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("event: a{end}data: 1{end}data: 2{end}{end}data: 3{end}{end}");
            let read: Vec<_> = parse([stream.as_bytes()]).into_iter().map(|(e, d, _)| (e, d)).collect();
            assert_eq!(read, [("a".into(), "1\n2".into()), ("message".into(), "3".into())], "{end:?}");
        }
    }

    #[test]
    fn one_leading_byte_order_mark_is_dropped_and_no_other() {
        assert_eq!(data("\u{feff}data: x\n\n"), ["x"]);
        assert_eq!(data("\u{feff}\u{feff}data: x\n\ndata: y\n\n"), ["y"]);
        assert_eq!(data("data: \u{feff}x\n\n"), ["\u{feff}x"]);
    }

    #[test]
    fn what_is_not_utf8_is_replaced_and_an_id_with_a_zero_is_ignored() {
        let read = parse([&b"id: a\0b\ndata: \xff!\n\n"[..]]);
        assert_eq!(read, [("message".into(), "\u{fffd}!".into(), String::new())]);
    }

    #[test]
    fn an_event_beyond_the_bound_is_refused_however_it_comes() {
        let unended = vec![b'x'; 40];
        let lines = b"data: 0123456789\n".repeat(4);
        for stream in [&unended, &lines] {
            for size in [1, 7, stream.len()] {
                let mut parser = SseParser::new(32);
                let read = stream.chunks(size).try_for_each(|chunk| parser.feed(chunk, |_| ()));
                assert_eq!(read.expect_err("too large").kind(), ErrorKind::TooLarge);
            }
        }
        let mut parser = SseParser::new(32);
        for _ in 0..1000 {
            parser.feed(b"data: 0123456789\n\n: comment\n", |_| ()).expect("each is small");
        }
    }

    #[test]
    fn the_buffers_do_not_grow_with_the_stream() {
        let mut parser = SseParser::new(1 << 20);
        let mut seen = 0;
        for _ in 0..10_000 {
            for chunk in [&b"data: {\"tok"[..], b"en\": 1}\n", b"\n"] {
                parser.feed(chunk, |_| seen += 1).expect("small");
            }
        }
        assert_eq!(seen, 10_000);
        assert!(parser.line.capacity() + parser.data.capacity() < 256);
    }

    /// Lines, endings, marks and pieces of characters, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "data: ", "data", "event: e", "id: 7", ": c", "ä🦀", "\n", "\r", "\r\n", "\n\n", "\r\r",
            "\u{feff}", "x:",
        ]);
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn where_chunks_end_changes_nothing(stream in pieces(), cuts in prop::collection::vec(0usize..400, 0..40)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
            prop_assert_eq!(parse(chunks), parse([&stream[..]]));
            prop_assert_eq!(parse(stream.chunks(1)), parse([&stream[..]]));
        }

        #[test]
        fn any_data_comes_through_whole(lines in prop::collection::vec("[^\r\n]{0,20}", 1..6), end in 0usize..3) {
            let end = ["\n", "\r", "\r\n"][end];
            let mut stream: String = lines.iter().map(|line| format!("data: {line}{end}")).collect();
            stream.push_str(end);
            prop_assert_eq!(data(&stream), [lines.join("\n")]);
        }
    }
}
