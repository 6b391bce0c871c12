//! The client that everything about Redis stands on.

use crate::{CloseReport, Component, ShutdownPhase};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::Expiration;
use fred::types::config::Options;
use serde::Serialize;
use tokio::time::Instant;

use super::connection::RedisConnection;
use super::errors::{from_fred, may_pass};
use super::lane::{Lane, Prepare};
use super::link::RedisConnector;
use super::pending::Pending;
use super::settings::Settings;
use super::value::RedisValue;
use super::{COMPONENT, fred};
use crate::pool::{ConnectionPool, PoolCapabilities, PoolSettings, PoolStats, PooledConnection};
use crate::{BuildContext, Deadline, Error, ErrorKind, Health, LimitUsage, Result};

/// How often a command that Redis refused for a passing reason is tried, the first time included.
const ATTEMPTS: u32 = 4;
/// The wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What doing a command twice would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Nothing more than doing it once: it only reads. It is sent again when its connection breaks.
    Read,
    /// Perhaps harm. It is sent again only where it is certain that Redis has not done it.
    Write,
}

/// A pooled Redis client (Python: `RedisClient`).
///
/// # Contract
/// - **Connections.** Commands of all callers travel over `redis.shared_connections` pipelined connections;
///   [`connection`](Self::connection) gives one of one's own. Together they are never more than
///   `pool.max_connections` to each server. Nothing connects before it is needed.
/// - **Deadlines.** Every command ends by `redis.command_timeout`, waiting and reconnecting included.
/// - **Bounds.** At most `redis.max_pending_commands` commands of at most `redis.max_pending_bytes` bytes are under
///   way; one more is refused at once with [`ErrorKind::Capacity`]. No value larger than
///   `redis.max_value_bytes` is written, or read into memory.
/// - **Failures.** A connection that breaks, or that answers nothing for as long as a command may take, is
///   replaced, with waits that double from 50 ms to 1 s, jittered. Reads are then sent again; writes are not,
///   unless Redis said it did not do them: [`ErrorKind::Transport`] and [`ErrorKind::Timeout`] from a write
///   mean that it may or may not have happened.
/// - **Cancellation.** A dropped future stops waiting; a command already sent may still be done. Another
///   caller never gets its answer.
///
/// Cloning gives another handle to the same client. When the last is dropped its connections close.
#[derive(Clone)]
pub struct RedisClient(Arc<Inner>);

struct Inner {
    pool: Arc<dyn ConnectionPool>,
    lanes: Vec<Lane>,
    /// How many of the lanes are used; fewer than there are after the number of connections was lowered.
    lanes_in_use: AtomicUsize,
    pending: Pending,
    command_timeout: Duration,
    max_value_bytes: usize,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    commands: AtomicU64,
    errors: AtomicU64,
    repeated: AtomicU64,
}

/// What a client holds and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RedisStats {
    /// Its connections.
    pub pool: PoolStats,
    /// Commands that ended.
    pub commands: u64,
    /// Those that ended in an error.
    pub errors: u64,
    /// Times a command was sent again.
    pub repeated: u64,
    /// Commands under way, and their bytes.
    pub limits: Vec<LimitUsage>,
}

impl RedisClient {
    /// The client that a configuration describes; the runtime that is being built watches its pool.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that cannot be used, without repeating it;
    /// [`ErrorKind::UnknownBackend`] for a pool that is not there.
    pub fn from_context(context: &BuildContext) -> Result<Self> {
        Self::build(context, Settings::new(&context.config)?, 1, None)
    }

    /// A client whose ordinary commands travel over one connection, which `prepare` readies each time it is made
    /// and on which Redis can send more than answers. `component` is who needs that, for errors.
    pub(crate) fn of_one_primary(
        context: &BuildContext,
        prepare: Arc<dyn Prepare>,
        component: &'static str,
    ) -> Result<Self> {
        let settings = Settings::new(&context.config)?.with_pushes();
        if settings.is_cluster() {
            let message = "this backend needs one primary, alone or behind sentinels; with a cluster use \
                           memory.backend = \"redis\"";
            return Err(Error::new(ErrorKind::Config, component, message));
        }
        Self::build(context, settings, 1, Some(prepare))
    }

    fn build(
        context: &BuildContext,
        settings: Settings,
        shared: usize,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Result<Self> {
        let config = &context.config;
        let redis = &config.redis;
        let connector = Arc::new(RedisConnector::new(settings));
        let mut settings = PoolSettings::new("redis", &config.pool);
        // Connecting is a part of some command: it never has longer than that.
        settings.connect_timeout = redis.connect_timeout.min(redis.command_timeout);
        let pool = context.build_pool(connector, settings)?;
        let lane = |_| Lane::new(Arc::clone(&pool), redis.command_timeout, prepare.clone());
        let client = Self(Arc::new(Inner {
            lanes: (0..shared.max(1)).map(lane).collect(),
            lanes_in_use: AtomicUsize::new(lanes_for(shared, config.pool.max_connections)),
            pool,
            pending: Pending::new(redis.max_pending_commands, redis.max_pending_bytes),
            command_timeout: redis.command_timeout,
            max_value_bytes: redis.max_value_bytes,
            counts: Counts::default(),
        }));
        context.register(Arc::new(client.clone()));
        Ok(client)
    }

    /// Sets a key, to expire after `expire` if that is given (Python: `set_key`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for an `expire` below a millisecond, [`ErrorKind::TooLarge`] for a value of more than
    /// `redis.max_value_bytes`, and as [`run`](Self::run).
    pub async fn set_key(&self, key: &str, value: impl Into<Bytes>, expire: Option<Duration>) -> Result<()> {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), value.into());
        let expire = expire.map(expiration).transpose()?;
        self.check_size(value.len())?;
        let bytes = key.len() + value.len();
        self.command("SET", Effect::Write, &key.clone(), bytes, |redis| {
            let (key, value, expire) = (key.clone(), value.clone(), expire.clone());
            async move { redis.set(key, value, expire, None, false).await }
        })
        .await
    }

    /// What a key holds; `None` if there is no such key (Python: `get_key`).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a key that holds a list, a hash or the like, [`ErrorKind::TooLarge`] for a
    /// value of more than `redis.max_value_bytes`, and as [`run`](Self::run).
    pub async fn get_key(&self, key: &str) -> Result<Option<RedisValue>> {
        let bytes = self.get_bytes(key).await?;
        if !bytes.is_empty() {
            return Ok(Some(RedisValue::parse(bytes)));
        }
        // Nothing and an empty value read alike; this is rare enough to ask again.
        let key = Bytes::copy_from_slice(key.as_bytes());
        let exists: bool = self
            .command("EXISTS", Effect::Read, &key.clone(), 0, |redis| {
                let key = key.clone();
                async move { redis.exists(key).await }
            })
            .await?;
        Ok(exists.then(|| RedisValue::parse(bytes)))
    }

    /// The bytes of a key; none if there is no such key. Never more than the bound is read, however much there is.
    pub(crate) async fn get_bytes(&self, key: &str) -> Result<Bytes> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let most = self.0.max_value_bytes;
        let bytes: Bytes = self
            .command("GETRANGE", Effect::Read, &key.clone(), 0, |redis| {
                let key = key.clone();
                async move { redis.getrange(key, 0, most).await }
            })
            .await?;
        self.check_size(bytes.len())?;
        Ok(bytes)
    }

    /// Removes a key; whether there was one.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn delete_key(&self, key: &str) -> Result<bool> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.command("DEL", Effect::Write, &key.clone(), key.len(), |redis| {
            let key = key.clone();
            async move { redis.del(key).await }
        })
        .await
    }

    /// Does anything else with the library's own client, on a shared connection (Python: `get_client`). `name`
    /// is what errors call it. The work should be one command that does not block: all callers share the
    /// connection. `effect` says whether it may be done again when the connection breaks.
    ///
    /// ```no_run
    /// # async fn example(redis: &arshai::backends::redis::RedisClient) -> arshai::Result<()> {
    /// use arshai::backends::redis::{Effect, fred::interfaces::KeysInterface};
    ///
    /// let left: i64 = redis.run("TTL", Effect::Read, |redis| async move { redis.ttl("key").await }).await?;
    /// # let _ = left;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] by `redis.command_timeout`, [`ErrorKind::Capacity`] when too much is under way or
    /// Redis is full, [`ErrorKind::Unavailable`] when Redis cannot be reached or is not ready,
    /// [`ErrorKind::Transport`] when the connection was lost, [`ErrorKind::Authentication`], and others by what
    /// Redis answers; the context names Redis's own code.
    pub async fn run<T, F, Fut>(&self, name: &'static str, effect: Effect, work: F) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        self.command(name, effect, name.as_bytes(), 0, work).await
    }

    /// Runs one command on the lane of its key: commands for one key keep their order.
    pub(crate) async fn command<T, F, Fut>(
        &self,
        name: &'static str,
        effect: Effect,
        key: &[u8],
        bytes: usize,
        work: F,
    ) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        let inner = &*self.0;
        let result = match inner.pending.enter(bytes) {
            Ok(_entered) => inner.attempts(name, effect, inner.lane(key), work).await,
            Err(error) => Err(error),
        };
        inner.counts.commands.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            inner.counts.errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Takes a connection that nobody else uses. Dropping the future takes none.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline, naming what was waited for, [`ErrorKind::Capacity`] when too many
    /// wait, [`ErrorKind::Closed`] once closed, and whatever connecting fails with.
    pub async fn connection(&self, deadline: Deadline) -> Result<RedisConnection> {
        self.0.pool.acquire(deadline).await.map(RedisConnection)
    }

    /// Whether Redis answers by `deadline` (Python: `health_check`). Connects if need be.
    pub async fn health_check(&self, deadline: Deadline) -> Health {
        let ping = self.run("PING", Effect::Read, |redis| async move { redis.ping::<String>(None).await });
        match deadline.run(COMPONENT, "PING", ping).await.and_then(|result| result) {
            Ok(_) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    /// What the client holds and has done, as of now.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        let (inner, mut stats) = (&self.0, RedisStats::default());
        stats.pool = inner.pool.stats();
        stats.commands = inner.counts.commands.load(Ordering::Relaxed);
        stats.errors = inner.counts.errors.load(Ordering::Relaxed);
        stats.repeated = inner.counts.repeated.load(Ordering::Relaxed);
        stats
    }

    /// Closes the connections: shared ones at once, others when they come back, waiting until `deadline`.
    /// Returns how many were still out. Every later command fails with [`ErrorKind::Closed`]. Dropping the future
    /// stops the waiting.
    pub async fn close(&self, deadline: Deadline) -> CloseReport {
        self.let_go_from(0);
        let mut closing = pin!(self.0.pool.close(deadline));
        if let Poll::Ready(still_out) = futures_util::poll!(closing.as_mut()) {
            return still_out;
        }
        // The pool is closed now. A lane that connected just before that has something to let go of.
        self.let_go_from(0);
        closing.await
    }

    fn let_go_from(&self, first: usize) {
        for lane in self.0.lanes.iter().skip(first) {
            lane.let_go();
        }
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.0.command_timeout
    }

    pub(crate) fn max_value_bytes(&self) -> usize {
        self.0.max_value_bytes
    }

    pub(crate) fn check_size(&self, bytes: usize) -> Result<()> {
        let most = self.0.max_value_bytes;
        if bytes <= most {
            return Ok(());
        }
        let message = format!("the value is larger than redis.max_value_bytes = {most}");
        Err(Error::new(ErrorKind::TooLarge, COMPONENT, message))
    }
}

impl Inner {
    fn lane(&self, key: &[u8]) -> &Lane {
        // FNV-1a: short keys, few lanes, and nobody gains by choosing keys that share one.
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        &self.lanes[hash as usize % self.lanes_in_use.load(Ordering::Relaxed)]
    }

    async fn attempts<T, F, Fut>(&self, name: &'static str, effect: Effect, lane: &Lane, work: F) -> Result<T>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        let began = Instant::now();
        let deadline = Deadline::after(self.command_timeout);
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let (link, client) = match lane.current() {
                // The library has the whole time for it, which is what it is set to.
                Some(link) if attempt == 1 => (Arc::clone(&link), link.client().clone()),
                _ => {
                    // Boxed: few come here, and a future is as large as all that it might hold.
                    let link = Box::pin(lane.link(deadline)).await?;
                    let client = within(link.client(), deadline);
                    (link, client)
                }
            };
            let error = match link.run(began, pin!(work(client))).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let again = may_pass(&error) || (effect == Effect::Read && is_lost(&error));
            if !again || attempt == ATTEMPTS || deadline.remaining() <= wait {
                return Err(from_fred(&error, name));
            }
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        unreachable!("the last attempt returns")
    }
}

/// The client, with no longer than is left.
fn within(client: &Client, deadline: Deadline) -> Client {
    let mut options = Options::default();
    // Zero would mean no limit.
    options.timeout = Some(deadline.remaining().max(Duration::from_millis(1)));
    (*client.with_options(&options)).clone()
}

fn is_lost(error: &FredError) -> bool {
    matches!(error.kind(), FredKind::IO | FredKind::Canceled | FredKind::Routing)
}

/// How many connections are shared: what is configured, but where there is more than one, not all.
fn lanes_for(shared: usize, max_connections: usize) -> usize {
    shared.min(max_connections.saturating_sub(1)).max(1)
}

fn expiration(expire: Duration) -> Result<Expiration> {
    if expire.subsec_nanos() == 0 && !expire.is_zero() {
        return Ok(Expiration::EX(i64::try_from(expire.as_secs()).unwrap_or(i64::MAX)));
    }
    match i64::try_from(expire.as_millis()) {
        Ok(0) => Err(Error::new(ErrorKind::InvalidInput, COMPONENT, "expire must be at least a millisecond")),
        Ok(millis) => Ok(Expiration::PX(millis)),
        Err(_) => Ok(Expiration::PX(i64::MAX)),
    }
}

/// Its connections, those that it shares included.
#[async_trait]
impl Component for RedisClient {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("redis")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Connections
    }

    fn limits(&self) -> Vec<LimitUsage> {
        let mut limits = self.0.pool.limits();
        limits.extend(self.0.pending.limits());
        limits
    }

    fn counters(&self) -> Value {
        crate::support::counters(&self.stats())
    }

    async fn health(&self, deadline: Deadline) -> Health {
        self.health_check(deadline).await
    }

    fn set_limit(&self, key: &str, max: u64) -> Result<()> {
        self.0.pool.set_limit(key, max)?;
        let lanes = lanes_for(self.0.lanes.len(), usize::try_from(max).unwrap_or(usize::MAX));
        self.0.lanes_in_use.store(lanes, Ordering::Relaxed);
        self.let_go_from(lanes);
        Ok(())
    }

    async fn close(&self, deadline: Deadline) -> CloseReport {
        Self::close(self, deadline).await
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
