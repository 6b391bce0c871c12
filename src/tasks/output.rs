//! What a function returns.

use serde_json::Value;

use crate::llm::Attachment;
use crate::support::opaque_debug;

/// The output of a function: a value, and images, audio and files for the model.
///
/// An attachment that the model's client does not accept is described to the model in words.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FunctionOutput {
    /// The value; a string is shown to the model unchanged, anything else as JSON.
    pub value: Value,
    /// Images, audio and files.
    pub attachments: Vec<Attachment>,
}

impl FunctionOutput {
    /// A value without attachments.
    pub fn new(value: impl Into<Value>) -> Self {
        Self { value: value.into(), attachments: Vec::new() }
    }

    /// Adds an attachment.
    #[must_use]
    pub fn with_attachment(mut self, attachment: Attachment) -> Self {
        self.attachments.push(attachment);
        self
    }
}

impl From<Value> for FunctionOutput {
    fn from(value: Value) -> Self {
        Self::new(value)
    }
}

// Shows the attachments' sizes only: results are parts of conversations and do not belong in logs.
opaque_debug!(FunctionOutput { attachments });
