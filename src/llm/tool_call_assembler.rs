//! Tool calls, assembled from the deltas of a stream.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::wire::{EventQueue, merge_extra};
use super::{ArgumentError, ChatEvent, MAX_ARGUMENT_BYTES, MAX_TOOL_CALLS, ToolCall};
use crate::error::{Error, ErrorKind, Result};

/// A piece of a tool call.
#[derive(Debug, Default)]
pub(super) struct ToolCallDelta {
    /// The call it belongs to; some providers leave it out or use zero for each call.
    pub(super) index: Option<u64>,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) extra: Map<String, Value>,
}

/// The tool calls of one response.
#[derive(Debug)]
pub(super) struct ToolCallAssembler {
    component: &'static str,
    /// In the order in which they began.
    calls: Vec<PartialToolCall>,
    argument_bytes: usize,
}

#[derive(Debug)]
struct PartialToolCall {
    index: Option<u64>,
    call: ToolCall,
    scanner: JsonObjectScanner,
    /// The arguments are complete.
    complete: bool,
    /// The start of the call was emitted, which needs its name.
    started: bool,
    /// The end of the call was emitted.
    emitted: bool,
}

impl ToolCallAssembler {
    pub(super) fn new(component: &'static str) -> Self {
        Self { component, calls: Vec::new(), argument_bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds a delta and emits the calls that it starts and completes.
    pub(super) fn add(&mut self, delta: ToolCallDelta, events: &mut EventQueue) -> Result<()> {
        let position = match self.index_of(&delta) {
            Some(position) => position,
            None => self.start_call(&delta)?,
        };
        self.argument_bytes += delta.arguments.len();
        if self.argument_bytes > MAX_ARGUMENT_BYTES {
            let message = "tool call arguments exceed the size limit";
            return Err(Error::new(ErrorKind::TooLarge, self.component, message)
                .with_context("limit", MAX_ARGUMENT_BYTES));
        }
        let partial = &mut self.calls[position];
        if partial.complete && !delta.arguments.trim().is_empty() {
            return Err(self.protocol_error("unexpected data after the end of tool call arguments"));
        }
        if partial.call.name.is_empty() {
            partial.call.name = delta.name;
        }
        partial.call.arguments.push_str(&delta.arguments);
        merge_extra(&mut partial.call.extra, delta.extra);
        partial.complete |= partial.scanner.feed(&delta.arguments);
        partial.emit(position, events);
        Ok(())
    }

    /// The call that a delta continues. Some providers use the same index for each call: a delta with a name begins a
    /// new call if its id differs, or, without ids, if the call of its index is complete.
    fn index_of(&self, delta: &ToolCallDelta) -> Option<usize> {
        let position = match delta.index {
            Some(index) => self.calls.iter().rposition(|partial| partial.index == Some(index))?,
            None => self.calls.len().checked_sub(1)?,
        };
        let earlier = &self.calls[position];
        let continues = match (delta.name.as_str(), delta.id.as_str()) {
            ("", _) => true,
            (_, "") => earlier.call.name.is_empty() || delta.index.is_some() && !earlier.complete,
            (_, id) => earlier.call.call_id == id,
        };
        continues.then_some(position)
    }

    fn start_call(&mut self, delta: &ToolCallDelta) -> Result<usize> {
        let position = self.calls.len();
        if position == MAX_TOOL_CALLS {
            let message = format!("response has more than {MAX_TOOL_CALLS} tool calls");
            return Err(Error::new(ErrorKind::TooLarge, self.component, message));
        }
        self.calls.push(PartialToolCall {
            index: delta.index,
            call: ToolCall::new(id_or_generate(&delta.id), "", ""),
            scanner: JsonObjectScanner::default(),
            complete: false,
            started: false,
            emitted: false,
        });
        Ok(position)
    }

    /// Emits what is left at the end of the response: a call without arguments as one of an empty object, a truncated
    /// one as failed.
    pub(super) fn finish(&mut self, events: &mut EventQueue) -> Result<()> {
        if self.calls.iter().any(|partial| partial.call.name.is_empty()) {
            return Err(self.protocol_error("tool call without a function name"));
        }
        for (position, partial) in self.calls.iter_mut().enumerate() {
            partial.complete = true;
            partial.emit(position, events);
        }
        Ok(())
    }

    fn protocol_error(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Protocol, self.component, message)
    }
}

impl PartialToolCall {
    fn emit(&mut self, index: usize, events: &mut EventQueue) {
        if !self.started && !self.call.name.is_empty() {
            self.started = true;
            events.push_back(started_event(index, &self.call));
        }
        if self.started && self.complete && !self.emitted {
            self.emitted = true;
            events.push_back(completed_event(index, self.call.clone(), &self.scanner));
        }
    }
}

/// The events of a complete call.
pub(super) fn complete_call_events(index: usize, call: ToolCall) -> [ChatEvent; 2] {
    let mut scanner = JsonObjectScanner::default();
    scanner.feed(&call.arguments);
    [started_event(index, &call), completed_event(index, call, &scanner)]
}

fn started_event(index: usize, call: &ToolCall) -> ChatEvent {
    ChatEvent::ToolCallStarted { index, call_id: call.call_id.clone(), name: call.name.clone() }
}

fn completed_event(index: usize, call: ToolCall, scanner: &JsonObjectScanner) -> ChatEvent {
    let error = match serde_json::from_str::<IgnoredAny>(&call.arguments) {
        _ if call.arguments.trim().is_empty() => return ChatEvent::ToolCall { index, call },
        Ok(IgnoredAny) if !scanner.not_an_object => return ChatEvent::ToolCall { index, call },
        Err(error) if error.is_eof() && !scanner.not_an_object => ArgumentError::Truncated,
        _ => ArgumentError::NotAnObject,
    };
    ChatEvent::ToolCallFailed { index, call, error }
}

/// A call's id, or a new one where the provider sends none: ids must be unique, in later turns too.
fn id_or_generate(id: &str) -> String {
    match id {
        "" => format!("call_{:016x}", fastrand::u64(..)),
        id => id.to_owned(),
    }
}

/// Finds the end of a JSON object, byte by byte, without reading anything twice.
#[derive(Debug, Default)]
struct JsonObjectScanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// A character other than white space was received.
    started: bool,
    /// The first character does not begin an object.
    not_an_object: bool,
}

impl JsonObjectScanner {
    /// Whether the object ends within `text`. Anything after its end in the same delta is left to the JSON parser.
    fn feed(&mut self, text: &str) -> bool {
        let mut ended = false;
        for byte in text.bytes() {
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            if !self.started && !byte.is_ascii_whitespace() {
                self.started = true;
                self.not_an_object = byte != b'{';
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    ended |= self.depth == 0 && !self.not_an_object;
                }
                _ => {}
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn assemble(deltas: impl IntoIterator<Item = ToolCallDelta>) -> Result<Vec<ChatEvent>> {
        let (mut assembler, mut events) = (ToolCallAssembler::new("test"), EventQueue::default());
        deltas.into_iter().try_for_each(|delta| assembler.add(delta, &mut events))?;
        assembler.finish(&mut events)?;
        Ok(events.into_iter().collect())
    }

    fn delta(index: impl Into<Option<u64>>, id: &str, name: &str, arguments: &str) -> ToolCallDelta {
        let (id, name, arguments) = (id.into(), name.into(), arguments.into());
        ToolCallDelta { index: index.into(), id, name, arguments, extra: Map::new() }
    }

    fn calls(events: &[ChatEvent]) -> Vec<ToolCall> {
        let call = |event: &ChatEvent| match event {
            ChatEvent::ToolCall { call, .. } => Some(call.clone()),
            _ => None,
        };
        events.iter().filter_map(call).collect()
    }

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall::new(id, name, arguments)
    }

    #[test]
    fn calls_are_assembled_by_index_though_their_deltas_alternate() {
        let events = assemble([
            delta(0, "a", "f", ""),
            delta(1, "b", "g", "{\"x\""),
            delta(0, "", "", "{\"y\": [1"),
            delta(1, "", "", ": 2}"),
            delta(0, "", "", "]}"),
        ]);
        let events = events.expect("they fit together");
        assert_eq!(calls(&events), [call("b", "g", "{\"x\": 2}"), call("a", "f", "{\"y\": [1]}")]);
        assert!(matches!(&events[2], ChatEvent::ToolCall { index: 1, .. }), "b ends first: {events:?}");
    }

    #[test]
    fn calls_that_share_an_index_or_have_none_are_told_apart_by_id_and_name() {
        let events =
            assemble([delta(0, "a", "f", "{}"), delta(0, "b", "f", "{\"x\":1}")]).expect("two calls");
        assert_eq!(calls(&events), [call("a", "f", "{}"), call("b", "f", "{\"x\":1}")]);
        let none = |name, arguments| delta(None, "", name, arguments);
        let events = assemble([none("f", "{"), none("", "}"), none("f", "{}")]).expect("two calls");
        let calls = calls(&events);
        assert_eq!(calls.len(), 2);
        assert!(calls[0].call_id != calls[1].call_id && calls[0].call_id.starts_with("call_"), "{calls:?}");
    }

    #[test]
    fn an_id_that_changes_within_a_call_is_ignored() {
        let events = assemble([delta(0, "a", "f", "{\"x\":"), delta(0, "b", "", "1}")]).expect("one call");
        assert_eq!(calls(&events), [call("a", "f", "{\"x\":1}")]);
    }

    #[test]
    fn missing_arguments_mean_an_empty_object() {
        assert_eq!(calls(&assemble([delta(0, "a", "f", "")]).expect("a call")), [call("a", "f", "")]);
    }

    #[test]
    fn unusable_arguments_are_reported_with_the_call() {
        for (arguments, expected) in [
            ("{\"x\": [1", ArgumentError::Truncated),
            ("{\"x\": \"}", ArgumentError::Truncated),
            ("{x: 1}", ArgumentError::NotAnObject),
            ("{]", ArgumentError::NotAnObject),
            ("[1]", ArgumentError::NotAnObject),
            ("nonsense", ArgumentError::NotAnObject),
            ("{}{}", ArgumentError::NotAnObject),
        ] {
            let events = assemble([delta(0, "a", "f", arguments)]).expect("an outcome");
            let [_, ChatEvent::ToolCallFailed { error, .. }] = &events[..] else { panic!("{events:?}") };
            assert_eq!(*error, expected, "{arguments}");
        }
    }

    #[test]
    fn a_name_may_arrive_after_the_arguments() {
        let events = assemble([delta(0, "a", "", "{}"), delta(0, "", "f", "")]).expect("one call");
        assert_eq!(calls(&events), [call("a", "f", "{}")]);
        let events = assemble([delta(None, "a", "", ""), delta(None, "", "f", "{}")]).expect("one call");
        assert_eq!(calls(&events), [call("a", "f", "{}")]);
    }

    #[test]
    fn protocol_violations_and_exceeded_limits_are_errors() {
        let kind = |deltas| assemble(deltas).expect_err("an error").kind();
        assert_eq!(kind(vec![delta(0, "a", "f", "{}"), delta(0, "", "", "{}")]), ErrorKind::Protocol);
        assert_eq!(kind(vec![delta(0, "", "", "{}")]), ErrorKind::Protocol);
        let many = |count| (0..count).map(|n| delta(n, "", "f", "{}")).collect::<Vec<_>>();
        assert_eq!(kind(many(1000)), ErrorKind::TooLarge);
        assert!(assemble(many(MAX_TOOL_CALLS as u64)).is_ok());
        let long = "x".repeat(MAX_ARGUMENT_BYTES / 2 + 1);
        assert_eq!(kind(vec![delta(0, "a", "f", &long), delta(1, "b", "f", &long)]), ErrorKind::TooLarge);
    }

    proptest! {
        #[test]
        fn an_object_ends_where_it_ends_and_not_before(
            text in "[a-z{}\\[\\]\"\\\\ äß]{0,30}",
            cuts in prop::collection::vec(0usize..200, 0..10),
        ) {
            let arguments = json!({"a": {"b": [text.clone(), {}]}, "c": text}).to_string();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| arguments.is_char_boundary(*cut)).collect();
            cuts.extend([0, arguments.len()]);
            cuts.retain(|cut| *cut <= arguments.len());
            cuts.sort_unstable();
            let mut object = JsonObjectScanner::default();
            let mut ends = cuts.windows(2).map(|pair| (pair[1], object.feed(&arguments[pair[0]..pair[1]])));
            prop_assert!(ends.all(|(at, ended)| !ended || at == arguments.len()));
            prop_assert_eq!(object.depth, 0);
        }
    }
}
