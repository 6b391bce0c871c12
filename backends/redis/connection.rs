//! A connection of one's own.

use fred::clients::Client;
use fred::error::Error as FredError;

use super::COMPONENT;
use super::errors::from_fred;
use super::link::{RedisLink, lost};
use crate::pool::PooledConnection;
use crate::{Deadline, Error, ErrorKind, Result};

/// A connection that nobody else uses, for transactions (`WATCH`) and blocking commands. Dropping it gives it
/// back to the pool.
#[derive(Debug)]
#[must_use = "dropping the connection gives it back"]
pub struct RedisConnection(pub(super) PooledConnection);

impl RedisConnection {
    /// Drops the connection in place of giving it back.
    pub fn discard(self) {
        self.0.discard();
    }

    /// Does `work` on the connection by `deadline`.
    ///
    /// If the work fails, is cut short by the deadline or its future is dropped, the connection is not used
    /// again: nobody gets one that still waits in a blocking command or holds a transaction open. Work that ends
    /// well should leave no `WATCH` or subscription behind. Retries are the caller's own: nothing is sent twice.
    ///
    /// ```no_run
    /// # async fn example(redis: &arshai::backends::redis::RedisClient) -> arshai::Result<()> {
    /// use arshai::{Deadline, backends::redis::fred::interfaces::KeysInterface};
    ///
    /// let deadline = Deadline::after(std::time::Duration::from_secs(2));
    /// let mut connection = redis.connection(deadline).await?;
    /// let visits: i64 = connection.run(deadline, |redis| async move { redis.incr("visits").await }).await?;
    /// # let _ = visits;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline; [`ErrorKind::Closed`] after work that failed or was cut short;
    /// otherwise whatever Redis answers, by kind.
    pub async fn run<T, F, Fut>(&mut self, deadline: Deadline, work: F) -> Result<T>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<T, FredError>>,
    {
        let spent = !self.0.is_reusable();
        let Some(link) = self.0.get_mut::<RedisLink>().filter(|_| !spent) else {
            return Err(Error::new(
                ErrorKind::Closed,
                COMPONENT,
                "this connection's work was cut short; take another",
            ));
        };
        let (client, closed) = (link.client().clone(), link.closed().clone());
        self.0.set_reusable(false);
        let result = deadline
            .run(COMPONENT, "work on a connection of one's own", async {
                tokio::select! {
                    biased;
                    result = work(client) => result,
                    () = closed.wait() => Err(lost()),
                }
            })
            .await?;
        match result {
            Ok(done) => {
                self.0.set_reusable(true);
                Ok(done)
            }
            Err(error) => Err(from_fred(&error, "work on a connection of one's own")),
        }
    }
}
