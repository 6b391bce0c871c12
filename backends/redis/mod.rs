//! The pooled Redis client.
//!
//! [`RedisClient`] sends ordinary commands over a few shared, pipelined connections and hands out connections
//! of one's own for transactions and blocking commands. Both kinds come from one
//! [`ConnectionPool`](crate::pool::ConnectionPool), so together they are never more than
//! `pool.max_connections`.

mod client;
mod connection;
mod errors;
mod lane;
mod link;
mod pending;
mod settings;
mod shared;
mod value;

pub use client::{Effect, RedisClient, RedisStats};
pub use connection::RedisConnection;
/// The client library underneath, for whatever [`RedisClient`] has no method for.
pub use fred;
pub(crate) use lane::Prepare;
pub use value::RedisValue;

/// The part of arshai that errors name.
pub(crate) const COMPONENT: &str = "redis";
