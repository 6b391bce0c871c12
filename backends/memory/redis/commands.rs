//! What is asked of Redis for one entry.

use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::LuaInterface;
use fred::types::Value;

use crate::backends::redis::{Effect, RedisClient, fred};
use crate::{Error, ErrorKind, Result};

use super::NAME_IN_ERRORS;

// Where a connection is told of changes to what it has read, a write of its own ends that: so scripts that write
// read a byte afterwards.

/// Replaces an entry if it is still the one that was read: 0 it is gone, 1 it is another, 2 it was replaced.
const REPLACE: &str = "\
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
if held ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('GETRANGE', KEYS[1], 0, 0)
return 2";

/// Stores an entry.
const STORE: &str = "\
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('GETRANGE', KEYS[1], 0, 0)
return 1";

/// Reads an entry and how long it has to live, in milliseconds; below zero it lives for ever.
const READ: &str = "\
return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1]), redis.call('PTTL', KEYS[1])}";

/// The commands of entries that live for `ttl`.
#[derive(Debug)]
pub(in crate::backends::memory) struct Commands {
    client: RedisClient,
    ttl: Duration,
}

/// What came of replacing an entry.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::backends::memory) enum Replaced {
    /// It is no longer there.
    Gone,
    /// Someone else has written it since it was read.
    Changed,
    /// It was replaced.
    Done,
}

impl Commands {
    /// # Errors
    /// [`ErrorKind::Config`] for a time to live below a second: Redis counts these in whole seconds.
    pub(in crate::backends::memory) fn new(client: RedisClient, ttl: Duration) -> Result<Self> {
        if ttl.as_secs() == 0 {
            let message = "memory.ttl is below a second; Redis keeps entries for whole seconds";
            return Err(Error::new(ErrorKind::Config, NAME_IN_ERRORS, message));
        }
        Ok(Self { client, ttl: Duration::from_secs(ttl.as_secs()) })
    }

    pub(in crate::backends::memory) fn client(&self) -> &RedisClient {
        &self.client
    }

    /// The entry; empty if there is none.
    pub(in crate::backends::memory) async fn read(&self, key: &str) -> Result<Bytes> {
        self.client.get_bytes(key).await
    }

    pub(in crate::backends::memory) async fn store(&self, key: &str, json: Bytes) -> Result<()> {
        self.client.set_key(key, json, Some(self.ttl)).await
    }

    /// Stores the entry; a connection that is told of changes is told of every later one.
    pub(in crate::backends::memory) async fn store_and_track(&self, key: &str, json: Bytes) -> Result<()> {
        self.client.check_size(json.len())?;
        let bytes = key.len() + json.len();
        let arguments = [Value::Bytes(json), Value::Integer(self.seconds())];
        self.eval::<i64>(STORE, Effect::Write, key, bytes, arguments.into()).await.map(|_| ())
    }

    /// The entry and how long it has to live.
    pub(in crate::backends::memory) async fn read_with_ttl(
        &self,
        key: &str,
    ) -> Result<Option<(Bytes, Duration)>> {
        let most = Value::Integer(i64::try_from(self.client.max_value_bytes()).unwrap_or(i64::MAX));
        let (json, left) = self.eval::<(Bytes, i64)>(READ, Effect::Read, key, key.len(), vec![most]).await?;
        self.client.check_size(json.len())?;
        let left = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
        Ok((!json.is_empty()).then_some((json, left)))
    }

    pub(in crate::backends::memory) async fn delete(&self, key: &str) -> Result<bool> {
        self.client.delete_key(key).await
    }

    pub(in crate::backends::memory) async fn replace(
        &self,
        key: &str,
        held: &Bytes,
        json: Bytes,
    ) -> Result<Replaced> {
        self.client.check_size(json.len())?;
        let bytes = key.len() + held.len() + json.len();
        let arguments = [Value::Bytes(held.clone()), Value::Bytes(json), Value::Integer(self.seconds())];
        match self.eval::<i64>(REPLACE, Effect::Write, key, bytes, arguments.into()).await? {
            0 => Ok(Replaced::Gone),
            1 => Ok(Replaced::Changed),
            _ => Ok(Replaced::Done),
        }
    }

    /// Scripts travel whole: 300 bytes at most, and no server ever lacks one.
    async fn eval<T: fred::types::FromValue>(
        &self,
        script: &'static str,
        effect: Effect,
        key: &str,
        bytes: usize,
        arguments: Vec<Value>,
    ) -> Result<T> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.client
            .command("EVAL", effect, &key.clone(), bytes, |redis| {
                let (key, arguments) = (key.clone(), arguments.clone());
                async move { redis.eval(script, key, arguments).await }
            })
            .await
    }

    pub(in crate::backends::memory) fn ttl(&self) -> Duration {
        self.ttl
    }

    fn seconds(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }
}
