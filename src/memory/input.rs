//! The arguments of memory operations.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// Maximum length of a conversation id in bytes.
pub const MAX_CONVERSATION_ID_BYTES: usize = 512;

/// Which memory of a conversation (Python: `ConversationMemoryType`).
#[doc(alias = "ConversationMemoryType")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MemoryType {
    /// Recent messages and transient information. The default.
    #[default]
    ShortTermMemory,
    /// Lasting knowledge about the conversation.
    LongTermMemory,
    /// The working memory that an agent reads before each turn and rewrites after it.
    WorkingMemory,
}

impl MemoryType {
    /// The name in keys and on the wire, for example `WORKING_MEMORY`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShortTermMemory => "SHORT_TERM_MEMORY",
            Self::LongTermMemory => "LONG_TERM_MEMORY",
            Self::WorkingMemory => "WORKING_MEMORY",
        }
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text of an entry (Python: `IWorkingMemory`).
///
/// Cloning is cheap: clones share the text.
#[doc(alias = "IWorkingMemory")]
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkingMemory {
    /// The text.
    pub working_memory: Arc<str>,
}

impl WorkingMemory {
    /// An entry with this text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { working_memory: text.into() }
    }

    /// The initial text of a new conversation: the four sections that a model is asked to maintain, each saying that
    /// nothing is known yet.
    #[must_use]
    pub fn initialize_memory() -> Self {
        Self::new(
            "### USER CONTEXT:\n\
             Nothing is known about the user yet: no profile, preferences or constraints.\n\n\
             ### CONVERSATION FLOW:\n\
             This conversation is just starting; nothing has been said before.\n\n\
             ### CURRENT FOCUS:\n\
             Waiting for the first message to learn what the user wants.\n\n\
             ### INTERACTION TONE:\n\
             Professional and neutral until the user's own style shows.",
        )
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.working_memory
    }
}

/// Shows the length only: conversations are private and do not belong in logs.
impl fmt::Debug for WorkingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkingMemory({} bytes)", self.working_memory.len())
    }
}

impl From<&str> for WorkingMemory {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for WorkingMemory {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// The argument of a memory operation (Python: `IMemoryInput`).
///
/// The built-in backends look entries up by conversation and type. They return an error for `query`, `memory_id` and
/// `filters` instead of ignoring them; a backend that can search gives them a meaning and documents it.
#[doc(alias = "IMemoryInput")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryInput {
    /// The conversation: 1 to [`MAX_CONVERSATION_ID_BYTES`] bytes without control characters.
    pub conversation_id: String,
    /// Which memory of the conversation.
    #[serde(default)]
    pub memory_type: MemoryType,
    /// The text to write: the last element. Unused by `retrieve` and `delete`.
    #[serde(default)]
    pub data: Vec<WorkingMemory>,
    /// A search query. Built-in backends: `Unsupported`.
    #[serde(default)]
    pub query: Option<String>,
    /// A backend-specific id of one memory. Built-in backends: `Unsupported`.
    #[serde(default)]
    pub memory_id: Option<String>,
    /// Maximum number of entries to retrieve, `None` for no maximum; zero is `InvalidInput`. A conversation has at most
    /// one entry of each type, so other values make no difference in the built-in backends.
    #[serde(default = "default_limit")]
    pub limit: Option<usize>,
    /// Conditions on entries. Built-in backends: `Unsupported`, unless empty.
    #[serde(default)]
    pub filters: Option<Map<String, Value>>,
    /// Stored with the entry by the operation that creates it (`store`, or `compare_and_set` without an expected text).
    /// Unused by all others: `update` keeps the stored metadata.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

fn default_limit() -> Option<usize> {
    Some(5)
}

impl MemoryInput {
    /// The short-term memory of a conversation, without data.
    pub fn new(conversation_id: impl Into<String>) -> Self {
        Self {
            conversation_id: conversation_id.into(),
            memory_type: MemoryType::default(),
            data: Vec::new(),
            query: None,
            memory_id: None,
            limit: default_limit(),
            filters: None,
            metadata: None,
        }
    }

    /// The working memory of a conversation, without data.
    pub fn working_memory(conversation_id: impl Into<String>) -> Self {
        Self::new(conversation_id).with_memory_type(MemoryType::WorkingMemory)
    }

    /// Sets the memory type.
    #[must_use]
    pub fn with_memory_type(mut self, memory_type: MemoryType) -> Self {
        self.memory_type = memory_type;
        self
    }

    /// Adds data; the last element is the one that is written.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<WorkingMemory>) -> Self {
        self.data.push(data.into());
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Validates the input for a backend that only looks entries up by key.
    ///
    /// # Errors
    /// As [`validate_conversation_id`]; [`ErrorKind::InvalidInput`] for a `limit` of zero; [`ErrorKind::Unsupported`]
    /// for a `query`, a `memory_id` or non-empty `filters`.
    pub fn validate(&self) -> Result<()> {
        validate_conversation_id(&self.conversation_id)?;
        if self.limit == Some(0) {
            return Err(Error::new(ErrorKind::InvalidInput, COMPONENT, "limit must be at least 1"));
        }
        let filtered = self.filters.as_ref().is_some_and(|filters| !filters.is_empty());
        for (field, is_set) in
            [("query", self.query.is_some()), ("memory_id", self.memory_id.is_some()), ("filters", filtered)]
        {
            if is_set {
                let message = format!("{field} is not supported: this backend looks entries up by key only");
                return Err(Error::new(ErrorKind::Unsupported, COMPONENT, message));
            }
        }
        Ok(())
    }

    /// The key of the entry: `memory:<TYPE>:<conversation_id>`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("memory:{}:{}", self.memory_type, self.conversation_id)
    }

    /// The text to write: the last element of `data`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] "No data provided to `<verb>`" when there is none.
    pub fn last_data(&self, verb: &str) -> Result<&WorkingMemory> {
        self.data.last().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, COMPONENT, format!("No data provided to {verb}"))
        })
    }
}

const COMPONENT: &str = "memory";

/// Validates a conversation id.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is empty, longer than [`MAX_CONVERSATION_ID_BYTES`] or contains a control
/// character. The error does not repeat the id.
pub fn validate_conversation_id(id: &str) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, COMPONENT, message));
    if id.is_empty() {
        return invalid("conversation_id must not be empty".into());
    }
    if id.len() > MAX_CONVERSATION_ID_BYTES {
        let bytes = id.len();
        return invalid(format!("conversation_id is {bytes} bytes; maximum is {MAX_CONVERSATION_ID_BYTES}"));
    }
    // Nearly every id is printable ASCII, which is faster to check by bytes than by characters.
    if id.bytes().all(|byte| matches!(byte, 0x20..0x7f)) {
        return Ok(());
    }
    match id.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => invalid(format!("conversation_id contains a control character at byte {at}")),
        None => Ok(()),
    }
}
