//! Keeps one shared connection alive for all who use it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::Client;
use fred::error::Error as FredError;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::COMPONENT;
use super::errors::from_fred;
use super::shared::SharedLink;
use crate::pool::ConnectionPool;
use crate::{Deadline, Error, ErrorKind, Result};

/// The wait before the second attempt to connect; it doubles up to [`MAX_BACKOFF`], each with jitter.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Readies each new connection before anybody uses it.
#[async_trait]
pub(crate) trait Prepare: Send + Sync + fmt::Debug {
    /// What fails here fails the attempt to connect.
    async fn prepare(&self, client: &Client) -> Result<(), FredError>;
}

/// One shared connection, connected when it is first needed and again when it has broken.
///
/// There is no task that reconnects: whoever needs the connection connects, one at a time and for all, and
/// when nobody needs it nothing happens. Attempts that fail are spaced, doubling. A caller waits for attempts
/// until its deadline; but once Redis has been away for longer than `patience`, the first attempt that fails
/// is the answer for everyone who waited for it.
pub(super) struct Lane {
    pool: Arc<dyn ConnectionPool>,
    patience: Duration,
    prepare: Option<Arc<dyn Prepare>>,
    current: RwLock<Option<Arc<SharedLink>>>,
    attempts: Mutex<Attempts>,
}

/// What is known of the attempts since the last that worked.
#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    away_since: Option<Instant>,
    last: Option<Failure>,
    /// Not before then.
    next: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Failure {
    at: Instant,
    kind: ErrorKind,
    message: String,
}

impl Lane {
    pub(super) fn new(
        pool: Arc<dyn ConnectionPool>,
        patience: Duration,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Self {
        Self { pool, patience, prepare, current: RwLock::new(None), attempts: Mutex::default() }
    }

    /// The connection, if there is one that works.
    pub(super) fn current(&self) -> Option<Arc<SharedLink>> {
        self.current.read().as_ref().filter(|link| link.is_usable()).cloned()
    }

    /// The connection, made if there is none. Dropping the future leaves the attempt to the next caller.
    pub(super) async fn link(&self, deadline: Deadline) -> Result<Arc<SharedLink>> {
        match self.current() {
            Some(link) => Ok(link),
            None => self.connect(deadline).await,
        }
    }

    /// Lets go of the connection. Commands under way on it end by themselves.
    pub(super) fn let_go(&self) {
        let link = self.current.write().take();
        if let Some(link) = link {
            link.break_off();
        }
    }

    async fn connect(&self, deadline: Deadline) -> Result<Arc<SharedLink>> {
        let arrived = Instant::now();
        loop {
            let mut attempts = deadline.run(COMPONENT, "connecting to Redis", self.attempts.lock()).await?;
            if let Some(link) = self.current() {
                return Ok(link);
            }
            if let Some(answer) = attempts.answer_for(arrived, self.patience) {
                return Err(answer);
            }
            if !attempts.wait(deadline).await {
                return Err(attempts.unavailable());
            }
            match self.attempt(deadline).await {
                Ok(link) => {
                    *attempts = Attempts::default();
                    return Ok(link);
                }
                Err(error) => {
                    attempts.failed(&error, self.patience);
                    if is_final(&error) {
                        return Err(error);
                    }
                    if deadline.has_passed() {
                        return Err(attempts.unavailable());
                    }
                }
            }
        }
    }

    /// Connects once and, where that works, lets everyone use it.
    async fn attempt(&self, deadline: Deadline) -> Result<Arc<SharedLink>> {
        // The one that broke goes first: it may be the connection that the pool has no room for.
        let broken = self.current.write().take();
        drop(broken);
        let link = Arc::new(SharedLink::new(self.pool.acquire(deadline).await?)?);
        if let Some(prepare) = &self.prepare {
            let prepared = prepare.prepare(link.client());
            let prepared = deadline.run(COMPONENT, "readying a connection to Redis", prepared).await?;
            prepared.map_err(|error| from_fred(&error, "CLIENT TRACKING"))?;
        }
        *self.current.write() = Some(Arc::clone(&link));
        Ok(link)
    }
}

/// Whether trying again within the same call is of no use.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Authentication | ErrorKind::Config | ErrorKind::Closed | ErrorKind::Internal
    )
}

impl Attempts {
    /// The answer for a caller that came before the last attempt failed, when Redis has been away for long.
    fn answer_for(&self, arrived: Instant, patience: Duration) -> Option<Error> {
        let failed_since = self.last.as_ref().is_some_and(|last| last.at >= arrived);
        let long_away = self.away_since.is_some_and(|since| since.elapsed() > patience);
        (failed_since && long_away).then(|| self.unavailable())
    }

    /// Waits until another attempt is due; `false` if the deadline comes first.
    async fn wait(&self, deadline: Deadline) -> bool {
        match self.next {
            Some(next) if next >= deadline.instant() => {
                tokio::time::sleep_until(deadline.instant()).await;
                false
            }
            Some(next) => {
                tokio::time::sleep_until(next).await;
                true
            }
            None => !deadline.has_passed(),
        }
    }

    fn failed(&mut self, error: &Error, patience: Duration) {
        let now = Instant::now();
        // Short enough that every caller, however late it comes, sees an attempt before its deadline.
        let most = MAX_BACKOFF.min(patience / 4);
        let backoff = MIN_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.away_since.get_or_insert(now);
        self.next = Some(now + jittered(backoff));
        self.last = Some(Failure { at: now, kind: error.kind(), message: error.to_string() });
        tracing::warn!(attempts = self.failures, error = %error, "connecting to Redis failed");
    }

    /// Redis cannot be reached, and what the last attempt found.
    fn unavailable(&self) -> Error {
        let Some(last) = &self.last else {
            return Error::new(
                ErrorKind::Timeout,
                COMPONENT,
                "the deadline passed before connecting to Redis",
            );
        };
        let kind = match last.kind {
            ErrorKind::Transport | ErrorKind::Timeout => ErrorKind::Unavailable,
            kind => kind,
        };
        Error::new(kind, COMPONENT, "Redis cannot be reached")
            .with_context("attempts", self.failures)
            .with_context("last", &last.message)
    }
}

/// Between half and all of a wait, so that many processes do not come back at the same moment.
fn jittered(wait: Duration) -> Duration {
    // The clock's own small digits are random enough for that.
    let random = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos() % 1_000);
    wait / 2 + wait / 2 * random / 1_000
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("connected", &self.current().is_some()).finish_non_exhaustive()
    }
}
