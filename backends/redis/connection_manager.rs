//! The shared connection: used by all callers at the same time, replaced when it breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use super::COMPONENT;
use super::multiplexed::MultiplexedConnection;
use crate::pool::ConnectionPool;
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
const UNREACHABLE: &str = "Redis is unreachable";

/// Connects when a connection is first needed, and again when it has broken.
///
/// There is no reconnecting task: a caller that needs the connection connects, one at a time and for all callers.
/// Failed attempts are spaced by a backoff. A caller waits for attempts until its deadline; once Redis has been
/// unreachable for longer than a command may take, all queued callers fail with the first connection error.
#[derive(Debug)]
pub(super) struct ConnectionManager {
    pool: Arc<dyn ConnectionPool>,
    command_timeout: Duration,
    backoff: Backoff,
    current: RwLock<Option<Arc<MultiplexedConnection>>>,
    /// Written while `current` is locked.
    closed: AtomicBool,
    /// Held while connecting.
    outage: tokio::sync::Mutex<Option<Outage>>,
}

/// The attempts to connect that failed since the last one that succeeded.
#[derive(Debug)]
struct Outage {
    unreachable_since: Instant,
    attempts: u32,
    failed_at: Instant,
    retry_at: Instant,
    kind: ErrorKind,
    retryable: bool,
    message: String,
}

impl ConnectionManager {
    pub(super) fn new(pool: Arc<dyn ConnectionPool>, command_timeout: Duration) -> Self {
        // Short enough that every caller sees an attempt before its deadline.
        let max_backoff = MAX_BACKOFF.min(command_timeout / 4);
        Self {
            pool,
            command_timeout,
            backoff: Backoff::new(INITIAL_BACKOFF.min(max_backoff), max_backoff),
            current: RwLock::default(),
            closed: AtomicBool::new(false),
            outage: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, connecting if there is none. Dropping the future leaves the attempt to the next caller.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when Redis cannot be reached before the deadline, with the last error; errors that
    /// are not retryable immediately.
    /// Nothing was sent.
    pub(super) async fn get_or_connect(&self, deadline: Deadline) -> Result<Arc<MultiplexedConnection>> {
        match self.current() {
            Some(connection) => Ok(connection),
            // Boxed to keep the future of every command small.
            None => Box::pin(self.connect(deadline)).await.map_err(Error::not_sent),
        }
    }

    /// Makes no further connection. Commands in flight complete.
    pub(super) fn close(&self) {
        let mut current = self.current.write();
        self.closed.store(true, Ordering::Relaxed);
        *current = None;
    }

    fn current(&self) -> Option<Arc<MultiplexedConnection>> {
        self.current.read().as_ref().filter(|connection| connection.is_usable()).cloned()
    }

    async fn connect(&self, deadline: Deadline) -> Result<Arc<MultiplexedConnection>> {
        let arrived = Instant::now();
        loop {
            // Locked anew for each attempt, so that queued callers see its failure.
            let attempt = deadline.run(COMPONENT, "connecting to Redis", self.outage.lock()).await;
            let mut outage = attempt.map_err(|_| {
                let last = "timed out: waiting for an attempt to connect";
                Error::new(ErrorKind::Unavailable, COMPONENT, UNREACHABLE).with_context("last_error", last)
            })?;
            if let Some(connection) = self.current() {
                return Ok(connection);
            }
            if self.closed.load(Ordering::Relaxed) {
                return Err(closed_error());
            }
            if let Some(outage) = &*outage {
                let failed_meanwhile = outage.failed_at >= arrived;
                let fail_fast = outage.unreachable_since.elapsed() > self.command_timeout;
                if (failed_meanwhile && fail_fast) || outage.retry_at >= deadline.instant() {
                    return Err(outage.error());
                }
                tokio::time::sleep_until(outage.retry_at).await;
            }
            match self.attempt(deadline).await {
                Ok(connection) => {
                    *outage = None;
                    return Ok(connection);
                }
                Err(error) => {
                    let known = self.record_failure(&mut outage, &error);
                    if !error.is_retryable() {
                        return Err(error);
                    }
                    if deadline.has_passed() {
                        return Err(known.error());
                    }
                }
            }
        }
    }

    async fn attempt(&self, deadline: Deadline) -> Result<Arc<MultiplexedConnection>> {
        // The broken one is dropped first: it may hold the only permit of the pool.
        drop(self.current.write().take());
        let pooled = self.pool.acquire(deadline).await?;
        let connection = Arc::new(MultiplexedConnection::new(pooled, self.command_timeout)?);
        let mut current = self.current.write();
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed_error());
        }
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn record_failure<'a>(&self, outage: &'a mut Option<Outage>, error: &Error) -> &'a Outage {
        let now = Instant::now();
        let (unreachable_since, attempts) = match outage {
            Some(outage) => (outage.unreachable_since, outage.attempts.saturating_add(1)),
            None => (now, 1),
        };
        tracing::warn!(attempts, error = %error, "failed to connect to Redis");
        outage.insert(Outage {
            unreachable_since,
            attempts,
            failed_at: now,
            retry_at: now + self.backoff.delay(attempts),
            kind: error.kind(),
            retryable: error.is_retryable(),
            message: error.to_string(),
        })
    }
}

fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, COMPONENT, "closed")
}

impl Outage {
    fn error(&self) -> Error {
        let kind = match self.kind {
            ErrorKind::Transport | ErrorKind::Timeout if self.retryable => ErrorKind::Unavailable,
            kind => kind,
        };
        Error::new(kind, COMPONENT, UNREACHABLE)
            .with_retryable(self.retryable)
            .with_context("attempts", self.attempts)
            .with_context("last_error", &self.message)
    }
}
