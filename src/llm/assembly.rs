//! Tool calls, put together from the pieces of a stream.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use serde::de::IgnoredAny;

use super::{ArgumentProblem, ChatEvent, MAX_ARGUMENT_BYTES, MAX_TOOL_CALLS, ToolCall};
use crate::error::{Error, ErrorKind, Result};

/// A piece of a tool call.
#[derive(Debug, Default)]
pub(super) struct Piece<'a> {
    /// Which call it belongs to; some providers leave it out or give each call zero.
    pub(super) index: Option<u64>,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: &'a str,
}

/// The tool calls of one answer.
#[derive(Debug)]
pub(super) struct Assembly {
    component: &'static str,
    /// In the order in which they began.
    calls: Vec<Partial>,
    argument_bytes: usize,
}

#[derive(Debug)]
struct Partial {
    index: Option<u64>,
    call: ToolCall,
    object: Object,
    /// Its end was told: no piece may follow.
    told: bool,
}

impl Assembly {
    pub(super) fn new(component: &'static str) -> Self {
        Self { component, calls: Vec::new(), argument_bytes: 0 }
    }

    /// Adds a piece; what it begins and ends is told to `events`.
    pub(super) fn add(&mut self, piece: &Piece<'_>, events: &mut VecDeque<ChatEvent>) -> Result<()> {
        let place = match self.place_of(piece) {
            Some(place) => place,
            None => self.begin(piece, events)?,
        };
        self.argument_bytes += piece.arguments.len();
        if self.argument_bytes > MAX_ARGUMENT_BYTES {
            let message = "the arguments of the model's tool calls are larger than their bound";
            return Err(Error::new(ErrorKind::TooLarge, self.component, message)
                .with_context("limit", MAX_ARGUMENT_BYTES));
        }
        let partial = &mut self.calls[place];
        if partial.told {
            if piece.arguments.trim().is_empty() {
                return Ok(());
            }
            return Err(self.protocol("the arguments of a tool call go on after their end"));
        }
        partial.call.arguments.push_str(piece.arguments);
        if partial.object.feed(piece.arguments) {
            partial.told = true;
            events.push_back(complete(place, &partial.call));
        }
        Ok(())
    }

    /// The call that a piece goes on with. Some providers give every call the same index: one with a name begins a new
    /// call if its id is another, or, without ids, if the call of its index is complete.
    fn place_of(&self, piece: &Piece<'_>) -> Option<usize> {
        let place = match piece.index {
            Some(index) => self.calls.iter().rposition(|partial| partial.index == Some(index))?,
            None if piece.name.is_empty() => self.calls.len().checked_sub(1)?,
            None => return None,
        };
        let earlier = &self.calls[place];
        let is_other = !piece.name.is_empty()
            && match piece.id {
                "" => earlier.told,
                id => earlier.call.call_id != id,
            };
        (!is_other).then_some(place)
    }

    fn begin(&mut self, piece: &Piece<'_>, events: &mut VecDeque<ChatEvent>) -> Result<usize> {
        if piece.name.is_empty() {
            return Err(self.protocol("a tool call begins without a name"));
        }
        let place = self.calls.len();
        if place == MAX_TOOL_CALLS {
            return Err(too_many(self.component));
        }
        let call = ToolCall::new(id_or_new(piece.id), piece.name, "");
        events.push_back(ChatEvent::ToolCallStarted {
            index: place,
            call_id: call.call_id.clone(),
            name: call.name.clone(),
        });
        self.calls.push(Partial { index: piece.index, call, object: Object::default(), told: false });
        Ok(place)
    }

    /// The answer is at its end: what is still open is told, without arguments as a call of none, and otherwise as a
    /// call that cannot be made.
    pub(super) fn finish(&mut self, events: &mut VecDeque<ChatEvent>) {
        for (place, partial) in self.calls.iter_mut().enumerate().filter(|(_, partial)| !partial.told) {
            partial.told = true;
            let event = match partial.call.arguments.trim().is_empty() {
                true => ChatEvent::ToolCall { index: place, call: partial.call.clone() },
                false if partial.object.is_open() => {
                    failed(place, &partial.call, ArgumentProblem::Unfinished)
                }
                false => failed(place, &partial.call, ArgumentProblem::NotAnObject),
            };
            events.push_back(event);
        }
    }

    fn protocol(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Protocol, self.component, message)
    }
}

/// The events of a call that came whole.
pub(super) fn whole(index: usize, call: ToolCall) -> [ChatEvent; 2] {
    let started =
        ChatEvent::ToolCallStarted { index, call_id: call.call_id.clone(), name: call.name.clone() };
    let ended = match call.to_function_call() {
        Some(_) => ChatEvent::ToolCall { index, call },
        None => failed(index, &call, ArgumentProblem::NotAnObject),
    };
    [started, ended]
}

pub(super) fn too_many(component: &'static str) -> Error {
    let message = format!("the model asks for more than {MAX_TOOL_CALLS} tools in one answer");
    Error::new(ErrorKind::TooLarge, component, message)
}

/// A call's id, or a new one where the provider gives none: ids tell calls apart, in later turns too.
pub(super) fn id_or_new(id: &str) -> String {
    match id {
        "" => format!("call_{:016x}", RandomState::new().hash_one(0)),
        id => id.to_owned(),
    }
}

/// A call whose arguments have come to the end of an object.
fn complete(place: usize, call: &ToolCall) -> ChatEvent {
    match serde_json::from_str::<IgnoredAny>(&call.arguments) {
        Ok(IgnoredAny) => ChatEvent::ToolCall { index: place, call: call.clone() },
        Err(_) => failed(place, call, ArgumentProblem::NotAnObject),
    }
}

fn failed(index: usize, call: &ToolCall, problem: ArgumentProblem) -> ChatEvent {
    ChatEvent::ToolCallFailed { index, call: call.clone(), problem }
}

/// Looks for the end of a JSON object, byte by byte, without reading anything twice.
#[derive(Debug, Default)]
struct Object {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Something other than white space came.
    begun: bool,
    /// What came is no object.
    other: bool,
}

impl Object {
    /// Whether the object ends within `text`. What follows its end in the same piece is left to the JSON parser.
    fn feed(&mut self, text: &str) -> bool {
        let mut ended = false;
        for byte in text.bytes() {
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            if !self.begun && !byte.is_ascii_whitespace() {
                self.begun = true;
                self.other = byte != b'{';
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    ended |= self.depth == 0 && !self.other;
                }
                _ => {}
            }
        }
        ended
    }

    fn is_open(&self) -> bool {
        !self.other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn assemble(pieces: &[Piece<'_>]) -> Result<Vec<ChatEvent>> {
        let (mut assembly, mut events) = (Assembly::new("test"), VecDeque::new());
        pieces.iter().try_for_each(|piece| assembly.add(piece, &mut events))?;
        assembly.finish(&mut events);
        Ok(events.into())
    }

    fn piece<'a>(index: u64, id: &'a str, name: &'a str, arguments: &'a str) -> Piece<'a> {
        Piece { index: Some(index), id, name, arguments }
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
    fn calls_are_assembled_by_index_though_their_pieces_alternate() {
        let events = assemble(&[
            piece(0, "a", "f", ""),
            piece(1, "b", "g", "{\"x\""),
            piece(0, "", "", "{\"y\": [1"),
            piece(1, "", "", ": 2}"),
            piece(0, "", "", "]}"),
        ]);
        let events = events.expect("they fit together");
        assert_eq!(calls(&events), [call("b", "g", "{\"x\": 2}"), call("a", "f", "{\"y\": [1]}")]);
        assert!(matches!(&events[2], ChatEvent::ToolCall { index: 1, .. }), "b ends first: {events:?}");
    }

    #[test]
    fn calls_that_share_an_index_or_have_none_are_told_apart_by_id_and_name() {
        let events =
            assemble(&[piece(0, "a", "f", "{}"), piece(0, "b", "f", "{\"x\":1}")]).expect("two calls");
        assert_eq!(calls(&events), [call("a", "f", "{}"), call("b", "f", "{\"x\":1}")]);
        let none = |name, arguments| Piece { index: None, id: "", name, arguments };
        let events = assemble(&[none("f", "{"), none("", "}"), none("f", "{}")]).expect("two calls");
        let calls = calls(&events);
        assert_eq!(calls.len(), 2);
        assert!(calls[0].call_id != calls[1].call_id && calls[0].call_id.starts_with("call_"), "{calls:?}");
    }

    #[test]
    fn an_id_that_changes_within_a_call_is_ignored() {
        let events = assemble(&[piece(0, "a", "f", "{\"x\":"), piece(0, "b", "", "1}")]).expect("one call");
        assert_eq!(calls(&events), [call("a", "f", "{\"x\":1}")]);
    }

    #[test]
    fn no_arguments_are_a_call_without_any() {
        assert_eq!(calls(&assemble(&[piece(0, "a", "f", "")]).expect("a call")), [call("a", "f", "")]);
    }

    #[test]
    fn arguments_that_cannot_be_used_are_told_as_such() {
        for (arguments, expected) in [
            ("{\"x\": [1", ArgumentProblem::Unfinished),
            ("{\"x\": \"}", ArgumentProblem::Unfinished),
            ("{x: 1}", ArgumentProblem::NotAnObject),
            ("{]", ArgumentProblem::NotAnObject),
            ("[1]", ArgumentProblem::NotAnObject),
            ("nonsense", ArgumentProblem::NotAnObject),
            ("{}{}", ArgumentProblem::NotAnObject),
        ] {
            let events = assemble(&[piece(0, "a", "f", arguments)]).expect("an outcome");
            let [_, ChatEvent::ToolCallFailed { problem, .. }] = &events[..] else { panic!("{events:?}") };
            assert_eq!(*problem, expected, "{arguments}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_or_a_bound_is_an_error() {
        let kind = |pieces: &[Piece<'_>]| assemble(pieces).expect_err("refused").kind();
        assert_eq!(kind(&[piece(0, "a", "f", "{}"), piece(0, "", "", "{}")]), ErrorKind::Protocol);
        assert_eq!(kind(&[piece(0, "", "", "{}")]), ErrorKind::Protocol);
        let many: Vec<_> = (0..1000).map(|n| piece(n, "", "f", "{}")).collect();
        assert_eq!(kind(&many), ErrorKind::TooLarge);
        assert!(assemble(&many[..MAX_TOOL_CALLS]).is_ok());
        let long = "x".repeat(MAX_ARGUMENT_BYTES / 2 + 1);
        assert_eq!(kind(&[piece(0, "a", "f", &long), piece(1, "b", "f", &long)]), ErrorKind::TooLarge);
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
            let mut object = Object::default();
            let mut ends = cuts.windows(2).map(|pair| (pair[1], object.feed(&arguments[pair[0]..pair[1]])));
            prop_assert!(ends.all(|(at, ended)| !ended || at == arguments.len()));
            prop_assert_eq!(object.depth, 0);
        }
    }
}
