//! Conversation memory: the text that a service keeps for each conversation between turns.
//!
//! [`MemoryManager`] is the backend trait. A conversation has at most one entry of each [`MemoryType`], under the key
//! `memory:<TYPE>:<conversation_id>`, the key that Python arshai uses.

mod input;
mod stats;

use async_trait::async_trait;

use crate::component::Component;
use crate::error::Result;
pub use input::{
    MAX_CONVERSATION_ID_BYTES, MemoryInput, MemoryType, WorkingMemory, validate_conversation_id,
};
pub use stats::{EvictionListener, MemoryStats, RemovalCause, RemovalCounts, RemovedEntry};

/// Stores the memory of conversations (Python: `IMemoryManager`).
///
/// ```
/// use arshai::memory::MemoryInput;
/// use arshai::{Arshai, Config};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> arshai::Result<()> {
/// let runtime = Arshai::builder(Config::default()).build()?;
/// let conversation = MemoryInput::working_memory("conversation-1");
/// runtime.memory().store(conversation.clone().with_data("The user prefers short answers.")).await?;
/// for memory in runtime.memory().retrieve(&conversation).await? {
///     println!("{}", memory.as_str());
/// }
/// # Ok(()) }
/// ```
///
/// # Contract
/// - **Key.** One entry per conversation and [`MemoryType`]; entries never affect each other's contents.
/// - **Input.** Every operation first validates its [`MemoryInput`] and returns an error, before changing anything, for
///   an invalid id or a field that the backend does not support. [`MemoryInput::validate`] is that check for backends
///   that only look entries up by key, which all built-in ones do.
/// - **Store** replaces the whole entry, metadata included, and returns its key. The last element of `data` is stored;
///   without data it is an error. An entry larger than the backend's byte limit is rejected with
///   [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge); it evicts nothing, and an existing entry under that key stays.
/// - **An acknowledged write is readable**: making room never evicts the entry being written.
/// - **Retrieve** returns zero or one entry, always complete, and never an expired one, even if it was not cleaned up yet.
/// - **Update** replaces the text of an existing entry and keeps its metadata; for a missing entry it logs a warning and
///   changes nothing. It cannot restore an entry that was deleted concurrently.
/// - **Compare and set** is atomic: of several concurrent calls with the same `expected`, one is
///   [`Updated`](CasOutcome::Updated).
/// - **Delete** of a missing entry succeeds.
/// - **Ordering.** Operations on one key are linearizable. Nothing is promised across keys.
/// - **Cancellation.** Dropping a future leaves the operation either complete or not started.
/// - **Expiry.** An entry expires when its TTL has passed since `store` (or since the last change, where
///   [`MemoryCapabilities::update_renews_ttl`] says so).
/// - **Eviction** to keep a limit removes expired entries first, then the least recently used ones; reading and writing are
///   uses; a rejected write is not.
/// - **Limits** hold after every operation, unless [`MemoryCapabilities::bounded`] is false.
///   [`Component::limits`] shows them.
/// - **Close.** After [`Component::close`] every operation fails with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
///
/// `arshai::contract::memory` (feature `contract`) tests this for any backend.
#[doc(alias = "IMemoryManager")]
#[async_trait]
pub trait MemoryManager: Component {
    /// Stores an entry and returns its key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an invalid input or missing data,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a field the backend does not support,
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) for an entry larger than the byte limit.
    async fn store(&self, input: MemoryInput) -> Result<String>;

    /// Returns the entry of a conversation and type, if it exists.
    ///
    /// # Errors
    /// As for [`store`](Self::store), data aside.
    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>>;

    /// Replaces the text of an existing entry.
    ///
    /// # Errors
    /// As for [`store`](Self::store).
    async fn update(&self, input: MemoryInput) -> Result<()>;

    /// Replaces the text of an entry only if it is `expected`, as [`update`](Self::update) does; with `None`, stores
    /// the entry only if there is none, as [`store`](Self::store) does.
    ///
    /// A caller that retrieves a text, changes it and writes it back with this method cannot overwrite a concurrent
    /// change: on [`CasOutcome::Conflict`] it retrieves again and repeats.
    ///
    /// # Errors
    /// As for [`store`](Self::store).
    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome>;

    /// Removes an entry.
    ///
    /// # Errors
    /// As for [`retrieve`](Self::retrieve).
    async fn delete(&self, input: &MemoryInput) -> Result<()>;

    /// Returns once every acknowledged write is as durable, and as visible to other processes, as the backend makes it. Does
    /// nothing in backends whose acknowledged writes already are, such as the in-process store and Redis.
    ///
    /// # Errors
    /// The backend's, when writes could not be made durable.
    async fn flush(&self) -> Result<()>;

    /// A snapshot of the counters.
    fn stats(&self) -> MemoryStats;

    /// How the backend deviates from the contract or extends it.
    fn capabilities(&self) -> MemoryCapabilities;
}

/// The result of [`MemoryManager::compare_and_set`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub enum CasOutcome {
    /// The entry was written.
    Updated,
    /// The entry is not the expected one; nothing changed.
    Conflict,
    /// There is no such entry; nothing changed.
    Missing,
}

/// How a memory backend deviates from the contract of [`MemoryManager`] or extends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryCapabilities {
    /// Entries and bytes are limited here, and `set_limit` changes the limits.
    pub bounded: bool,
    /// `update` renews the entry's TTL (as Redis does; in process the TTL counts from `store`).
    pub update_renews_ttl: bool,
    /// An [`EvictionListener`] is called for removed entries, and [`MemoryStats::removals`] counts them.
    pub eviction_listener: bool,
    /// [`MemoryStats`] counts entries and bytes. A shared server does not report them per service.
    pub counts_entries: bool,
}
