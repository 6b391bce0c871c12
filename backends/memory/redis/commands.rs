//! The Redis commands of entries.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::{KeysInterface, LuaInterface};
use fred::types::{Expiration, SetOptions, Value};

use super::COMPONENT;
use crate::backends::redis::{Idempotency, IntegerReply, RedisClient, WrittenReply, fred};
use crate::memory::CasOutcome;
use crate::{Deadline, Error, ErrorKind, Result};

/// Turns an entry into its replacement; `None` leaves it unchanged.
pub(super) type EditEntry<'a> = &'a (dyn Fn(&[u8]) -> Result<Option<Bytes>> + Send + Sync);

/// How entries are read and written.
#[async_trait]
pub(super) trait EntryCommands: fmt::Debug + Send + Sync {
    fn client(&self) -> &RedisClient;

    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Stores an entry and starts its TTL.
    async fn set(&self, key: &str, entry: Bytes) -> Result<()>;

    /// Stores an entry only if there is none.
    async fn create(&self, key: &str, entry: Bytes) -> Result<bool>;

    /// Replaces an entry and restarts its TTL; a conflict if `edit` leaves it unchanged.
    async fn update(&self, key: &str, edit: EditEntry<'_>) -> Result<CasOutcome>;

    async fn delete(&self, key: &str) -> Result<()>;
}

/// Replaces an entry if it is still the expected one: 0 it is missing, 1 it differs, 2 it was replaced.
const COMPARE_AND_SET: &str = "\
local entry = redis.call('GET', KEYS[1])
if not entry then return 0 end
if entry ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 2";

/// Commands on the shared connection; `update` compares and sets.
#[derive(Debug)]
pub(super) struct SharedCommands {
    pub(super) client: RedisClient,
    pub(super) ttl_seconds: i64,
}

#[async_trait]
impl EntryCommands for SharedCommands {
    fn client(&self) -> &RedisClient {
        &self.client
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.read(key, self.client.deadline()).await
    }

    async fn set(&self, key: &str, entry: Bytes) -> Result<()> {
        let ttl = std::time::Duration::from_secs(self.ttl_seconds.unsigned_abs());
        self.client.set_key(key, entry, Some(ttl)).await
    }

    async fn create(&self, key: &str, entry: Bytes) -> Result<bool> {
        self.client.check_size(entry.len())?;
        let bytes = key.len() + entry.len();
        let expire = Some(Expiration::EX(self.ttl_seconds));
        let WrittenReply(created) = self
            .client
            .command("SET", Idempotency::NonIdempotent, self.client.deadline(), bytes, |redis| {
                let (entry, expire) = (entry.clone(), expire.clone());
                async move { redis.set(key, entry, expire, Some(SetOptions::NX), false).await }
            })
            .await?;
        Ok(created)
    }

    /// Reads, edits and compares until no other process has written in between; one deadline covers all of it.
    async fn update(&self, key: &str, edit: EditEntry<'_>) -> Result<CasOutcome> {
        let deadline = self.client.deadline();
        loop {
            let Some(entry) = self.read(key, deadline).await? else { return Ok(CasOutcome::Missing) };
            let Some(replacement) = edit(&entry)? else { return Ok(CasOutcome::Conflict) };
            match self.compare_and_set(key, entry, replacement, deadline).await? {
                CasOutcome::Conflict if deadline.has_passed() => {
                    let message = "update gave up: too many concurrent writes to this conversation";
                    return Err(Error::new(ErrorKind::Timeout, COMPONENT, message).not_sent());
                }
                CasOutcome::Conflict => {}
                outcome => return Ok(outcome),
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.client.delete_key(key).await.map(|_| ())
    }
}

impl SharedCommands {
    async fn read(&self, key: &str, deadline: Deadline) -> Result<Option<Bytes>> {
        let entry = self.client.get_bytes(key, deadline).await?;
        Ok((!entry.is_empty()).then_some(entry))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Bytes,
        replacement: Bytes,
        deadline: Deadline,
    ) -> Result<CasOutcome> {
        self.client.check_size(replacement.len())?;
        let bytes = key.len() + expected.len() + replacement.len();
        let arguments =
            [Value::Bytes(expected), Value::Bytes(replacement), Value::Integer(self.ttl_seconds)].to_vec();
        // The whole script travels each time: it is short, and no server can lack it.
        let IntegerReply(outcome) = self
            .client
            .command("EVAL", Idempotency::NonIdempotent, deadline, bytes, |redis| {
                let arguments = arguments.clone();
                async move { redis.eval(COMPARE_AND_SET, key, arguments).await }
            })
            .await?;
        Ok(match outcome {
            0 => CasOutcome::Missing,
            1 => CasOutcome::Conflict,
            _ => CasOutcome::Updated,
        })
    }
}
