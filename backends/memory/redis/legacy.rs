//! The legacy commands of entries.

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{KeysInterface, TransactionInterface};
use fred::types::{Expiration, SetOptions, Value};

use super::commands::{EditEntry, EntryCommands};
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

    /// An optimistic transaction: `WATCH`, read, `MULTI`, write, `EXEC`.
    async fn update(&self, key: &str, edit: EditEntry<'_>) -> Result<CasOutcome> {
        loop {
            let mut connection = self.client.dedicated_connection(no_deadline()).await?;
            let watched = key.to_owned();
            let read = |redis: Client| async move {
                redis.watch(&watched).await?;
                redis.get(watched).await
            };
            let entry: Option<Bytes> = connection.run(no_deadline(), read).await?;
            // A connection that still watches the key is not returned to the pool.
            let Some(entry) = entry else {
                connection.discard();
                return Ok(CasOutcome::Missing);
            };
            let replacement = match edit(&entry) {
                Ok(Some(replacement)) => replacement,
                unchanged => {
                    connection.discard();
                    return unchanged.map(|_| CasOutcome::Conflict);
                }
            };
            let (key, expire) = (key.to_owned(), Expiration::EX(self.ttl_seconds));
            let write = |redis: Client| async move {
                let transaction = redis.multi();
                let () = transaction.set(key, replacement, Some(expire), None, false).await?;
                transaction.exec(true).await
            };
            let reply: Value = connection.run(no_deadline(), write).await?;
            if !reply.is_null() {
                return Ok(CasOutcome::Updated);
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        connection.run(no_deadline(), |redis| async move { redis.del(key).await }).await
    }
}
