//! What is asked of Redis for one entry.

use std::time::Duration;

use bytes::Bytes;
use fred::interfaces::LuaInterface;
use fred::types::Value;

use crate::backends::redis::{Effect, RedisClient, fred};
use crate::{Error, ErrorKind, Result};

use super::NAME_IN_ERRORS;

/// Replaces an entry if it is still the one that was read: 0 it is gone, 1 it is another, 2 it was replaced.
/// Reading a byte of it afterwards lets a connection that tracks keys go on tracking this one.
const REPLACE: &str = "\
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
if held ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('GETRANGE', KEYS[1], 0, 0)
return 2";

/// Stores an entry and lets the connection track it.
const STORE_TRACKED: &str = "\
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('GETRANGE', KEYS[1], 0, 0)
return 1";

/// Reads an entry, no more of it than the bound, and how many milliseconds it has left.
const READ_TRACKED: &str = "return {redis.call('GETRANGE', KEYS[1], 0, ARGV[1]), redis.call('PTTL', KEYS[1])}";

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

    pub(in crate::backends::memory) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The entry; empty if there is none.
    pub(in crate::backends::memory) async fn read(&self, key: &str) -> Result<Bytes> {
        self.client.get_bytes(key).await
    }

    pub(in crate::backends::memory) async fn store(&self, key: &str, json: Bytes) -> Result<()> {
        self.client.set_key(key, json, Some(self.ttl)).await
    }

    pub(in crate::backends::memory) async fn delete(&self, key: &str) -> Result<bool> {
        self.client.delete_key(key).await
    }

    pub(in crate::backends::memory) async fn replace(&self, key: &str, held: &Bytes, json: Bytes) -> Result<Replaced> {
        self.client.check_size(json.len())?;
        let bytes = key.len() + held.len() + json.len();
        let arguments = [Value::Bytes(held.clone()), Value::Bytes(json), Value::Integer(self.seconds())];
        match self.eval::<i64>(REPLACE, Effect::Write, key, bytes, arguments.into()).await? {
            0 => Ok(Replaced::Gone),
            1 => Ok(Replaced::Changed),
            _ => Ok(Replaced::Done),
        }
    }

    /// As [`read`](Self::read), with how long the entry still lives, on a connection that tracks what it reads.
    pub(in crate::backends::memory) async fn read_tracked(&self, key: &str) -> Result<(Bytes, Duration)> {
        let most = self.client.max_value_bytes();
        let arguments = vec![Value::Integer(i64::try_from(most).unwrap_or(i64::MAX))];
        let (json, left): (Bytes, i64) = self.eval(READ_TRACKED, Effect::Read, key, 0, arguments).await?;
        self.client.check_size(json.len())?;
        // Below zero: it lives for ever (-1), or is not there (-2), and then the time does not matter.
        let left = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
        Ok((json, left))
    }

    /// As [`store`](Self::store), on a connection that tracks what it reads.
    pub(in crate::backends::memory) async fn store_tracked(&self, key: &str, json: Bytes) -> Result<()> {
        self.client.check_size(json.len())?;
        let bytes = key.len() + json.len();
        let arguments = vec![Value::Bytes(json), Value::Integer(self.seconds())];
        self.eval::<i64>(STORE_TRACKED, Effect::Write, key, bytes, arguments).await.map(|_| ())
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

    fn seconds(&self) -> i64 {
        i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)
    }
}
