//! The legacy commands of entries.

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::{KeysInterface, LuaInterface};
use fred::types::{Expiration, SetOptions, Value};

use super::commands::{COMPARE_AND_SET, EditEntry, EntryCommands, cas_outcome};
use crate::backends::redis::{RedisClient, fred};
use crate::memory::CasOutcome;
use crate::{Deadline, Result};

/// A connection per operation, without deadlines or retries.
#[derive(Debug)]
pub(super) struct LegacyCommands {
    pub(super) client: RedisClient,
    pub(super) ttl_seconds: i64,
}

fn no_deadline() -> Deadline {
    Deadline::after(std::time::Duration::MAX)
}

#[async_trait]
impl EntryCommands for LegacyCommands {
    fn client(&self) -> &RedisClient {
        &self.client
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        connection.run(no_deadline(), |redis| async move { redis.get(key).await }).await
    }

    async fn set(&self, key: &str, entry: Bytes) -> Result<()> {
        let (key, expire) = (key.to_owned(), Expiration::EX(self.ttl_seconds));
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        connection
            .run(no_deadline(), |redis| async move { redis.set(key, entry, Some(expire), None, false).await })
            .await
    }

    async fn create(&self, key: &str, entry: Bytes) -> Result<bool> {
        let (key, expire, absent) = (key.to_owned(), Expiration::EX(self.ttl_seconds), SetOptions::NX);
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        let reply: Option<String> = connection
            .run(no_deadline(), |redis| async move {
                redis.set(key, entry, Some(expire), Some(absent), false).await
            })
            .await?;
        Ok(reply.is_some())
    }

    async fn update(&self, key: &str, edit: EditEntry<'_>) -> Result<CasOutcome> {
        loop {
            let Some(entry) = self.get(key).await? else { return Ok(CasOutcome::Missing) };
            let Some(replacement) = edit(&entry)? else { return Ok(CasOutcome::Conflict) };
            let (key, ttl) = (key.to_owned(), Value::Integer(self.ttl_seconds));
            let arguments = vec![Value::Bytes(entry), Value::Bytes(replacement), ttl];
            let mut connection = self.client.dedicated_connection(no_deadline()).await?;
            let reply = connection
                .run(no_deadline(), |redis| async move { redis.eval(COMPARE_AND_SET, key, arguments).await })
                .await?;
            let outcome = cas_outcome(reply);
            if outcome != CasOutcome::Conflict {
                return Ok(outcome);
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        connection.run(no_deadline(), |redis| async move { redis.del(key).await }).await
    }
}
