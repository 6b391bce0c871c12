//! The client.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::Expiration;
use serde::Serialize;
use serde_json::Value;
use tracing::Instrument;

use super::connection::RedisConnection;
use super::connection_manager::ConnectionManager;
use super::errors::from_fred;
use super::fred_connection::RedisConnector;
use super::in_flight::{InFlightGuard, InFlightLimit};
use super::replies::{BytesReply, IntegerReply, WrittenReply};
use super::settings::Settings;
use super::value::RedisValue;
use super::{COMPONENT, fred};
use crate::pool::{ConnectionPool, PoolSettings, PoolStats};
use crate::support::{self, Backoff};
use crate::{
    BuildContext, CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Outcome, Result,
    ShutdownPhase,
};

/// Attempts per command, including the first.
const MAX_ATTEMPTS: u32 = 4;
/// A value of up to this size is read at once. Commands in flight may hold as much each.
const FIRST_READ_BYTES: usize = 4 << 10;
/// How much more of a larger value is asked for, each time.
const READ_GROWTH: usize = 8;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));

/// Whether a command may safely be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idempotency {
    /// Sending it twice has the same effect as sending it once, as for every read. It is sent again when its
    /// connection breaks.
    Idempotent,
    /// It is sent again only after an error that proves that it had no effect.
    NonIdempotent,
}

use Idempotency::{Idempotent, NonIdempotent};

/// A pooled Redis client (Python: `RedisClient`).
///
/// # Contract
/// - **Connections.** The commands of all callers travel over one pipelined connection;
///   [`dedicated_connection`](Self::dedicated_connection) hands out others. Together they never exceed
///   `pool.max_connections`, to each server. Nothing connects before it is needed.
/// - **Deadlines.** Every command ends by `redis.command_timeout`, including waiting and reconnecting.
/// - **Limits.** At most `redis.max_pending_commands` commands of at most `redis.max_pending_bytes` bytes, what they read
///   included, are in flight;
///   further commands fail immediately with [`ErrorKind::Capacity`]. No value larger than `redis.max_value_bytes` is
///   written, or read into memory.
/// - **Failures.** A connection that breaks, or receives no response for as long as a command may take, is replaced,
///   with a backoff from 50 ms to 1 s. [`Error::outcome`] says what is known about a failed command:
///   [`Outcome::NotSent`]; [`Outcome::Rejected`] when Redis replied with an error; otherwise [`Outcome::Unknown`]: it
///   may have taken effect. Commands are retried while Redis is unavailable or the connection was lost, but a
///   non-idempotent one only if its outcome is known.
/// - **Cancellation.** Dropping a future stops waiting; a command already sent may still take effect. Its response is
///   never delivered to another caller.
/// - **Closing** closes the connections. Every later command fails with [`ErrorKind::Closed`].
///
/// Cloning returns another handle to the same client. Dropping the last one closes its connections.
#[derive(Debug, Clone)]
pub struct RedisClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Arc<dyn ConnectionPool>,
    shared: ConnectionManager,
    in_flight: Arc<InFlightLimit>,
    command_timeout: Duration,
    max_value_bytes: usize,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    commands: AtomicU64,
    errors: AtomicU64,
    retries: AtomicU64,
}

/// Statistics of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RedisStats {
    /// Its connections.
    pub pool: PoolStats,
    /// Commands that completed, successfully or not.
    pub commands: u64,
    /// Commands that failed.
    pub errors: u64,
    /// Commands that were sent again.
    pub retries: u64,
}

impl RedisClient {
    /// The client of the runtime that `context` belongs to: the first call builds it from the configuration and
    /// registers it as a component, and all others share it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an invalid URL, without echoing it; [`ErrorKind::UnknownBackend`] for an unknown
    /// pool.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        context.get_or_register(|| Self::build(context)).map(|client| Self::clone(&client))
    }

    fn build(context: &BuildContext) -> Result<Self> {
        let redis = &context.config.redis;
        let mut pool = PoolSettings::new(COMPONENT, &context.config.pool);
        // Connecting is part of a command.
        pool.connect_timeout = redis.connect_timeout.min(redis.command_timeout);
        let connector = RedisConnector::new(Settings::new(&context.config)?);
        let pool = context.build_pool(Arc::new(connector), pool)?;
        Ok(Self(Arc::new(Inner {
            shared: ConnectionManager::new(Arc::clone(&pool), redis.command_timeout),
            pool,
            in_flight: InFlightLimit::new(redis.max_pending_commands, redis.max_pending_bytes),
            command_timeout: redis.command_timeout,
            max_value_bytes: redis.max_value_bytes,
            counters: Counters::default(),
        })))
    }

    /// Sets a key, with an expiry if `expire` is given (Python: `set_key`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an `expire` below a millisecond, [`ErrorKind::TooLarge`] for a value of more than
    /// `redis.max_value_bytes`, and as [`run`](Self::run).
    pub async fn set_key(&self, key: &str, value: impl Into<Bytes>, expire: Option<Duration>) -> Result<()> {
        let value = value.into();
        let expire = expire.map(expiration).transpose()?;
        self.check_size(value.len())?;
        let bytes = key.len() + value.len();
        self.command("SET", NonIdempotent, self.deadline(), bytes, |redis| {
            let (value, expire) = (value.clone(), expire.clone());
            async move { redis.set::<WrittenReply, _, _>(key, value, expire, None, false).await }
        })
        .await
        .map(|_| ())
    }

    /// The value of a key; `None` if it does not exist (Python: `get_key`).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a key of another type (list, hash, …), [`ErrorKind::TooLarge`] for a value of more
    /// than `redis.max_value_bytes`, and as [`run`](Self::run).
    pub async fn get_key(&self, key: &str) -> Result<Option<RedisValue>> {
        let deadline = self.deadline();
        let bytes = self.get_bytes(key, deadline).await?;
        if !bytes.is_empty() {
            return Ok(Some(RedisValue::parse(bytes)));
        }
        // GETRANGE answers the same for an empty value and a missing key.
        let IntegerReply(exists) =
            self.command("EXISTS", Idempotent, deadline, key.len(), |redis| async move {
                redis.exists(key).await
            })
            .await?;
        Ok((exists > 0).then(|| RedisValue::parse(bytes)))
    }

    /// The bytes of a key, empty if it does not exist. At most one byte more than the limit is read, however large the
    /// value is, and what may arrive counts as in flight: a value is read again with a greater limit until it fits.
    pub(crate) async fn get_bytes(&self, key: &str, deadline: Deadline) -> Result<Bytes> {
        let max = self.0.max_value_bytes;
        let mut limit = FIRST_READ_BYTES.min(max);
        loop {
            let BytesReply(bytes) = self
                .command("GETRANGE", Idempotent, deadline, key.len() + limit, |redis| async move {
                    redis.getrange(key, 0, limit).await
                })
                .await?;
            if bytes.len() <= limit || limit == max {
                self.check_size(bytes.len())?;
                return Ok(bytes);
            }
            limit = limit.saturating_mul(READ_GROWTH).min(max);
        }
    }

    /// Deletes a key; returns whether it existed.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn delete_key(&self, key: &str) -> Result<bool> {
        self.command("DEL", NonIdempotent, self.deadline(), key.len(), |redis| async move {
            redis.del::<IntegerReply, _>(key).await
        })
        .await
        .map(|IntegerReply(deleted)| deleted > 0)
    }

    /// Runs any other command with fred's own client, on the shared connection (Python: `get_client`). `name` is the
    /// name of the command in errors. `work` should be one non-blocking command: all callers share the connection. A
    /// reply of another type than `T` is [`ErrorKind::Protocol`] and closes the connection, since replies may be out of
    /// step with their commands.
    ///
    /// ```no_run
    /// # async fn example(redis: &arshai::backends::redis::RedisClient) -> arshai::Result<()> {
    /// use arshai::backends::redis::{Idempotency, fred::interfaces::KeysInterface};
    ///
    /// let ttl: i64 = redis.run("TTL", Idempotency::Idempotent, |redis| async move { redis.ttl("key").await }).await?;
    /// # let _ = ttl;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] by `redis.command_timeout`, [`ErrorKind::Capacity`] when too much is in flight or
    /// Redis is full, [`ErrorKind::Unavailable`] when Redis is unreachable or not ready, [`ErrorKind::Transport`] when
    /// the connection was lost, [`ErrorKind::Authentication`], and others by the error reply, whose code is in the
    /// context. A script that writes before it fails is [`Outcome::Rejected`] too.
    pub async fn run<T, F, Fut>(&self, name: &'static str, idempotency: Idempotency, work: F) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        self.command(name, idempotency, self.deadline(), 0, work).await
    }

    /// Runs a command that sends or receives about `bytes` bytes, until `deadline`.
    pub(crate) async fn command<T, F, Fut>(
        &self,
        name: &'static str,
        idempotency: Idempotency,
        deadline: Deadline,
        bytes: usize,
        work: F,
    ) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        let Inner { in_flight, counters, .. } = &*self.0;
        let span = tracing::debug_span!(
            "redis.command",
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = name,
            error.type = tracing::field::Empty,
        );
        let result = match in_flight.try_acquire(bytes) {
            Ok(guard) => {
                let run = self.run_with_retries(name, idempotency, deadline, guard, work);
                run.instrument(span.clone()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            span.record("error.type", tracing::field::debug(error.kind()));
        }
        counters.commands.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn run_with_retries<T, F, Fut>(
        &self,
        name: &'static str,
        idempotency: Idempotency,
        deadline: Deadline,
        guard: InFlightGuard,
        work: F,
    ) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        let mut in_flight = Some(guard);
        let mut attempt = 1;
        loop {
            let connection = self.0.shared.get_or_connect(deadline).await?;
            // fred's futures take 5 kB. Written into its box, this one is not copied, and those around it stay small.
            let command = Box::write(Box::new_uninit(), work(connection.client().clone()));
            let error = match connection.run(deadline, &mut in_flight, Box::into_pin(command)).await {
                Ok(value) => return Ok(value),
                Err(error) => from_fred(&error, name),
            };
            let delay = BACKOFF.delay(attempt);
            if attempt == MAX_ATTEMPTS || !may_retry(&error, idempotency) || deadline.remaining() <= delay {
                return Err(error);
            }
            self.0.counters.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    /// Takes a connection that no other caller uses. Dropping the future takes none.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline, naming the step; [`ErrorKind::Capacity`] when too many callers wait;
    /// [`ErrorKind::Closed`] once closed; errors from connecting. Nothing was sent.
    pub async fn dedicated_connection(&self, deadline: Deadline) -> Result<RedisConnection> {
        self.0.pool.acquire(deadline).await.map(RedisConnection).map_err(Error::not_sent)
    }

    /// Checks that Redis responds by `deadline` (Python: `health_check`). Connects if needed.
    pub async fn health_check(&self, deadline: Deadline) -> Health {
        let deadline = deadline.capped(self.0.command_timeout);
        let ping =
            self.command(
                "PING",
                Idempotent,
                deadline,
                0,
                |redis| async move { redis.ping::<String>(None).await },
            );
        match ping.await {
            Ok(_) => Health::Healthy,
            Err(error) => Health::unhealthy(error.to_string()),
        }
    }

    /// A snapshot of the statistics.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        let Inner { pool, counters, .. } = &*self.0;
        RedisStats {
            pool: pool.stats(),
            commands: counters.commands.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            retries: counters.retries.load(Ordering::Relaxed),
        }
    }

    /// The deadline of a command that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.0.command_timeout)
    }

    pub(crate) fn check_size(&self, bytes: usize) -> Result<()> {
        let max = self.0.max_value_bytes;
        if bytes <= max {
            return Ok(());
        }
        let message = format!("value exceeds redis.max_value_bytes ({max})");
        Err(Error::new(ErrorKind::TooLarge, COMPONENT, message).not_sent())
    }
}

fn may_retry(error: &Error, idempotency: Idempotency) -> bool {
    let had_no_effect = matches!(error.outcome(), Outcome::NotSent | Outcome::Rejected);
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Transport)
        && (had_no_effect || idempotency == Idempotent)
}

fn expiration(expire: Duration) -> Result<Expiration> {
    if expire.subsec_nanos() == 0 && !expire.is_zero() {
        return Ok(Expiration::EX(i64::try_from(expire.as_secs()).unwrap_or(i64::MAX)));
    }
    match i64::try_from(expire.as_millis()) {
        Ok(0) => {
            let message = "expire must be at least 1 ms";
            Err(Error::new(ErrorKind::InvalidInput, COMPONENT, message).not_sent())
        }
        Ok(millis) => Ok(Expiration::PX(millis)),
        Err(_) => Ok(Expiration::PX(i64::MAX)),
    }
}

#[async_trait]
impl Component for RedisClient {
    fn name(&self) -> Cow<'_, str> {
        COMPONENT.into()
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let mut limits = self.0.pool.limits();
        limits.extend(self.0.in_flight.limits());
        limits
    }

    fn counters(&self) -> Value {
        support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.health_check(deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.0.pool.set_limit(key, max)
    }

    /// Closes the shared connection immediately and waits until `deadline` for dedicated ones to be returned.
    async fn close(&self, deadline: Deadline) -> CloseReport {
        self.0.shared.close();
        self.0.pool.close(deadline).await
    }
}
