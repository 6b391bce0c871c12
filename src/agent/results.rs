//! Results of tools as the model reads them: not too long, and without what its client does not take.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::llm::{Message, Modalities, ToolCall};
use crate::support::{cut_middle, floor_char_boundary};
use crate::tasks::{Function, FunctionError, FunctionOutcome, FunctionResult};

/// The function that reads the rest of results that were cut.
pub(super) const READ_TOOL_RESULT: &str = "read_tool_result";

/// Bytes kept for the line that [`READ_TOOL_RESULT`] puts before a part.
const HEADER_BYTES: usize = 100;

/// Shows the model the results of one turn.
pub(super) struct ToolResults {
    max_bytes: usize,
    modalities: Modalities,
    /// Results that were cut, by the ids of their calls.
    whole: Arc<Mutex<HashMap<String, Arc<str>>>>,
}

/// Arguments of [`READ_TOOL_RESULT`].
#[derive(Deserialize, JsonSchema)]
struct ReadArguments {
    /// The id of the tool call whose result is read.
    call_id: String,
    /// The byte to begin at.
    #[serde(default)]
    offset: usize,
}

impl ToolResults {
    pub(super) fn new(max_bytes: usize, modalities: Modalities) -> Self {
        Self { max_bytes, modalities, whole: Arc::default() }
    }

    /// Whether any result was cut.
    pub(super) fn has_cut(&self) -> bool {
        !self.whole.lock().is_empty()
    }

    /// Reads results that were cut, part by part.
    pub(super) fn read_function(&self) -> Function {
        let (whole, max) = (Arc::clone(&self.whole), self.max_bytes);
        let read = move |arguments: ReadArguments| {
            let text = whole.lock().get(&arguments.call_id).cloned();
            async move {
                let text =
                    text.ok_or_else(|| FunctionError::bad_arguments("no result of that call was cut"))?;
                read_part(&text, arguments.offset, max)
            }
        };
        Function::typed(READ_TOOL_RESULT, read)
            .with_description(
                "Reads a part of a tool's result of which only the beginning and the end were shown.",
            )
            .with_max_result_bytes(usize::MAX)
    }

    /// One message for each call, in their order.
    pub(super) fn messages<'a>(
        &'a self,
        calls: &'a [ToolCall],
        outcomes: &'a [FunctionOutcome],
    ) -> impl Iterator<Item = Message> + 'a {
        calls.iter().zip(outcomes).map(|(call, outcome)| match outcome {
            FunctionOutcome::Completed(done) => self.completed(call, done),
            FunctionOutcome::Initiated(started) => Message::tool(&call.call_id, &started.message),
            FunctionOutcome::Failed(failed) => {
                Message::tool(&call.call_id, self.cut(call, format!("Error: {}", failed.error)))
            }
        })
    }

    fn completed(&self, call: &ToolCall, done: &FunctionResult) -> Message {
        let mut text = self.cut(call, to_text(&done.result));
        let (shown, hidden): (Vec<_>, Vec<_>) =
            done.attachments.iter().partition(|attachment| self.modalities.accepts(attachment));
        for attachment in hidden {
            text.push_str(&format!(
                "\n[{}: not shown, this model does not take it]",
                attachment.description()
            ));
        }
        shown.into_iter().cloned().fold(Message::tool(&call.call_id, text), Message::with_attachment)
    }

    /// `text`, cut at its middle if it is too long; then the whole can be read.
    fn cut(&self, call: &ToolCall, text: String) -> String {
        if text.len() <= self.max_bytes || call.name == READ_TOOL_RESULT {
            return text;
        }
        let hint = format!("; {READ_TOOL_RESULT} with call_id {:?} reads the whole", call.call_id);
        let cut = cut_middle(&text, self.max_bytes, &hint).into_owned();
        self.whole.lock().insert(call.call_id.clone(), text.into());
        cut
    }
}

fn read_part(text: &str, offset: usize, max: usize) -> Result<Value, FunctionError> {
    let begin = floor_char_boundary(text, offset);
    let length = max.saturating_sub(HEADER_BYTES).max(HEADER_BYTES);
    let end = floor_char_boundary(text, begin.saturating_add(length));
    let more = if end < text.len() { format!("; continue at {end}") } else { String::new() };
    Ok(format!("[bytes {begin} to {end} of {}{more}]\n{}", text.len(), &text[begin..end]).into())
}

/// A result as the model reads it: a string unchanged, anything else as JSON.
fn to_text(result: &Value) -> String {
    result.as_str().map_or_else(|| result.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_result_that_was_cut_are_the_whole() {
        let text = "größer ".repeat(200);
        let (mut read, mut offset) = (String::new(), 0);
        while offset < text.len() {
            let part = read_part(&text, offset, 150).expect("it is there");
            let (header, part) = part.as_str().expect("a text").split_once('\n').expect("a header");
            assert!(header.len() + part.len() <= 200, "{header}");
            read.push_str(part);
            offset = read.len();
        }
        assert_eq!(read, text);
    }
}
