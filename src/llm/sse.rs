//! Server-sent events, parsed as their bytes arrive.
//!
//! The parser follows the WHATWG rules for interpreting an event stream: lines end with CR, LF or CRLF, several
//! `data` lines make one event, comments are skipped, one leading byte order mark is dropped, and an event truncated by
//! the end of the stream is discarded. A chunk may end anywhere, in the middle of a character too. `retry` is ignored:
//! a model's response cannot be resumed.

use crate::error::{Error, ErrorKind, Result};

const COMPONENT: &str = "llm.sse";
const BOM: &[u8] = "\u{feff}".as_bytes();

/// An incremental parser.
///
/// It holds the current line and event and nothing else, at most `max_event_bytes` of them; its buffers are reused for
/// each event.
#[derive(Debug)]
pub(super) struct SseParser {
    max_event_bytes: usize,
    /// The line so far, when a chunk ended inside it.
    line: Vec<u8>,
    data: String,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    started: bool,
}

impl SseParser {
    /// A parser of one stream, for events of at most `max_event_bytes`.
    pub(super) fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes, line: Vec::new(), data: String::new(), after_cr: false, started: false }
    }

    /// Parses the next bytes of the stream and passes the events that they complete to `on_event`, in order.
    ///
    /// # Errors
    /// `TooLarge` for an event beyond the size limit. The stream cannot be parsed further after that.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut on_event: impl FnMut(&str)) -> Result<()> {
        while !chunk.is_empty() {
            if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
                chunk = &chunk[1..];
                continue;
            }
            let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
                self.check_size(chunk.len())?;
                self.line.extend_from_slice(chunk);
                return Ok(());
            };
            self.check_size(end)?;
            self.after_cr = chunk[end] == b'\r';
            if self.line.is_empty() {
                self.process_line(&chunk[..end], &mut on_event);
            } else {
                self.line.extend_from_slice(&chunk[..end]);
                let mut line = std::mem::take(&mut self.line);
                self.process_line(&line, &mut on_event);
                line.clear();
                self.line = line;
            }
            chunk = &chunk[end + 1..];
        }
        Ok(())
    }

    fn check_size(&self, more: usize) -> Result<()> {
        if self.line.len() + self.data.len() + more <= self.max_event_bytes {
            return Ok(());
        }
        let message = "SSE event exceeds the size limit";
        Err(Error::new(ErrorKind::TooLarge, COMPONENT, message).with_context("limit", self.max_event_bytes))
    }

    fn process_line(&mut self, line: &[u8], on_event: &mut impl FnMut(&str)) {
        let first = !std::mem::replace(&mut self.started, true);
        let line = if first { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch(on_event);
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            None => (line, &b""[..]),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
        };
        // Comments, event types and ids carry nothing of a response.
        if name == b"data" {
            // Invalid UTF-8 is replaced, as the rules say.
            self.data.push_str(&String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value)));
            self.data.push('\n');
        }
    }

    fn dispatch(&mut self, on_event: &mut impl FnMut(&str)) {
        if let Some(data) = self.data.strip_suffix('\n') {
            on_event(data);
        }
        self.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data of the events in `chunks`.
    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut parser = SseParser::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |event| events.push(event.to_owned())).expect("within the limit");
        }
        events
    }

    fn data(stream: &str) -> Vec<String> {
        parse([stream.as_bytes()])
    }

    #[test]
    fn the_examples_of_the_standard_are_parsed() {
        assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
        let stream =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
        assert_eq!(data(stream), ["first event", "second event"]);
        assert_eq!(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
        assert_eq!(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("event: a{end}data: 1{end}data: 2{end}{end}data: 3{end}{end}");
            assert_eq!(data(&stream), ["1\n2", "3"], "{end:?}");
        }
    }

    #[test]
    fn one_leading_byte_order_mark_is_dropped_and_no_other() {
        assert_eq!(data("\u{feff}data: x\n\n"), ["x"]);
        assert_eq!(data("\u{feff}\u{feff}data: x\n\ndata: y\n\n"), ["y"]);
        assert_eq!(data("data: \u{feff}x\n\n"), ["\u{feff}x"]);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(parse([&b"id: a\0b\ndata: \xff!\n\n"[..]]), ["\u{fffd}!"]);
    }

    #[test]
    fn an_event_beyond_the_size_limit_is_an_error_however_it_arrives() {
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
        fn chunk_boundaries_do_not_matter(stream in pieces(), cuts in prop::collection::vec(0usize..400, 0..40)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
            prop_assert_eq!(parse(chunks), parse([&stream[..]]));
            prop_assert_eq!(parse(stream.chunks(1)), parse([&stream[..]]));
        }

        #[test]
        fn any_data_is_parsed_unchanged(lines in prop::collection::vec("[^\r\n]{0,20}", 1..6), end in 0usize..3) {
            let end = ["\n", "\r", "\r\n"][end];
            let mut stream: String = lines.iter().map(|line| format!("data: {line}{end}")).collect();
            stream.push_str(end);
            prop_assert_eq!(data(&stream), [lines.join("\n")]);
        }
    }
}
