//! A dedicated connection.

use fred::clients::Client;
use fred::error::Error as FredError;

use super::COMPONENT;
use super::errors::{connection_lost_error, from_fred};
use super::fred_connection::FredConnection;
use crate::pool::PooledConnection;
use crate::{Deadline, Error, ErrorKind, Outcome, Result};

/// A connection that no other caller uses, for transactions (`WATCH`) and blocking commands. Dropping it returns it
/// to the pool.
#[derive(Debug)]
#[must_use = "dropping the connection returns it to the pool"]
pub struct RedisConnection(pub(super) PooledConnection);

impl RedisConnection {
    /// Closes the connection instead of returning it.
    pub fn discard(self) {
        self.0.discard();
    }

    /// Runs `work` on the connection until `deadline`, which alone limits blocking commands.
    ///
    /// If the work fails, reaches the deadline or its future is dropped, the connection is not used again: the next
    /// caller never gets one that is still in a blocking command or a transaction. Work that succeeds should leave no
    /// `WATCH` or subscription behind. Nothing is sent twice: retrying is up to the caller.
    ///
    /// ```no_run
    /// # async fn example(redis: &arshai::backends::redis::RedisClient) -> arshai::Result<()> {
    /// use arshai::{Deadline, backends::redis::fred::interfaces::KeysInterface};
    ///
    /// let deadline = Deadline::after(std::time::Duration::from_secs(2));
    /// let mut connection = redis.dedicated_connection(deadline).await?;
    /// let visits: i64 = connection.run(deadline, |redis| async move { redis.incr("visits").await }).await?;
    /// # let _ = visits;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline, [`ErrorKind::Closed`] after work that failed or was cancelled, and
    /// errors from Redis. Once the work has begun the outcome is [`Outcome::Unknown`]: it may consist of several
    /// commands, some of which took effect.
    pub async fn run<T, F, Fut>(&mut self, deadline: Deadline, work: F) -> Result<T>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        const STEP: &str = "running a command on a dedicated connection";
        let reusable = self.0.is_reusable();
        let Some(connection) = self.0.get_mut::<FredConnection>().filter(|_| reusable) else {
            return Err(Error::new(
                ErrorKind::Closed,
                COMPONENT,
                "connection is unusable after a failed or cancelled operation; acquire a new one",
            )
            .not_sent());
        };
        let (client, closed) = (connection.client().clone(), connection.closed().clone());
        self.0.set_reusable(false);
        let work = async {
            tokio::select! {
                biased;
                result = work(client) => result,
                () = closed.cancelled() => Err(connection_lost_error()),
            }
        };
        let done = deadline.run(COMPONENT, STEP, work).await?;
        let done = done.map_err(|error| from_fred(&error, STEP).with_outcome(Outcome::Unknown))?;
        self.0.set_reusable(true);
        Ok(done)
    }
}
