//! The shared connection: used by all callers at the same time, replaced when it breaks.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::COMPONENT;
use super::errors::{breaks_connection, connection_lost_error};
use super::fred_connection::FredConnection;
use crate::pool::{ConnectionPool, PooledConnection};
use crate::support::Backoff;
use crate::{Deadline, Error, ErrorKind, Result};

const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

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
    /// [`ErrorKind::Unavailable`] when Redis cannot be reached before the deadline, with the last error;
    /// [`ErrorKind::Timeout`] when the deadline passed before an attempt completed; permanent errors immediately.
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
            let mut outage = deadline.run(COMPONENT, "connecting to Redis", self.outage.lock()).await?;
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
                    if is_permanent(&error) {
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
            message: error.to_string(),
        })
    }
}

fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, COMPONENT, "closed")
}

/// Whether another attempt within the same call is useless.
fn is_permanent(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Authentication | ErrorKind::Config | ErrorKind::Closed | ErrorKind::Internal
    )
}

impl Outage {
    fn error(&self) -> Error {
        let kind = match self.kind {
            ErrorKind::Transport | ErrorKind::Timeout => ErrorKind::Unavailable,
            kind => kind,
        };
        Error::new(kind, COMPONENT, "Redis is unreachable")
            .with_context("attempts", self.attempts)
            .with_context("last_error", &self.message)
    }
}

/// A pooled connection that all callers use at the same time.
#[derive(Debug)]
pub(super) struct MultiplexedConnection {
    client: Client,
    closed: CancellationToken,
    /// No further commands may use it, though its socket may still be open.
    broken: AtomicBool,
    /// Responses received so far.
    responses: AtomicU64,
    /// A command that waited for this long without any response arriving shows that the connection is dead.
    max_silence: Duration,
    /// Dropped with the last user of the connection, which frees the pool's permit. `Mutex` makes it `Sync`.
    _pooled: Mutex<PooledConnection>,
}

impl MultiplexedConnection {
    fn new(mut pooled: PooledConnection, command_timeout: Duration) -> Result<Self> {
        let Some(connection) = pooled.get_mut::<FredConnection>() else {
            return Err(Error::new(
                ErrorKind::Internal,
                COMPONENT,
                "the pool returned a non-Redis connection",
            ));
        };
        let (client, closed) = (connection.client().clone(), connection.closed().clone());
        // Commands may be in flight on it when it is dropped: it is never reused.
        pooled.set_reusable(false);
        Ok(Self {
            client,
            closed,
            broken: AtomicBool::new(false),
            responses: AtomicU64::new(0),
            // Less than the whole: connecting may have used a part of the caller's deadline.
            max_silence: command_timeout / 2,
            _pooled: Mutex::new(pooled),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Acquire) && !self.closed.is_cancelled()
    }

    fn mark_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Runs one command until `deadline`, and marks the connection broken if the result shows that it is.
    pub(super) async fn run<T>(
        &self,
        deadline: Deadline,
        command: impl Future<Output = Result<T, FredError>>,
    ) -> Result<T, FredError> {
        let (started, responses_before) = (Instant::now(), self.responses.load(Ordering::Relaxed));
        let result = tokio::select! {
            biased;
            result = pin!(command) => result,
            // fred never completes commands that reach it while its connection closes.
            () = self.closed.cancelled() => Err(connection_lost_error()),
            () = tokio::time::sleep_until(deadline.instant()) => {
                Err(FredError::new(FredKind::Timeout, "deadline"))
            }
        };
        match &result {
            Err(error) if *error.kind() == FredKind::Timeout => {
                let silent = self.responses.load(Ordering::Relaxed) == responses_before;
                if silent && started.elapsed() >= self.max_silence {
                    self.mark_broken();
                }
            }
            Err(error) if breaks_connection(error) => self.mark_broken(),
            _ => {
                self.responses.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }
}
