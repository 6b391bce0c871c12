//! Conversation memory: what a service remembers of each conversation between turns.
//!
//! [`MemoryManager`] is the seam; the in-process backend keeps conversations in a bounded store, others
//! keep them elsewhere. One conversation holds at most one entry of each [`MemoryType`], under the key
//! `memory:<TYPE>:<conversation_id>`, the same key that Python arshai uses.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::component::Component;
use crate::error::{Error, ErrorKind, Result};

/// Conversation ids may be at most this many bytes long.
pub const MAX_CONVERSATION_ID_BYTES: usize = 512;

/// Which memory of a conversation is meant (Python: `ConversationMemoryType`).
#[doc(alias = "ConversationMemoryType")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MemoryType {
    /// Recent messages and passing information. The default.
    #[default]
    ShortTermMemory,
    /// Lasting knowledge about the conversation.
    LongTermMemory,
    /// The working memory that an agent reads before and rewrites after each turn.
    WorkingMemory,
}

impl MemoryType {
    /// Its name in keys and on the wire, for example `WORKING_MEMORY`.
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

/// The text that is remembered (Python: `IWorkingMemory`).
///
/// Cloning is cheap: clones share the text.
#[doc(alias = "IWorkingMemory")]
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkingMemory {
    /// The text itself.
    pub working_memory: Arc<str>,
}

impl WorkingMemory {
    /// A memory holding `text`.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { working_memory: text.into() }
    }

    /// What a new conversation starts from: the four sections a model is asked to maintain, each saying
    /// that nothing is known yet.
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

/// What an operation on memory is about (Python: `IMemoryInput`).
#[doc(alias = "IMemoryInput")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryInput {
    /// Which conversation: 1 to [`MAX_CONVERSATION_ID_BYTES`] bytes without control characters.
    pub conversation_id: String,
    /// Which memory of it.
    #[serde(default)]
    pub memory_type: MemoryType,
    /// What to store or update; with several, the last one wins.
    #[serde(default)]
    pub data: Vec<WorkingMemory>,
    /// A search query, for backends that search. Those in this crate do not.
    #[serde(default)]
    pub query: Option<String>,
    /// A backend's own id of one memory. Those in this crate go by conversation and type.
    #[serde(default)]
    pub memory_id: Option<String>,
    /// The most entries to retrieve. Those in this crate return at most one.
    #[serde(default = "default_limit")]
    pub limit: Option<usize>,
    /// Filters, for backends that filter.
    #[serde(default)]
    pub filters: Option<Map<String, Value>>,
    /// Kept beside the entry when it is stored; `update` keeps what was stored.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

fn default_limit() -> Option<usize> {
    Some(5)
}

impl MemoryInput {
    /// The short-term memory of a conversation, with nothing to store.
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

    /// The working memory of a conversation, with nothing to store.
    pub fn working_memory(conversation_id: impl Into<String>) -> Self {
        Self::new(conversation_id).with_memory_type(MemoryType::WorkingMemory)
    }

    /// Chooses the memory type.
    #[must_use]
    pub fn with_memory_type(mut self, memory_type: MemoryType) -> Self {
        self.memory_type = memory_type;
        self
    }

    /// Adds data; the last one added is the one that is stored.
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

    /// Checks the conversation id.
    ///
    /// # Errors
    /// As [`check_conversation_id`].
    pub fn check_id(&self) -> Result<()> {
        check_conversation_id(&self.conversation_id)
    }

    /// The key of the entry: `memory:<TYPE>:<conversation_id>`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("memory:{}:{}", self.memory_type, self.conversation_id)
    }

    /// The data that a store or update writes: the last one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] "No data provided to `<verb>`" when there is none.
    pub fn last_data(&self, verb: &str) -> Result<&WorkingMemory> {
        self.data.last().ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "memory", format!("No data provided to {verb}"))
        })
    }
}

/// Checks a conversation id, as every memory backend does before anything else.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is empty, longer than [`MAX_CONVERSATION_ID_BYTES`] bytes or holds a
/// control character. The id itself is not repeated in the error.
pub fn check_conversation_id(id: &str) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::InvalidInput, "memory", message));
    if id.is_empty() {
        return invalid("the conversation id is empty; give each conversation an id of its own".into());
    }
    if id.len() > MAX_CONVERSATION_ID_BYTES {
        return invalid(format!(
            "the conversation id is {} bytes long; at most {MAX_CONVERSATION_ID_BYTES} are allowed",
            id.len()
        ));
    }
    // Nearly every id is printable ASCII, which is told faster by bytes than by characters.
    if id.bytes().all(|byte| matches!(byte, 0x20..0x7f)) {
        return Ok(());
    }
    match id.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => invalid(format!("the conversation id has a control character at byte {at}")),
        None => Ok(()),
    }
}

/// Keeps what is remembered of conversations (Python: `IMemoryManager`).
///
/// # Contract
/// - **Key.** One entry per conversation and [`MemoryType`]; conversations and types never see each other.
/// - **Store** replaces the whole entry and returns its key. With several data the last wins; without data
///   it is an error and nothing changes. An entry larger than the backend's whole budget is refused with
///   [`ErrorKind::TooLarge`]; it evicts nothing and an earlier entry under that key stays.
/// - **Retrieve** gives zero or one entry, whole. Never an expired one, cleaned up or not.
/// - **Update** replaces the text of an existing entry and keeps its metadata and creation time; of a
///   missing entry it warns and changes nothing. It cannot bring back an entry deleted meanwhile.
/// - **Delete** of a missing entry is fine.
/// - **Order.** Operations on one key are linearisable. Nothing is promised across keys.
/// - **Cancellation.** A dropped future leaves the operation either done or not begun, never half done.
/// - **Bounds.** After every operation the backend's bounds hold ([`MemoryManager::stats`] shows them),
///   unless its [`MemoryCapabilities`] say it is unbounded.
///
/// `arshai::contract::memory` (feature `contract`) tests all of this on any backend.
#[doc(alias = "IMemoryManager")]
#[async_trait]
pub trait MemoryManager: Component {
    /// Stores an entry and returns its key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id or no data, [`ErrorKind::TooLarge`] for an
    /// entry larger than the whole budget.
    async fn store(&self, input: MemoryInput) -> Result<String>;

    /// The entry of a conversation and type, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id.
    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>>;

    /// Replaces the text of an existing entry.
    ///
    /// # Errors
    /// As for [`store`](Self::store).
    async fn update(&self, input: MemoryInput) -> Result<()>;

    /// Removes an entry.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a bad conversation id.
    async fn delete(&self, input: &MemoryInput) -> Result<()>;

    /// Counters and bounds, as of now.
    fn stats(&self) -> MemoryStats;

    /// What this backend does beyond or short of the contract.
    fn capabilities(&self) -> MemoryCapabilities;
}

/// What a memory backend does beyond or short of the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryCapabilities {
    /// It holds `max_entries` and `max_bytes`; `set_limits` works.
    pub bounded: bool,
    /// `update` starts the entry's time to live anew (Redis does; in process it counts from `store`).
    pub update_renews_ttl: bool,
    /// Time to live follows the injected [`Clock`](crate::Clock), not a server's.
    pub injected_clock: bool,
    /// It tells an [`EvictionListener`] of every entry that leaves, and counts them.
    pub eviction_listener: bool,
    /// What it evicts to hold its bounds is not lost: it is read again from where it is kept.
    pub eviction_loses_nothing: bool,
    /// Its statistics count entries and bytes; a server shared with others keeps those for itself.
    pub counts_entries: bool,
}

impl MemoryCapabilities {
    /// Sets whether the backend holds bounds.
    #[must_use]
    pub const fn bounded(mut self, yes: bool) -> Self {
        self.bounded = yes;
        self
    }

    /// Sets whether `update` renews the time to live.
    #[must_use]
    pub const fn update_renews_ttl(mut self, yes: bool) -> Self {
        self.update_renews_ttl = yes;
        self
    }

    /// Sets whether expiry follows the injected clock.
    #[must_use]
    pub const fn injected_clock(mut self, yes: bool) -> Self {
        self.injected_clock = yes;
        self
    }

    /// Sets whether what is evicted can still be read.
    #[must_use]
    pub const fn eviction_loses_nothing(mut self, yes: bool) -> Self {
        self.eviction_loses_nothing = yes;
        self
    }

    /// Sets whether its statistics count entries and bytes.
    #[must_use]
    pub const fn counts_entries(mut self, yes: bool) -> Self {
        self.counts_entries = yes;
        self
    }

    /// Sets whether it tells a listener of every entry that leaves.
    #[must_use]
    pub const fn eviction_listener(mut self, yes: bool) -> Self {
        self.eviction_listener = yes;
        self
    }
}

/// What a memory backend holds and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Entries held now, those expired but not yet cleaned included.
    pub entries: u64,
    /// Bytes held now, the store's own overhead included.
    pub bytes: u64,
    /// Retrievals that found an entry.
    pub hits: u64,
    /// Those of the hits that this process answered by itself, where entries are kept elsewhere.
    pub local_hits: u64,
    /// Retrievals that found none.
    pub misses: u64,
    /// Entries that left the store, by reason.
    pub removals: RemovalCounts,
}

/// Entries that left a store, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovalCounts {
    /// There were too many entries.
    pub over_max_entries: u64,
    /// There were too many bytes.
    pub over_max_bytes: u64,
    /// Their time to live had passed.
    pub expired: u64,
    /// A store or update put another value in their place.
    pub replaced: u64,
    /// They were deleted.
    pub deleted: u64,
}

/// Everything that is kept of one entry.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MemoryRecord {
    /// The text.
    pub memory: WorkingMemory,
    /// What was stored beside it; empty if nothing was.
    pub metadata: Map<String, Value>,
    /// When it was stored, by the wall clock.
    pub created_at: SystemTime,
    /// When it was stored or last updated, by the wall clock.
    pub last_update: SystemTime,
}

impl MemoryRecord {
    /// A record of an entry.
    #[must_use]
    pub fn new(
        memory: WorkingMemory,
        metadata: Map<String, Value>,
        created_at: SystemTime,
        last_update: SystemTime,
    ) -> Self {
        Self { memory, metadata, created_at, last_update }
    }
}

impl RemovalCounts {
    /// Counts one entry more that left for `reason`.
    pub fn add(&mut self, reason: RemovalCause) {
        let count = match reason {
            RemovalCause::MaxEntries => &mut self.over_max_entries,
            RemovalCause::MaxBytes => &mut self.over_max_bytes,
            RemovalCause::Expired => &mut self.expired,
            RemovalCause::Replaced => &mut self.replaced,
            RemovalCause::Deleted => &mut self.deleted,
        };
        *count += 1;
    }
}

impl std::ops::AddAssign for RemovalCounts {
    fn add_assign(&mut self, other: Self) {
        self.over_max_entries += other.over_max_entries;
        self.over_max_bytes += other.over_max_bytes;
        self.expired += other.expired;
        self.replaced += other.replaced;
        self.deleted += other.deleted;
    }
}

/// Why an entry left a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum RemovalCause {
    /// There were more entries than `max_entries`.
    MaxEntries,
    /// There were more bytes than the budget.
    MaxBytes,
    /// Its time to live had passed.
    Expired,
    /// A store or update put another value in its place.
    Replaced,
    /// It was deleted.
    Deleted,
}

/// An entry that left a store, as an [`EvictionListener`] sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemovedEntry {
    /// Which conversation.
    pub conversation_id: Arc<str>,
    /// Which memory of it.
    pub memory_type: MemoryType,
    /// What it held.
    pub memory: WorkingMemory,
    /// Why it left.
    pub reason: RemovalCause,
}

impl RemovedEntry {
    /// An entry that left a store.
    #[must_use]
    pub fn new(
        conversation_id: Arc<str>,
        memory_type: MemoryType,
        memory: WorkingMemory,
        reason: RemovalCause,
    ) -> Self {
        Self { conversation_id, memory_type, memory, reason }
    }
}

/// Called once for every entry that leaves a store, after the operation that removed it has taken effect
/// and outside every lock, on the thread that ran the operation. It must be quick; it may call the store.
/// A panic in it is caught and logged.
pub type EvictionListener = Arc<dyn Fn(RemovedEntry) + Send + Sync>;
