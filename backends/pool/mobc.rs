//! A pool over mobc.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::mobc::{Manager, async_trait};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::unconstrained;

use super::bounded::{Bounded, bounded_pool};
use super::state::{Idle, Store, Taken};
use crate::pool::{Connection, Connector, PoolSettings};
use crate::{Clock, Error, ErrorKind, Result, SystemClock};

/// The name that `pool.backend` chooses this pool by.
pub const NAME: &str = "mobc";

/// A bounded pool that leaves making and keeping connections to mobc, at several times the cost of a checkout.
///
/// Its contract is that of [`ConnectionPool`](crate::pool::ConnectionPool), whole. Beyond it: a connection that
/// comes back while callers wait is kept for them even where `max_idle` is reached; a check that fails or hangs
/// drops with its connection those that have been idle for longer, since what broke it has had more time with
/// them. A task runs only while connections are idle, on the runtime of the first acquire.
///
/// mobc writes gauges of its own, without labels, to the process's `metrics` recorder if there is
/// one; what they say is mobc's view, in which a reaped connection stays open until a caller comes across it.
pub struct MobcPool(Bounded<Kept>);

bounded_pool!(MobcPool);

impl MobcPool {
    /// A pool over `connector`. Nothing connects before the first acquire. At least one connection is allowed.
    #[must_use]
    pub fn new(connector: Arc<dyn Connector>, settings: PoolSettings) -> Self {
        Self::with_clock(connector, settings, Arc::new(SystemClock::new()))
    }

    /// As [`new`](Self::new), telling by `clock` how long connections have been idle. Deadlines follow tokio's.
    #[must_use]
    pub fn with_clock(connector: Arc<dyn Connector>, settings: PoolSettings, clock: Arc<dyn Clock>) -> Self {
        // The bounds are kept in front of mobc, whose own cannot change and would close what comes back.
        let unbounded = tokio::sync::Semaphore::MAX_PERMITS as u64;
        let runtime = Arc::default();
        let manage = Manage { connector, runtime: Arc::clone(&runtime) };
        let pool = ::mobc::Pool::builder()
            .max_open(unbounded)
            .max_idle(unbounded)
            .get_timeout(None)
            .test_on_check_out(false)
            .build(manage);
        Self(Bounded::over(Kept { pool, order: Vec::new(), runtime, name: settings.name }, settings, clock))
    }
}

/// Connections kept by mobc, and their order, so that the oldest can be taken from under it.
///
/// mobc can only be asked for the connection that came back last. What it keeps is therefore a [`Cell`], which
/// can be emptied from here; an empty one is thrown away when mobc hands it out.
struct Kept {
    pool: ::mobc::Pool<Manage>,
    /// The cells that are full and idle, the one used last at the end: the top of mobc's own stack.
    order: Vec<Arc<Cell>>,
    runtime: Runtime,
    name: &'static str,
}

/// What mobc takes for a connection: it is inside while it is idle.
type Cell = Mutex<Option<Idle>>;

/// Where mobc's tasks can run: known from the first acquire on.
type Runtime = Arc<Mutex<Option<Handle>>>;

type Getting = Pin<Box<dyn Future<Output = Got> + Send>>;
type Got = Result<::mobc::Connection<Manage>, ::mobc::Error<Error>>;

impl Kept {
    fn get(&self) -> Getting {
        let pool = self.pool.clone();
        Box::pin(unconstrained(async move { pool.get().await }))
    }

    /// Asks mobc for a connection: one that it has at hand, or what is to be waited for.
    ///
    /// mobc's own lock is only ever taken under the pool's, so it is free; and [`Manage::connect`] begins at
    /// the second poll. One poll therefore takes a connection, or finds that there is none.
    fn ask(&self) -> std::result::Result<Got, Getting> {
        let mut getting = self.get();
        match getting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(got) => Ok(got),
            Poll::Pending => Err(getting),
        }
    }

    async fn connect(getting: Getting, name: &'static str) -> Result<(Box<dyn Connection>, Seat)> {
        let seat = Seat::new(getting.await.map_err(|error| wrapped(error, name))?);
        match seat.cell().and_then(|cell| cell.lock().take()) {
            Some(idle) => Ok((idle.connection, seat)),
            None => Err(Error::new(ErrorKind::Internal, name, "mobc made a connection without one inside")),
        }
    }

    fn learn_runtime(&self) {
        let mut runtime = self.runtime.lock();
        if runtime.is_none() {
            *runtime = Handle::try_current().ok();
        }
    }

    /// Throws the empty cells away that mobc still keeps, once there are no others.
    fn sweep(&mut self) {
        while self.order.is_empty()
            && let Ok(Ok(empty)) = self.ask()
        {
            drop(Seat::new(empty));
        }
    }
}

impl Store for Kept {
    type Ticket = Seat;

    fn take(&mut self) -> Taken<Seat> {
        self.learn_runtime();
        loop {
            match self.ask() {
                Err(getting) => return Taken::Connecting(Box::pin(Self::connect(getting, self.name))),
                Ok(Err(error)) => {
                    let error = wrapped(error, self.name);
                    return Taken::Connecting(Box::pin(std::future::ready(Err(error))));
                }
                Ok(Ok(connection)) => {
                    let seat = Seat::new(connection);
                    let idle = seat.cell().and_then(|cell| cell.lock().take());
                    if let Some(idle) = idle {
                        self.order.pop();
                        return Taken::Idle(idle, seat);
                    }
                }
            }
        }
    }

    fn put(&mut self, idle: Idle, seat: Seat) {
        if let Some(cell) = seat.cell() {
            *cell.lock() = Some(idle);
            self.order.push(Arc::clone(cell));
        }
        seat.give_back();
    }

    fn count(&self) -> usize {
        self.order.len()
    }

    fn oldest(&self) -> Option<Duration> {
        self.order.first().and_then(since)
    }

    fn idle_since(&self, moment: Duration) -> usize {
        self.order.iter().take_while(|cell| since(cell).is_some_and(|since| since <= moment)).count()
    }

    fn remove_oldest(&mut self, count: usize) -> Vec<Box<dyn Connection>> {
        let removed = self.order.drain(..count).filter_map(|cell| cell.lock().take());
        let removed = removed.map(|idle| idle.connection).collect();
        self.sweep();
        removed
    }
}

fn since(cell: &Arc<Cell>) -> Option<Duration> {
    cell.lock().as_ref().map(|idle| idle.since)
}

/// The connector's own error as it is. The others are mobc's, which has none of its own to give here.
fn wrapped(error: ::mobc::Error<Error>, name: &'static str) -> Error {
    match error {
        ::mobc::Error::Inner(error) => error,
        ::mobc::Error::PoolClosed => {
            Error::new(ErrorKind::Closed, name, "mobc closed its pool").with_source(error)
        }
        ::mobc::Error::Timeout | ::mobc::Error::BadConn => {
            Error::new(ErrorKind::Internal, name, "mobc gave no connection").with_source(error)
        }
    }
}

/// A connection's seat in mobc while the connection is out. Dropped, mobc forgets it; given back, mobc keeps
/// it.
struct Seat(Option<::mobc::Connection<Manage>>);

impl Seat {
    fn new(connection: ::mobc::Connection<Manage>) -> Self {
        Self(Some(connection))
    }

    fn cell(&self) -> Option<&Arc<Cell>> {
        self.0.as_deref()
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.into_inner());
        }
    }
}

/// Makes connections for mobc.
struct Manage {
    connector: Arc<dyn Connector>,
    runtime: Runtime,
}

#[async_trait]
impl Manager for Manage {
    type Connection = Arc<Cell>;
    type Error = Error;

    /// mobc's only task puts a connection back, which its lock being free ends at the first poll: it neither
    /// needs a runtime, nor lets another caller overtake it.
    fn spawn_task<T>(&self, task: T)
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let mut task = Box::pin(task);
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        if let Some(runtime) = self.runtime.lock().as_ref() {
            runtime.spawn(async move {
                task.await;
            });
        }
    }

    async fn connect(&self) -> Result<Arc<Cell>, Error> {
        second_poll().await;
        let connection = self.connector.connect().await?;
        Ok(Arc::new(Mutex::new(Some(Idle { connection, since: Duration::ZERO }))))
    }

    /// Never called: connections are checked where the time it takes can be bounded.
    async fn check(&self, connection: Arc<Cell>) -> Result<Arc<Cell>, Error> {
        Ok(connection)
    }
}

/// Ready when it is polled again.
async fn second_poll() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
