//! The text that keeps a conversation: notes for people and models, then the turns exactly as they were.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::llm::{Attachment, Message};
use crate::memory::WorkingMemory;
use crate::support::cut_middle;

const HEADING: &str = "### MESSAGES:";

/// What the model reads at the end of a turn that has no final answer.
const UNFINISHED: &str =
    "[this turn has no complete answer: it failed, was interrupted, or is still running]";

/// A conversation as it is kept in memory.
///
/// The text begins with notes, which people, other services and a
/// [`WorkingMemoryAgent`](crate::agent::WorkingMemoryAgent) write. Under a heading of its own follows a line of JSON
/// for the summary of turns that were removed, if there is one, and for each turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcript {
    pub(super) notes: String,
    pub(super) summary: Option<String>,
    pub(super) turns: Vec<Turn>,
}

/// The messages of one turn, from the user's to the model's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Turn<M = Message> {
    #[serde(rename = "turn")]
    pub(super) id: String,
    /// Empty where they were taken, and only the line holds them.
    pub(super) messages: Vec<M>,
    /// It has no final answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unfinished: bool,
    /// The line of the text, until it is changed.
    #[serde(skip)]
    line: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Summary {
    summary: String,
}

impl Transcript {
    /// Reads a text that anyone may have written: what is not ours is notes.
    pub(super) fn parse(memory: &WorkingMemory) -> Self {
        let text = memory.as_str();
        let at_line_start = |at: &usize| *at == 0 || text[..*at].ends_with('\n');
        let heading = text.rmatch_indices(HEADING).map(|(at, _)| at).find(at_line_start);
        let Some(heading) = heading else { return Self { notes: text.to_owned(), ..Self::default() } };
        let mut transcript = Self { notes: text[..heading].trim_end().to_owned(), ..Self::default() };
        for line in text[heading + HEADING.len()..].lines().filter(|line| !line.trim().is_empty()) {
            if let Ok(turn) = serde_json::from_str::<Turn>(line) {
                transcript.turns.push(Turn { line: Some(line.to_owned()), ..turn });
            } else if let Ok(Summary { summary }) = serde_json::from_str(line) {
                transcript.summary = Some(summary);
            } else {
                transcript.notes.push('\n');
                transcript.notes.push_str(line);
            }
        }
        transcript
    }

    /// The text that [`parse`](Self::parse) reads.
    pub(super) fn to_memory(&self) -> WorkingMemory {
        let summary = self.summary.clone().map(|summary| Cow::Owned(to_json(&Summary { summary })));
        let lines: Vec<_> = summary.into_iter().chain(self.turns.iter().map(Turn::json)).collect();
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        let mut text = String::with_capacity(self.notes.len() + 2 + HEADING.len() + bytes);
        text.push_str(&self.notes);
        for (index, line) in lines.into_iter().enumerate() {
            if index == 0 {
                text.push_str(if text.is_empty() { "" } else { "\n\n" });
                text.push_str(HEADING);
            }
            text.push('\n');
            text.push_str(&line);
        }
        WorkingMemory::new(text)
    }

    /// The conversation with its messages, of which only the lines stay here.
    pub(super) fn take_messages(&mut self) -> Self {
        let take = |turn: &mut Turn| {
            let messages = std::mem::take(&mut turn.messages);
            Turn { id: String::new(), messages, unfinished: turn.unfinished, line: None }
        };
        let turns = self.turns.iter_mut().map(take).collect();
        Self { notes: self.notes.clone(), summary: self.summary.clone(), turns }
    }

    /// The turns as messages to the model.
    pub(super) fn into_messages(self) -> impl Iterator<Item = Message> {
        self.turns.into_iter().flat_map(|turn| {
            let mark = turn.unfinished.then(|| Message::assistant(UNFINISHED));
            turn.messages.into_iter().chain(mark)
        })
    }

    /// Removes the oldest turns until the rest is within `max` as `size` measures texts, and returns them. The newest
    /// turn stays: its longest texts are cut instead.
    pub(super) fn shrink_to(&mut self, max: usize, size: impl Fn(&str) -> usize) -> Vec<Turn> {
        let sizes: Vec<usize> = self.turns.iter().map(|turn| size(&turn.json())).collect();
        let mut total: usize = sizes.iter().sum();
        let mut removed = 0;
        while total > max && removed + 1 < sizes.len() {
            total -= sizes[removed];
            removed += 1;
        }
        let removed = self.turns.drain(..removed).collect();
        if let Some(last) = self.turns.last_mut() {
            last.shrink_to(max, size);
        }
        removed
    }
}

/// A turn of this process. Its messages are serialized once, when they are added.
pub(super) type OpenTurn = Turn<Box<RawValue>>;

impl OpenTurn {
    /// A turn that begins with the user's `message`.
    pub(super) fn new(message: &Message) -> Self {
        let id = format!("{:016x}", fastrand::u64(..));
        let mut turn = Self { id, messages: Vec::new(), unfinished: true, line: None };
        turn.extend(std::slice::from_ref(message));
        turn
    }

    /// Adds messages. Of attachments the name or the URL is kept, not the content.
    pub(super) fn extend(&mut self, messages: &[Message]) {
        let json = |message| to_raw_value(&without_data(message)).expect("messages are JSON");
        self.messages.extend(messages.iter().map(json));
    }

    /// The turn as its line alone.
    pub(super) fn written(&self) -> Turn {
        let line = Some(to_json(self));
        Turn { id: self.id.clone(), messages: Vec::new(), unfinished: self.unfinished, line }
    }
}

impl Turn {
    /// Reads the messages from the line again where they were taken.
    pub(super) fn load(&mut self) {
        if self.messages.is_empty()
            && let Some(Ok(Self { messages, .. })) = self.line.as_deref().map(serde_json::from_str)
        {
            self.messages = messages;
        }
    }

    fn json(&self) -> Cow<'_, str> {
        self.line.as_deref().map_or_else(|| Cow::Owned(to_json(self)), Cow::Borrowed)
    }

    /// Halves the longest text until the turn is within `max`, or nothing is left to cut.
    fn shrink_to(&mut self, max: usize, size: impl Fn(&str) -> usize) {
        const SHORT: usize = 64;
        while size(&self.json()) > max {
            self.load();
            self.line = None;
            let longest = self.messages.iter_mut().filter_map(content_mut).max_by_key(|text| text.len());
            let Some(text) = longest.filter(|text| text.len() > SHORT) else { return };
            // The mark takes some of it.
            *text = cut_middle(text, text.len() / 2 - SHORT / 2, "").into_owned();
        }
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("messages and texts are JSON")
}

fn content_mut(message: &mut Message) -> Option<&mut String> {
    match message {
        Message::System { content } | Message::User { content, .. } | Message::Tool { content, .. } => {
            Some(content)
        }
        Message::Assistant { content, .. } => content.as_mut(),
    }
}

/// `message` with a mark in place of each attachment whose content would be kept in memory.
fn without_data(message: &Message) -> Cow<'_, Message> {
    let attachments = match message {
        Message::User { attachments, .. } | Message::Tool { attachments, .. } => attachments,
        Message::System { .. } | Message::Assistant { .. } => return Cow::Borrowed(message),
    };
    if !attachments.iter().any(Attachment::is_data) {
        return Cow::Borrowed(message);
    }
    let mut message = message.clone();
    if let Message::User { content, attachments } | Message::Tool { content, attachments, .. } = &mut message
    {
        for attachment in attachments.extract_if(.., |attachment| attachment.is_data()) {
            content.push_str(&format!("\n[attachment not kept in memory: {}]", attachment.description()));
        }
    }
    Cow::Owned(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ToolCall;

    fn turn(id: &str, messages: Vec<Message>) -> Turn {
        Turn { id: id.into(), messages, unfinished: false, line: None }
    }

    fn exchange(n: usize) -> Turn {
        turn(&n.to_string(), vec![Message::user(format!("question {n}")), Message::assistant("answer")])
    }

    #[test]
    fn every_message_is_read_back_exactly() {
        let call = ToolCall::new("c1", "f", r#"{"a": [1]}"#);
        let asks =
            Message::Assistant { content: None, tool_calls: vec![call], extra: serde_json::Map::new() };
        let transcript = Transcript {
            notes: "### USER CONTEXT:\nlikes tea".into(),
            summary: Some("they met\n### MESSAGES:\n".into()),
            turns: vec![
                turn(
                    "1",
                    vec![
                        Message::user("```rust\nfn main() {}\n```\n\t\u{0}"),
                        asks,
                        Message::tool("c1", "[1]"),
                    ],
                ),
                Turn { unfinished: true, ..turn("2", vec![Message::user("### MESSAGES:\n{\"turn\": 1}")]) },
            ],
        };
        let memory = transcript.to_memory();
        assert!(memory.as_str().starts_with("### USER CONTEXT:\nlikes tea\n\n### MESSAGES:\n"));
        let read = Transcript::parse(&memory);
        assert_eq!((&read.notes, &read.summary), (&transcript.notes, &transcript.summary));
        assert_eq!(read.to_memory(), memory);
        assert!(read.into_messages().eq(transcript.into_messages()));
    }

    #[test]
    fn a_text_of_another_service_is_notes_and_nothing_of_it_is_lost() {
        let foreign = WorkingMemory::initialize_memory();
        assert_eq!(Transcript::parse(&foreign).notes, foreign.as_str());
        let odd = WorkingMemory::new("notes\n\n### MESSAGES:\nnot a turn\n{\"summary\": \"s\"}");
        let transcript = Transcript::parse(&odd);
        assert_eq!(
            (transcript.notes.as_str(), transcript.summary.as_deref()),
            ("notes\nnot a turn", Some("s"))
        );
    }

    #[test]
    fn the_oldest_turns_go_first_and_whole() {
        let mut transcript = Transcript { turns: (0..100).map(exchange).collect(), ..Transcript::default() };
        let removed = transcript.shrink_to(1_000, str::len);
        let kept: usize = transcript.turns.iter().map(|turn| turn.json().len()).sum();
        assert!(kept <= 1_000 && kept > 800, "{kept}");
        assert_eq!(removed.len() + transcript.turns.len(), 100);
        assert_eq!(
            (removed[0].id.as_str(), transcript.turns.last().map(|turn| &*turn.id)),
            ("0", Some("99"))
        );
    }

    #[test]
    fn a_turn_beyond_the_whole_budget_is_cut_at_its_longest_texts() {
        let messages =
            [Message::user("short"), Message::tool("c", "ä".repeat(50_000)), Message::assistant("end")];
        let mut open = OpenTurn::new(&messages[0]);
        open.extend(&messages[1..]);
        let mut transcript = Transcript { turns: vec![open.written()], ..Transcript::default() };
        assert!(transcript.shrink_to(2_000, str::len).is_empty());
        let turn = &transcript.turns[0];
        assert!(turn.json().len() <= 2_000);
        assert_eq!(
            (&turn.messages[0], &turn.messages[2]),
            (&Message::user("short"), &Message::assistant("end"))
        );
    }

    #[test]
    fn the_content_of_attachments_is_not_kept_and_their_urls_are() {
        let message = Message::user("look")
            .with_attachment(Attachment::image("image/png", &[0; 1_000]))
            .with_attachment(Attachment::image_url("https://example.com/a.png"));
        let Message::User { content, attachments } = without_data(&message).into_owned() else {
            panic!("it is the user's")
        };
        assert_eq!(content, "look\n[attachment not kept in memory: image/png, 1002 bytes]");
        assert_eq!(attachments, [Attachment::image_url("https://example.com/a.png")]);
    }
}
