//! A Redis client over one multiplexed connection and a pool.
//!
//! [`RedisClient`] sends the commands of all callers over one shared, pipelined connection and hands out dedicated
//! connections for transactions and blocking commands. Both kinds come from one
//! [`ConnectionPool`](crate::pool::ConnectionPool), so together they never exceed `pool.max_connections`.

mod client;
mod connection;
mod connection_manager;
mod errors;
mod fred_connection;
mod in_flight;
mod multiplexed;
mod replies;
mod settings;
mod value;

pub use client::{Idempotency, RedisClient, RedisStats};
pub use connection::RedisConnection;
/// The underlying client library, for commands that [`RedisClient`] has no method for.
pub use fred;
pub use value::RedisValue;

pub(crate) use replies::{IntegerReply, WrittenReply};

use crate::{Arshai, Result};

/// Redis for a runtime.
pub trait RedisExt {
    /// The runtime's client, which memory in Redis uses too. Nothing connects before it is needed.
    ///
    /// ```no_run
    /// # async fn example(runtime: arshai::Arshai) -> arshai::Result<()> {
    /// use arshai::backends::redis::RedisExt as _;
    ///
    /// runtime.redis()?.set_key("greeting", "hello", None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`RedisClient::from_context`].
    fn redis(&self) -> Result<RedisClient>;
}

impl RedisExt for Arshai {
    fn redis(&self) -> Result<RedisClient> {
        RedisClient::from_context(self.context())
    }
}

/// The component that errors name.
pub(crate) const COMPONENT: &str = "redis";
