//! Conversation memory in Redis with copies in this process: read at memory's speed, lost by nobody.

mod copies;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::Map;

use super::background::Background;
use super::redis::{Codec, Commands, HEALTH_TIMEOUT, NAME_IN_ERRORS, update, warn_missing};
use crate::backends::redis::RedisClient;
use crate::memory::{
    MemoryCapabilities, MemoryInput, MemoryLimits, MemoryManager, MemoryStats, WorkingMemory,
};
use crate::{BuildContext, Deadline, Health, Result};
use copies::Copies;
use watch::Watch;

/// The name that `memory.backend` chooses this backend by.
pub const NAME: &str = "tiered";

/// Conversation memory in Redis, as [`RedisMemoryManager`](super::RedisMemoryManager) keeps it, with copies of
/// what was last used in this process.
///
/// # Contract
/// That of [`RedisMemoryManager`](super::RedisMemoryManager): same keys, same JSON, every write goes to Redis and
/// is done when Redis has done it. And:
/// - **Copies.** At most `memory.max_entries` of at most `memory.max_memory_mb`, the least recently used
///   leaving first. An entry whose copy leaves is read from Redis again: eviction loses nothing. Statistics'
///   entries, bytes, evictions and bounds are those of the copies; `local_hits` are hits that Redis knows
///   nothing of.
/// - **Within this manager** operations on one key are linearisable: after a `store`, `update` or `delete`
///   has ended, well or not, no earlier text is read.
/// - **Among processes** a text that another process has replaced, deleted or let expire may be read for as long
///   as the news takes, which is a network hop when all is well and 2 s (by this process's clock, read in
///   steps of 10 ms) at most: Redis tells of every change on the connection that entries are read by
///   (`CLIENT TRACKING`), copies are read only for 2 s after a sign of life asked for every 500 ms on that
///   connection, and all are dropped when the connection breaks, when news was lost or when the database was
///   flushed.
/// - **Expiry.** A copy lives for a twelfth of `memory.ttl`, and is made only of an entry that outlives it.
/// - **Connections.** One, for everything, and whatever else is done with [`client`](Self::client) too. A key
///   `memory:TIERED:<random>` that lives for 30 s tells whether the database was flushed.
///
/// It needs Redis 6 or later and one primary: alone or behind sentinels, not a cluster. A background task runs
/// from the first use on and ends with the manager.
pub struct TieredMemoryManager {
    client: Arc<RedisClient>,
    commands: Commands,
    codec: Codec,
    copies: Arc<Copies>,
    watch: Arc<Watch>,
    task: Background,
    /// Retrievals that Redis answered.
    hits: AtomicU64,
    misses: AtomicU64,
}

impl TieredMemoryManager {
    /// The manager that a configuration describes. Nothing connects before it is used.
    ///
    /// # Errors
    /// As [`RedisMemoryManager::from_context`](super::RedisMemoryManager::from_context);
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a cluster's URL, and for bounds that the copies
    /// cannot live with.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        let copies = Arc::new(Copies::new(context)?);
        let watch = Arc::new(Watch::new(Arc::clone(&copies)));
        let client = RedisClient::of_one_primary(context, Arc::clone(&watch) as _, NAME_IN_ERRORS)?;
        Ok(Self {
            commands: Commands::new(client.clone(), context.config.memory.ttl)?,
            client: Arc::new(client),
            codec: Codec::new(Arc::clone(&context.clock)),
            copies,
            watch,
            task: Background::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// The client underneath.
    #[must_use]
    pub fn client(&self) -> &RedisClient {
        &self.client
    }

    fn keep_watch(&self) {
        self.task.ensure(|| {
            self.copies.start_cleanup();
            Arc::clone(&self.watch).keep_watch(Arc::downgrade(&self.client))
        });
    }

    /// Reads an entry from Redis, and keeps a copy if it may.
    async fn fetch(&self, input: &MemoryInput) -> Result<Option<WorkingMemory>> {
        let reading = self.copies.reading(input);
        let Some((json, left)) = self.commands.read_with_ttl(&input.key()).await? else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        let memory = self.codec.text(&json)?;
        reading.keep(input, &memory, left);
        Ok(Some(memory))
    }
}

#[async_trait]
impl MemoryManager for TieredMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.check_id()?;
        self.keep_watch();
        let empty = Map::new();
        let metadata = input.metadata.as_ref().unwrap_or(&empty);
        let memory = input.last_data("store")?;
        let json = self.codec.encode(memory, metadata)?;
        let key = input.key();
        let writing = self.copies.writing(&input);
        self.commands.store_and_track(&key, json).await?;
        writing.done(memory, self.commands.ttl());
        Ok(key)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.check_id()?;
        self.keep_watch();
        if let Some(copy) = self.copies.get(input.memory_type, &input.conversation_id) {
            return Ok(vec![copy]);
        }
        // Boxed, so that a hit does not pay for the room that asking Redis takes.
        Ok(Box::pin(self.fetch(input)).await?.into_iter().collect())
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.check_id()?;
        self.keep_watch();
        let memory = input.last_data("update")?;
        let writing = self.copies.writing(&input);
        match update(&self.commands, &self.codec, &input.key(), memory).await? {
            Some(()) => writing.done(memory, self.commands.ttl()),
            None => warn_missing(&input),
        }
        Ok(())
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.check_id()?;
        self.keep_watch();
        let _writing = self.copies.writing(input);
        self.commands.delete(&input.key()).await.map(|_| ())
    }

    fn stats(&self) -> MemoryStats {
        let mut stats = self.copies.stats();
        stats.local_hits = stats.hits;
        stats.hits += self.hits.load(Ordering::Relaxed);
        stats.misses = self.misses.load(Ordering::Relaxed);
        stats
    }

    async fn health(&self) -> Health {
        self.client.health_check(Deadline::after(HEALTH_TIMEOUT)).await
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().bounded(true).eviction_loses_nothing(true).update_renews_ttl(true)
    }

    fn set_limits(&self, limits: MemoryLimits) -> Result<()> {
        self.copies.set_limits(limits)
    }
}

impl fmt::Debug for TieredMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredMemoryManager")
            .field("client", self.client())
            .field("copies", &self.copies)
            .finish_non_exhaustive()
    }
}
