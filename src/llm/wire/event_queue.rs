//! Events that were received and not read yet.

use std::collections::VecDeque;
use std::collections::vec_deque::IntoIter;

use super::repair::{is_high_mark, join_in_fields, join_surrogates};
use crate::llm::ChatEvent;

/// Events in the order of the response. Joins the surrogate pairs that a server split over two of them.
#[derive(Debug, Default)]
pub(in crate::llm) struct EventQueue {
    events: VecDeque<ChatEvent>,
    /// Texts may hold marks of surrogates.
    pub(super) has_marks: bool,
    /// A high surrogate at the end of the last [`ChatEvent::Text`].
    text_half: Option<char>,
    /// A high surrogate at the end of the last [`ChatEvent::Reasoning`].
    reasoning_half: Option<char>,
}

impl EventQueue {
    pub(in crate::llm) fn push_back(&mut self, mut event: ChatEvent) {
        if self.has_marks {
            match &mut event {
                ChatEvent::Text(text) => join_next(&mut self.text_half, text),
                ChatEvent::Reasoning(text) => join_next(&mut self.reasoning_half, text),
                ChatEvent::ToolCallStarted { call_id, name, .. } => {
                    (*call_id, *name) = (join_surrogates(call_id), join_surrogates(name));
                }
                ChatEvent::ToolCall { call, .. } | ChatEvent::ToolCallFailed { call, .. } => {
                    for text in [&mut call.call_id, &mut call.name, &mut call.arguments] {
                        *text = join_surrogates(text);
                    }
                    join_in_fields(&mut call.extra);
                }
                ChatEvent::ExtraFields { message, response } => {
                    join_in_fields(message);
                    join_in_fields(response);
                }
                ChatEvent::Usage(_) | ChatEvent::Finished { .. } => {}
            }
        }
        if !matches!(&event, ChatEvent::Text(text) | ChatEvent::Reasoning(text) if text.is_empty()) {
            self.events.push_back(event);
        }
    }

    /// The response ends, or what follows is lost: surrogates that wait for their other half become U+FFFD.
    pub(super) fn finish_texts(&mut self) {
        let replacement = |_| char::REPLACEMENT_CHARACTER.to_string();
        self.events.extend(self.reasoning_half.take().map(replacement).map(ChatEvent::Reasoning));
        self.events.extend(self.text_half.take().map(replacement).map(ChatEvent::Text));
    }

    pub(in crate::llm) fn pop_front(&mut self) -> Option<ChatEvent> {
        self.events.pop_front()
    }
}

impl IntoIterator for EventQueue {
    type Item = ChatEvent;
    type IntoIter = IntoIter<ChatEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.into_iter()
    }
}

/// Joins the next part of a text to the half before it. A half at its end waits in turn.
fn join_next(half: &mut Option<char>, text: &mut String) {
    let mut joined: String = half.take().into_iter().chain(text.chars()).collect();
    if joined.ends_with(is_high_mark) {
        *half = joined.pop();
    }
    *text = join_surrogates(&joined);
}
