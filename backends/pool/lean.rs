//! The default pool: slots in front of a stack.

use std::sync::Arc;
use std::time::Duration;

use super::bounded::{Bounded, bounded_pool};
use super::state::{Connecting, Idle, Store, Taken};
use crate::pool::{Connection, Connector, PoolSettings};
use crate::{Clock, SystemClock};

/// The name that `pool.backend` chooses this pool by.
pub const NAME: &str = "bounded";

/// A bounded pool that hands out the connection used last.
///
/// Its contract is that of [`ConnectionPool`](crate::pool::ConnectionPool), whole. Beyond it: a connection that
/// comes back while callers wait is kept for them even where `max_idle` is reached; a check that fails or hangs
/// drops with its connection those that have been idle for longer, since what broke it has had more time with
/// them. A task runs only while connections are idle, on the runtime of the first acquire.
pub struct LeanPool(Bounded<Stack>);

bounded_pool!(LeanPool);

impl LeanPool {
    /// A pool over `connector`. Nothing connects before the first acquire. At least one connection is allowed.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Self {
        Self::with_clock(connector, settings, Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), telling by `clock` how long connections have been idle. Deadlines follow tokio's.
    #[must_use]
    pub fn with_clock(connector: Arc<dyn Connector>, settings: PoolSettings, clock: Arc<dyn Clock>) -> Self {
        Self(Bounded::over(Stack { connector, idle: Vec::new() }, settings, clock))
    }
}

/// Idle connections, the one used last on top.
struct Stack {
    connector: Arc<dyn Connector>,
    idle: Vec<Idle>,
}

impl Stack {
    fn connect(&self) -> Connecting<()> {
        let connector = Arc::clone(&self.connector);
        Box::pin(async move { Ok((connector.connect().await?, ())) })
    }
}

impl Store for Stack {
    type Ticket = ();

    fn take(&mut self) -> Taken<()> {
        match self.idle.pop() {
            Some(idle) => Taken::Idle(idle, ()),
            None => Taken::Connecting(self.connect()),
        }
    }

    fn put(&mut self, idle: Idle, (): ()) {
        self.idle.push(idle);
    }

    fn count(&self) -> usize {
        self.idle.len()
    }

    fn oldest(&self) -> Option<Duration> {
        self.idle.first().map(|idle| idle.since)
    }

    fn idle_since(&self, moment: Duration) -> usize {
        self.idle.iter().take_while(|idle| idle.since <= moment).count()
    }

    fn remove_oldest(&mut self, count: usize) -> Vec<Box<dyn Connection>> {
        self.idle.drain(..count).map(|idle| idle.connection).collect()
    }
}
