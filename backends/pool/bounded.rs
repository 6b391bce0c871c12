//! The pool that holds every bound: slots in front of a store of idle connections.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::state::{Connecting, Idle, State, Store, Taken};
use super::{NO_CONNECTIONS, reaper};
use crate::pool::{Connection, PoolSettings, PoolStatus, PooledConnection, ReturnConnection};
use crate::{Deadline, Error, ErrorKind, Health, Result, Slot, Slots};

/// A pool that keeps the whole contract, whatever keeps its idle connections.
pub(super) struct Bounded<S: Store>(Arc<Pool<S>>);

pub(super) struct Pool<S: Store> {
    settings: PoolSettings,
    /// One for each connection out or being made, held until it has been dropped.
    slots: Slots,
    /// One for each caller that waits.
    waiting: Slots,
    state: Mutex<State<S>>,
    /// Held while the maximum changes, so that two changes cannot mix.
    resizing: Mutex<()>,
    closing: watch::Sender<bool>,
    /// Counted outside the lock: whether a connection goes out is known only after it was taken.
    acquired: AtomicU64,
}

impl<S: Store> Bounded<S> {
    pub(super) fn over(store: S, settings: PoolSettings) -> Self {
        let max = settings.max_connections.clamp(1, Slots::MAX);
        Self(Arc::new(Pool {
            slots: Slots::new("pool.max_connections", "connections", max),
            waiting: Slots::new("pool.max_waiting", "callers", settings.max_waiting),
            state: Mutex::new(State::new(store, max)),
            resizing: Mutex::default(),
            closing: watch::Sender::new(false),
            acquired: AtomicU64::new(0),
            settings,
        }))
    }
}

/// Makes a public pool of a [`Bounded`], which it holds and otherwise hides.
macro_rules! bounded_pool {
    ($pool:ident) => {
        #[async_trait::async_trait]
        impl crate::pool::ConnectionPool for $pool {
            async fn acquire(
                &self,
                deadline: crate::Deadline,
            ) -> crate::Result<crate::pool::PooledConnection> {
                self.0.acquire(deadline).await
            }

            fn status(&self) -> crate::pool::PoolStatus {
                self.0.status()
            }

            async fn health(&self, deadline: crate::Deadline) -> crate::Health {
                self.0.health(deadline).await
            }

            fn capabilities(&self) -> crate::pool::PoolCapabilities {
                crate::pool::PoolCapabilities::default().bounded(true).health_checks(true).reaps_idle(true)
            }

            fn set_max_connections(&self, max: usize) -> crate::Result<()> {
                self.0.set_max_connections(max)
            }

            async fn close(&self, deadline: crate::Deadline) -> usize {
                self.0.close(deadline).await
            }
        }

        impl std::fmt::Debug for $pool {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($pool)).field("status", &self.0.status()).finish_non_exhaustive()
            }
        }
    };
}
pub(super) use bounded_pool;

impl<S: Store> Bounded<S> {
    pub(super) async fn acquire(&self, deadline: Deadline) -> Result<PooledConnection> {
        let (connection, place) = self.0.acquire(deadline).await?;
        Ok(PooledConnection::new(connection, Box::new(place)))
    }

    pub(super) fn status(&self) -> PoolStatus {
        let pool = &self.0;
        let mut status = pool.state.lock().status(pool.settings.name, pool.waiting.bound());
        status.acquired = pool.acquired.load(Ordering::Relaxed);
        status
    }

    pub(super) async fn health(&self, deadline: Deadline) -> Health {
        match self.0.ask(deadline).await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    pub(super) fn set_max_connections(&self, max: usize) -> Result<()> {
        if max == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, self.0.settings.name, NO_CONNECTIONS));
        }
        self.0.resize(max.min(Slots::MAX));
        Ok(())
    }

    pub(super) async fn close(&self, deadline: Deadline) -> usize {
        self.0.shut();
        // Whether time ran out shows in how many are still out.
        let _ = deadline.bound(self.0.settings.name, "closing", self.0.slots.idle()).await;
        self.0.slots.used()
    }
}

impl<S: Store> Pool<S> {
    async fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<(Box<dyn Connection>, Place<S>)> {
        let (slot, turn) = self.enter(deadline).await?;
        let mut place = Place { _slot: slot, phase: Phase::Entered, ticket: None, pool: Arc::clone(self) };
        let taken = place.take()?;
        drop(turn);
        let connection = match taken {
            Taken::Idle(idle, ticket) if self.is_fresh(&idle) => {
                place.ticket = Some(ticket);
                idle.connection
            }
            // Boxed: few come here, and a future is as large as all that it might hold.
            taken => Box::pin(self.settle(taken, deadline, &mut place)).await?,
        };
        self.acquired.fetch_add(1, Ordering::Relaxed);
        Ok((connection, place))
    }

    /// Takes a slot, in turn.
    async fn enter(&self, deadline: Deadline) -> Result<(Slot, Option<Turn<'_, S>>)> {
        // In the queue from its first poll on, before it is known whether there is room to wait.
        let mut next = pin!(unconstrained(self.slots.acquire()));
        match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
            Poll::Ready(slot) => Ok((slot.map_err(|_| self.shut_down())?, None)),
            Poll::Pending => {
                let (slot, turn) = Box::pin(self.wait(next, deadline)).await?;
                Ok((slot, Some(turn)))
            }
        }
    }

    /// Waits for `slot`, if there is room to wait.
    async fn wait(
        &self,
        slot: Pin<&mut impl Future<Output = Result<Slot>>>,
        deadline: Deadline,
    ) -> Result<(Slot, Turn<'_, S>)> {
        let Ok(waiting) = self.waiting.try_acquire() else {
            self.state.lock().counts.rejected += 1;
            let message =
                format!("all connections are in use and {} callers wait already", self.waiting.used());
            return Err(self.described(Error::new(ErrorKind::Capacity, self.settings.name, message)));
        };
        let turn = Turn { pool: self, waiting: Some(waiting) };
        match deadline.bound(self.settings.name, "waiting for a free connection", slot).await {
            Ok(slot) => Ok((slot.map_err(|_| self.shut_down())?, turn)),
            Err(error) => {
                self.state.lock().counts.timed_out += 1;
                Err(self.described(error))
            }
        }
    }

    /// Whether a connection can go out as it is.
    fn is_fresh(&self, idle: &Idle) -> bool {
        idle.connection.is_open() && idle.since.elapsed() <= self.settings.check_after
    }

    /// Makes a connection that works of what was taken, taking more where it must.
    async fn settle(
        &self,
        mut taken: Taken<S::Ticket>,
        deadline: Deadline,
        place: &mut Place<S>,
    ) -> Result<Box<dyn Connection>> {
        loop {
            match taken {
                Taken::Connecting(connecting) => return self.connect(connecting, deadline, place).await,
                Taken::Idle(mut idle, ticket) => {
                    place.ticket = Some(ticket);
                    let is_open = idle.connection.is_open();
                    if is_open && (self.is_fresh(&idle) || self.passes(&mut idle, deadline).await?) {
                        return Ok(idle.connection);
                    }
                    let since = idle.since;
                    drop(idle);
                    place.lose();
                    if is_open {
                        self.drop_idle_since(since);
                    }
                }
            }
            taken = place.take()?;
        }
    }

    /// Whether a connection answers; an error when there is no more time or the pool is closed.
    async fn passes(&self, idle: &mut Idle, deadline: Deadline) -> Result<bool> {
        let patience = deadline.at_most(self.settings.check_timeout);
        match self.step(patience, "checking a connection", idle.connection.check()).await {
            Ok(checked) => Ok(checked.is_ok()),
            Err(error) if error.kind() == ErrorKind::Timeout && !deadline.has_passed() => Ok(false),
            Err(error) => Err(self.cut(error)),
        }
    }

    async fn connect(
        &self,
        connecting: Connecting<S::Ticket>,
        deadline: Deadline,
        place: &mut Place<S>,
    ) -> Result<Box<dyn Connection>> {
        let patience = deadline.at_most(self.settings.connect_timeout);
        let connected = match self.step(patience, "connecting", connecting).await {
            Ok(connected) => connected,
            Err(error) if deadline.has_passed() => Err(self.cut(error)),
            Err(error) => Err(error),
        };
        match connected {
            Ok((connection, ticket)) => {
                place.made(ticket);
                Ok(connection)
            }
            Err(error) => {
                self.state.lock().counts.failed += 1;
                Err(error)
            }
        }
    }

    /// Runs one step of an acquire until it ends, its time is up or the pool is closed.
    async fn step<T>(&self, until: Deadline, step: &'static str, work: impl Future<Output = T>) -> Result<T> {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(self.shut_down()),
            done = until.bound(self.settings.name, step, work) => done.map_err(|error| self.described(error)),
        }
    }

    /// Counts an acquire that `error` ended, if that was its deadline.
    fn cut(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Timeout {
            self.state.lock().counts.timed_out += 1;
        }
        error
    }

    /// Asks the other side through one of the pool's own connections.
    async fn ask(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let (mut connection, place) = self.acquire(deadline).await?;
        let patience = deadline.at_most(self.settings.check_timeout);
        let answer = self.step(patience, "checking a connection", connection.check()).await;
        let answer = answer.and_then(|answer| answer);
        Box::new(place).give_back(connection, answer.is_ok());
        answer
    }

    fn resize(&self, max: usize) {
        let _one_at_a_time = self.resizing.lock();
        let surplus = {
            let mut state = self.state.lock();
            state.max = max;
            state.trim(usize::MAX)
        };
        self.slots.set_max(max);
        drop(surplus);
    }

    /// Drops what was kept for a caller who no longer waits.
    fn trim(&self) {
        let surplus = self.state.lock().trim(self.room_for_idle());
        drop(surplus);
    }

    /// How many idle connections are kept: besides `max_idle` one for each caller that waits, who is about to
    /// take it.
    fn room_for_idle(&self) -> usize {
        self.settings.max_idle.saturating_add(self.waiting.used())
    }

    /// Drops what has been idle since `moment` or longer.
    fn drop_idle_since(&self, moment: Instant) {
        let old = {
            let mut state = self.state.lock();
            let count = state.store.idle_since(moment);
            state.counts.discarded += count as u64;
            state.store.remove_oldest(count)
        };
        drop(old);
    }

    /// Drops what is idle too long; when to look again, if anything is still idle.
    pub(super) fn reap(&self) -> Option<Instant> {
        let idle_timeout = self.settings.idle_timeout;
        let (old, next) = {
            let mut state = self.state.lock();
            let old = match Instant::now().checked_sub(idle_timeout) {
                Some(moment) => state.store.idle_since(moment),
                None => 0,
            };
            let old = state.reap(old);
            // A timeout too long for the clock is no timeout.
            let next = state.store.oldest().and_then(|oldest| oldest.checked_add(idle_timeout));
            state.reaping = next.is_some();
            (old, next)
        };
        drop(old);
        next
    }

    /// Lets another reaper start, on whatever runtime then asks for a connection.
    pub(super) fn reaper_ended(&self) {
        let mut state = self.state.lock();
        if state.reaping {
            state.reaping = false;
            state.runtime = None;
        }
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    fn shut(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.closed = true;
            let idle = state.store.count();
            state.reap(idle)
        };
        self.slots.close();
        self.closing.send_replace(true);
        drop(idle);
    }

    fn shut_down(&self) -> Error {
        Error::new(ErrorKind::Closed, self.settings.name, "the pool is closed")
    }

    fn described(&self, error: Error) -> Error {
        error
            .with_context("in_use", self.state.lock().out)
            .with_context("limit", self.slots.max())
            .with_context("waiting", self.waiting.used())
    }
}

/// A caller that waits, or has just stopped waiting.
struct Turn<'a, S: Store> {
    pool: &'a Pool<S>,
    waiting: Option<Slot>,
}

impl<S: Store> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        self.waiting = None;
        self.pool.trim();
    }
}

/// A caller's place among the connections, and where its connection goes when it is dropped. However it ends,
/// it is counted out; its slot is given back last.
struct Place<S: Store> {
    pool: Arc<Pool<S>>,
    phase: Phase,
    ticket: Option<S::Ticket>,
    _slot: Slot,
}

/// What a place stands for in the pool's counts.
#[derive(Clone, Copy)]
enum Phase {
    /// Nothing.
    Entered,
    /// A connection being made.
    Making,
    /// A connection that is out. If it does not come back it was discarded.
    Out,
    /// A connection that works and for which there is no room.
    Surplus,
}

impl<S: Store> Place<S> {
    fn take(&mut self) -> Result<Taken<S::Ticket>> {
        let mut state = self.pool.state.lock();
        if state.closed {
            return Err(self.pool.shut_down());
        }
        let taken = state.take();
        self.phase = match taken {
            Taken::Idle(..) => Phase::Out,
            Taken::Connecting(_) => Phase::Making,
        };
        Ok(taken)
    }

    /// Counts the connection that was being made.
    fn made(&mut self, ticket: S::Ticket) {
        self.ticket = Some(ticket);
        self.phase = Phase::Out;
        let mut state = self.pool.state.lock();
        state.making -= 1;
        state.out += 1;
        state.counts.created += 1;
    }

    /// Counts a connection that was dropped because it is of no use.
    fn lose(&mut self) {
        self.ticket = None;
        self.phase = Phase::Entered;
        let mut state = self.pool.state.lock();
        state.out -= 1;
        state.counts.discarded += 1;
    }

    /// Keeps a connection that came back, or gives it back to be dropped.
    fn keep(&mut self, connection: Box<dyn Connection>) -> Option<Box<dyn Connection>> {
        let idle = Idle { connection, since: Instant::now() };
        let pool = &self.pool;
        let mut state = pool.state.lock();
        let fits = !state.closed && state.open() <= state.max && state.store.count() < pool.room_for_idle();
        let Some(ticket) = self.ticket.take_if(|_| fits) else {
            self.phase = Phase::Surplus;
            return Some(idle.connection);
        };
        state.store.put(idle, ticket);
        state.out -= 1;
        self.phase = Phase::Entered;
        let runtime = state.reaper_wanted();
        drop(state);
        if let Some(runtime) = runtime {
            // Not under the lock: on a runtime that has ended the task is dropped at once, and takes it.
            reaper::start(&runtime, pool);
        }
        None
    }
}

impl<S: Store> ReturnConnection for Place<S> {
    fn give_back(mut self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        let unkept = match keep && connection.is_open() {
            true => self.keep(connection),
            false => Some(connection),
        };
        // Dropped before it is counted out, and before its slot is free.
        drop(unkept);
    }
}

impl<S: Store> Drop for Place<S> {
    fn drop(&mut self) {
        self.ticket = None;
        if matches!(self.phase, Phase::Entered) {
            return;
        }
        let mut state = self.pool.state.lock();
        match self.phase {
            Phase::Entered => {}
            Phase::Making => state.making -= 1,
            Phase::Out => {
                state.out -= 1;
                state.counts.discarded += 1;
            }
            Phase::Surplus => {
                state.out -= 1;
                state.counts.reaped += 1;
            }
        }
    }
}

impl<S: Store> Drop for Bounded<S> {
    fn drop(&mut self) {
        self.0.shut();
    }
}
