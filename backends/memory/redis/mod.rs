//! Conversation memory in Redis, shared with other processes and with Python arshai.

mod codec;
mod commands;
mod legacy;
mod python_json;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::{Map, Value};

use codec::Codec;
use commands::{EntryCommands, SharedCommands};
use legacy::LegacyCommands;

use crate::backends::redis::RedisClient;
use crate::memory::{CasOutcome, MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, WorkingMemory};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result,
    ShutdownPhase, support,
};

const COMPONENT: &str = "memory.redis";

/// Conversation memory in Redis (Python: `RedisWorkingMemoryManager`): the same keys and the same JSON, so that
/// Rust and Python services can share one server.
///
/// # Contract
/// That of [`MemoryManager`], and:
/// - **Format.** `SET memory:<TYPE>:<id> <json> EX <ttl>`, the JSON with `data.working_memory`, `metadata`,
///   `created_at` and `last_update`, local times without offset. `update` keeps unknown fields byte for byte.
/// - **Time.** Entries expire after the TTL in whole seconds, counted by Redis from the last `store` or `update`.
/// - **Atomicity.** `update` compares and sets: it cannot restore an entry that was deleted concurrently or lose what
///   another process wrote beside the text.
/// - **Limits, deadlines, failures.** Those of [`RedisClient`], one deadline per operation. A write whose connection
///   was lost is not sent again; its error has [`Outcome::Unknown`](crate::Outcome::Unknown).
/// - **Invalid values.** A key that holds another type, or a value that is not an entry, is
///   [`ErrorKind::Corrupt`] for that conversation only; `store` and `delete` repair it.
#[derive(Debug)]
pub struct RedisMemoryManager {
    commands: Box<dyn EntryCommands>,
    codec: Codec,
    closed: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl RedisMemoryManager {
    /// The value of `memory.backend` that selects this backend.
    pub const NAME: &'static str = "redis";
    /// The value of `memory.backend` that selects the [legacy commands](Self::legacy).
    pub const LEGACY_NAME: &'static str = "redis_legacy";

    /// Builds a manager and its client from the configuration. Nothing connects before it is used.
    ///
    /// # Errors
    /// As [`RedisClient::from_context`]; [`ErrorKind::Config`] for a TTL below a second.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Self::new(RedisClient::from_context(context)?, context)
    }

    /// Builds a manager over a client that others may use too, with the TTL and the clock of `context`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a TTL below a second.
    pub fn new(client: RedisClient, context: &BuildContext) -> Result<Self> {
        let ttl_seconds = ttl_seconds(context)?;
        Ok(Self::with_commands(Box::new(SharedCommands { client, ttl_seconds }), context))
    }

    /// Builds a manager with the legacy commands: a connection per operation, without deadlines or retries. Keys and
    /// JSON are the same.
    ///
    /// # Errors
    /// As [`from_context`](Self::from_context).
    pub fn legacy(context: &BuildContext) -> Result<Self> {
        let client = RedisClient::from_context(context)?;
        let ttl_seconds = ttl_seconds(context)?;
        Ok(Self::with_commands(Box::new(LegacyCommands { client, ttl_seconds }), context))
    }

    fn with_commands(commands: Box<dyn EntryCommands>, context: &BuildContext) -> Self {
        let codec = Codec::new(Arc::clone(&context.clock));
        Self {
            commands,
            codec,
            closed: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    fn validate(&self, input: &MemoryInput) -> Result<()> {
        input.validate()?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::new(ErrorKind::Closed, COMPONENT, "closed")),
            false => Ok(()),
        }
    }

    /// The underlying client.
    #[must_use]
    pub fn client(&self) -> &RedisClient {
        self.commands.client()
    }
}

fn ttl_seconds(context: &BuildContext) -> Result<i64> {
    match context.config.memory.ttl.as_secs() {
        0 => Err(Error::new(ErrorKind::Config, COMPONENT, "memory.ttl must be at least 1 s with Redis")),
        seconds => Ok(i64::try_from(seconds).unwrap_or(i64::MAX)),
    }
}

#[async_trait]
impl Component for RedisMemoryManager {
    fn name(&self) -> Cow<'_, str> {
        "memory".into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Stores
    }

    /// None here: Redis limits entries and bytes by its own `maxmemory`.
    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    fn counters(&self) -> Value {
        support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.client().health_check(deadline).await
    }

    /// Only rejects further operations: entries are in Redis, and the client is a separate component.
    async fn close(&self, _: Deadline) -> CloseReport {
        self.closed.store(true, Ordering::Release);
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for RedisMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        self.validate(&input)?;
        let empty = Map::new();
        let metadata = input.metadata.as_ref().unwrap_or(&empty);
        let entry = self.codec.encode(input.last_data("store")?, metadata)?;
        let key = input.key();
        self.commands.set(&key, entry).await?;
        Ok(key)
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        self.validate(input)?;
        let Some(entry) = self.commands.get(&input.key()).await? else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return Ok(Vec::new());
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        Ok(vec![self.codec.decode_text(&entry)?])
    }

    async fn update(&self, input: MemoryInput) -> Result<()> {
        self.validate(&input)?;
        let memory = input.last_data("update")?;
        let replace_text = |entry: &[u8]| self.codec.replace_text(entry, memory).map(Some);
        if self.commands.update(&input.key(), &replace_text).await? == CasOutcome::Missing {
            super::warn_entry_missing(&input);
        }
        Ok(())
    }

    async fn compare_and_set(
        &self,
        input: MemoryInput,
        expected: Option<&WorkingMemory>,
    ) -> Result<CasOutcome> {
        self.validate(&input)?;
        let memory = input.last_data("update")?;
        let Some(expected) = expected else {
            let entry = self.codec.encode(memory, &input.metadata.clone().unwrap_or_default())?;
            let created = self.commands.create(&input.key(), entry).await?;
            return Ok(if created { CasOutcome::Updated } else { CasOutcome::Conflict });
        };
        let replace_expected = |entry: &[u8]| match self.codec.decode_text(entry)? == *expected {
            true => self.codec.replace_text(entry, memory).map(Some),
            false => Ok(None),
        };
        self.commands.update(&input.key(), &replace_expected).await
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        self.validate(input)?;
        self.commands.delete(&input.key()).await
    }

    /// Nothing to do: Redis has every acknowledged write.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        stats.hits = self.hits.load(Ordering::Relaxed);
        stats.misses = self.misses.load(Ordering::Relaxed);
        stats
    }

    fn capabilities(&self) -> MemoryCapabilities {
        let mut capabilities = MemoryCapabilities::default();
        capabilities.update_renews_ttl = true;
        capabilities
    }
}
