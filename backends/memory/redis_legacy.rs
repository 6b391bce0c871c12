//! Conversation memory in Redis as Python arshai keeps it: the twin that a rollback flag brings back.

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::KeysInterface;
use fred::types::Expiration;
use serde_json::Map;

use super::redis::{Codec, no_limits, warn_missing};
use crate::backends::redis::{RedisClient, fred};
use crate::memory::{MemoryCapabilities, MemoryInput, MemoryManager, MemoryStats, WorkingMemory};
use crate::{BuildContext, Deadline, Health, Result};

/// The name that `memory.backend` chooses this backend by.
pub const NAME: &str = "redis_legacy";

/// Conversation memory in Redis as before: a connection for every operation under way, as many as there are
/// callers, without deadlines or retries; `update` reads and then writes, and what others wrote in between is
/// lost. Keys and JSON are those of [`RedisMemoryManager`](super::RedisMemoryManager).
pub struct LegacyRedisMemoryManager {
    client: RedisClient,
    codec: Codec,
    ttl: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl LegacyRedisMemoryManager {
    /// The manager that a configuration describes. Nothing connects before it is used.
    ///
    /// # Errors
    /// As [`RedisClient::from_context`].
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Ok(Self {
            client: RedisClient::from_context(context)?,
            codec: Codec::new(Arc::clone(&context.clock)),
            ttl: Duration::from_secs(context.config.memory.ttl.as_secs().max(1)),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    async fn on_a_connection<T, F, Fut>(&self, work: F) -> Result<T>
    where
        F: FnOnce(Client) -> Fut + Send,
        Fut: Future<Output = Result<T, FredError>> + Send,
    {
        let never = Deadline::after(Duration::MAX);
        self.client.connection(never).await?.run(never, work).await
    }

    async fn get(&self, key: String) -> Result<Bytes> {
        let held: Option<Bytes> = self.on_a_connection(|redis| async move { redis.get(key).await }).await?;
        Ok(held.unwrap_or_default())
    }

    async fn set(&self, key: String, json: Bytes) -> Result<()> {
        let expire = Expiration::EX(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX));
        self.on_a_connection(|redis| async move { redis.set(key, json, Some(expire), None, false).await })
            .await
    }
}

#[async_trait]
impl Component for LegacyRedisMemoryManager {
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
        self.client.health_check(deadline).await
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl MemoryManager for LegacyRedisMemoryManager {
    async fn store(&self, input: MemoryInput) -> Result<String> {
        input.validate()?;
        let empty = Map::new();
        let metadata = input.metadata.as_ref().unwrap_or(&empty);
        let json = self.codec.encode(input.last_data("store")?, metadata)?;
        self.set(input.key(), json).await?;
        Ok(input.key())
    }

    async fn retrieve(&self, input: &MemoryInput) -> Result<Vec<WorkingMemory>> {
        input.validate()?;
        let json = self.get(input.key()).await?;
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
        let held = self.get(input.key()).await?;
        if held.is_empty() {
            warn_missing(&input);
            return Ok(());
        }
        let json = self.codec.with_text(&held, memory)?;
        self.set(input.key(), json).await
    }

    async fn delete(&self, input: &MemoryInput) -> Result<()> {
        input.validate()?;
        let key = input.key();
        self.on_a_connection(|redis| async move { redis.del::<i64, _>(key).await }).await.map(|_| ())
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

impl fmt::Debug for LegacyRedisMemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LegacyRedisMemoryManager").field("client", &self.client).finish_non_exhaustive()
    }
}
