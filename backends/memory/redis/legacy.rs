//! The legacy commands of entries.

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::KeysInterface;
use fred::types::Expiration;

use super::commands::{EditEntry, EntryCommands};
use crate::backends::redis::{RedisClient, fred};
use crate::{Deadline, Result};

/// A connection per operation, without deadlines or retries. `update` reads and then writes: what another process
/// writes in between is lost.
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

    async fn update(&self, key: &str, edit: EditEntry<'_>) -> Result<bool> {
        match self.get(key).await? {
            Some(entry) => self.set(key, edit(&entry)?).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        let mut connection = self.client.dedicated_connection(no_deadline()).await?;
        connection.run(no_deadline(), |redis| async move { redis.del(key).await }).await
    }
}
