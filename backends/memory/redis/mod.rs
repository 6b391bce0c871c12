//! Conversation memory in Redis, shared with other processes and with Python arshai.

mod codec;
mod commands;

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;
use tokio::time::Instant;

pub(super) use codec::Codec;
pub(super) use commands::{Commands, Replaced};

use crate::backends::redis::RedisClient;
use crate::memory::{MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, WorkingMemory};
use crate::{BuildContext, Deadline, Error, ErrorKind, Health, Result};

/// The name that `memory.backend` chooses this backend by.
pub const NAME: &str = "redis";
pub(super) const NAME_IN_ERRORS: &str = "memory.redis";

/// How long a health check may take.
pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Conversation memory in Redis (Python: `RedisWorkingMemoryManager`): the same keys and the same JSON, so that
/// Rust and Python services can share one server.
///
/// # Contract
/// That of [`MemoryManager`], and:
/// - **Format.** `SET memory:<TYPE>:<id> <json> EX <ttl>`, the JSON with `data.working_memory`, `metadata`,
///   `created_at` and `last_update`, local times without offset. Fields that are not ours are kept by `update`,
///   byte for byte.
/// - **Time.** Entries live for the time to live in whole seconds, counted by Redis from the last `store` or
///   `update`.
/// - **Atomicity.** `update` replaces an entry only if it is the one that was read, and reads again where it is
///   not: it cannot bring back an entry deleted meanwhile or lose what another wrote beside the text.
/// - **Bounds, deadlines, failures.** Those of [`RedisClient`]. A write whose connection was lost is not sent
///   again; its error says that it may or may not have happened.
/// - **Damaged values.** A key that holds another type, or something that is not an entry, is
///   [`ErrorKind::Corrupt`] for that conversation alone; `store` and `delete` put it right.
pub struct RedisMemoryManager {
    commands: Commands,
    codec: Codec,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RedisMemoryManager {
    /// The manager that a configuration describes. Nothing connects before it is used.
    ///
    /// # Errors
    /// As [`RedisClient::from_context`]; [`ErrorKind::Config`] for a time to live below a second.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Self::new(RedisClient::from_context(context)?, context)
    }

    /// A manager over a client that others may use too, with the time to live and the clock of `context`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a time to live below a second.
    pub fn new(client: RedisClient, context: &BuildContext) -> Result<Self> {
        Ok(Self {
            commands: Commands::new(client, context.config.memory.ttl)?,
            codec: Codec::new(std::sync::Arc::clone(&context.clock)),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// The client underneath.
    #[must_use]
    pub fn client(&self) -> &RedisClient {
        self.commands.client()
    }
}

#[async_trait]
impl Component for RedisMemoryManager {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("memory")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.client().health_check(deadline).await
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for RedisMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.validate()?;
        let empty = Map::new();
        let metadata = input.metadata.as_ref().unwrap_or(&empty);
        let json = self.codec.encode(input.last_data("store")?, metadata)?;
        let key = input.key();
        self.commands.store(&key, json).await?;
        Ok(key)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.validate()?;
        let json = self.commands.read(&input.key()).await?;
        if json.is_empty() {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(Vec::new());
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(vec![self.codec.text(&json)?])
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        input.validate()?;
        let memory = input.last_data("update")?;
        let updated = update(&self.commands, &self.codec, &input.key(), memory).await?;
        if updated.is_none() {
            warn_missing(&input);
        }
        Ok(())
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.validate()?;
        self.commands.delete(&input.key()).await.map(|_| ())
    }

    fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        stats.hits = self.hits.load(Ordering::Relaxed);
        stats.misses = self.misses.load(Ordering::Relaxed);
        stats
    }

    fn capabilities(&self) -> MemoryCapabilities {
        MemoryCapabilities::default().update_renews_ttl(true)
    }
}

/// Replaces the text of an entry, reading anew as long as others write it too; the entry, or `None` if there is
/// none.
pub(super) async fn update(
    commands: &Commands,
    codec: &Codec,
    key: &str,
    memory: &WorkingMemory,
) -> Result<Option<()>> {
    let began = Instant::now();
    loop {
        let held = commands.read(key).await?;
        if held.is_empty() {
            return Ok(None);
        }
        let json = codec.with_text(&held, memory)?;
        match commands.replace(key, &held, json).await? {
            Replaced::Done => return Ok(Some(())),
            Replaced::Gone => return Ok(None),
            Replaced::Changed if began.elapsed() < commands.client().command_timeout() => {}
            Replaced::Changed => {
                let message = "others write this conversation all the time; the update was not made";
                return Err(Error::new(ErrorKind::Timeout, NAME_IN_ERRORS, message));
            }
        }
    }
}

pub(super) fn warn_missing(input: &MemoryInput) {
    tracing::warn!(memory_type = %input.memory_type, "No existing data found to update; nothing changed");
}

pub(super) fn no_limits() -> Error {
    let message = "entries and bytes are bounded by Redis itself (maxmemory), not from here";
    Error::new(ErrorKind::Unsupported, NAME_IN_ERRORS, message)
}

impl fmt::Debug for RedisMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisMemoryManager").field("client", self.client()).finish_non_exhaustive()
    }
}
