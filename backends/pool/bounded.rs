//! The pool that holds every bound: places and a queue in front of a store of idle connections.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use super::state::{Connecting, Idle, State, Store, Taken};
use super::{NO_CONNECTIONS, reaper};
use crate::pool::{Connection, PoolSettings, PoolStats, PooledConnection, ReturnConnection};
use crate::{Clock, Deadline, Error, ErrorKind, Health, Result};

/// A pool that keeps the whole contract, whatever keeps its idle connections.
pub(super) struct Bounded<S: Store>(Arc<Pool<S>>);

pub(super) struct Pool<S: Store> {
    settings: PoolSettings,
    /// Tells how long connections have been idle; deadlines follow tokio's.
    clock: Arc<dyn Clock>,
    state: Mutex<State<S>>,
    closing: watch::Sender<bool>,
    /// Woken when the last caller has left a closed pool.
    left: Notify,
    /// Counted outside the lock: whether a connection goes out is known only after it was taken.
    acquired: AtomicU64,
}

impl<S: Store> Bounded<S> {
    pub(super) fn over(store: S, settings: PoolSettings, clock: Arc<dyn Clock>) -> Self {
        let max = settings.max_connections.max(1);
        Self(Arc::new(Pool {
            state: Mutex::new(State::new(store, max)),
            closing: watch::Sender::new(false),
            left: Notify::new(),
            acquired: AtomicU64::new(0),
            clock,
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

            fn stats(&self) -> crate::pool::PoolStats {
                self.0.status()
            }

            fn capabilities(&self) -> crate::pool::PoolCapabilities {
                crate::pool::PoolCapabilities::default().bounded(true).health_checks(true).reaps_idle(true)
            }
        }

        #[async_trait::async_trait]
        impl crate::Component for $pool {
            fn name(&self) -> std::borrow::Cow<'_, str> {
                self.0.name().into()
            }

            fn shutdown_phase(&self) -> crate::ShutdownPhase {
                crate::ShutdownPhase::Connections
            }

            fn limits(&self) -> Vec<crate::LimitUsage> {
                self.0.limits()
            }

            fn counters(&self) -> serde_json::Value {
                crate::support::counters(&self.0.status())
            }

            async fn health(&self, deadline: crate::Deadline) -> crate::Health {
                self.0.health(deadline).await
            }

            fn set_limit(&self, key: &str, max: u64) -> crate::Result<()> {
                if key != "pool.max_connections" {
                    return Err(crate::unsupported_limit_error(self.0.name(), key));
                }
                self.0.set_max_connections(usize::try_from(max).unwrap_or(usize::MAX))
            }

            async fn close(&self, deadline: crate::Deadline) -> crate::CloseReport {
                super::closed_with(self.0.close(deadline).await)
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
        let pool = &self.0;
        let (mut place, taken) = match Place::enter(pool)? {
            Entered::AtOnce(came) => came,
            // Boxed, as below: few come here, and a future is as large as all that it might hold.
            Entered::Queued(turn) => Box::pin(turn.come(deadline)).await?,
        };
        let connection = match taken {
            Taken::Idle(idle, ticket) if pool.is_fresh(&idle) => {
                place.ticket = Some(ticket);
                idle.connection
            }
            taken => Box::pin(pool.settle(taken, deadline, &mut place)).await?,
        };
        pool.acquired.fetch_add(1, Ordering::Relaxed);
        Ok(PooledConnection::new(connection, place))
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.settings.name
    }

    pub(super) fn limits(&self) -> Vec<crate::LimitUsage> {
        self.0.state.lock().limits(&self.0.settings)
    }

    pub(super) fn status(&self) -> PoolStats {
        let mut status = self.0.state.lock().status(&self.0.settings);
        status.acquired = self.0.acquired.load(Ordering::Relaxed);
        status
    }

    /// Asks the other side through one of the pool's own connections.
    pub(super) async fn health(&self, deadline: Deadline) -> Health {
        let check = async {
            let mut connection = self.acquire(deadline).await?;
            connection.check(deadline.capped(self.0.settings.check_timeout)).await
        };
        match check.await {
            Ok(()) => Health::Healthy,
            Err(error) => Health::Unhealthy { reason: error.to_string() },
        }
    }

    pub(super) fn set_max_connections(&self, max: usize) -> Result<()> {
        if max == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, self.0.settings.name, NO_CONNECTIONS));
        }
        let (surplus, served) = {
            let mut state = self.0.state.lock();
            state.max = max;
            let surplus = state.trim(usize::MAX);
            let served: Vec<_> = std::iter::from_fn(|| state.grant()).collect();
            (surplus, served)
        };
        drop(surplus);
        served.iter().for_each(|waiter| waiter.notify_one());
        Ok(())
    }

    pub(super) async fn close(&self, deadline: Deadline) -> usize {
        self.0.shut();
        // Whether time ran out shows in how many are still out.
        let _ = deadline.run(self.0.settings.name, "closing", self.0.all_left()).await;
        self.0.still_out()
    }
}

impl<S: Store> Pool<S> {
    /// Whether a connection can go out as it is.
    fn is_fresh(&self, idle: &Idle) -> bool {
        let age = self.clock.now().saturating_sub(idle.since);
        age <= self.settings.check_after && idle.connection.is_open()
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
            taken = place.take_another()?;
        }
    }

    /// Whether a connection answers; an error when there is no more time or the pool is closed.
    async fn passes(&self, idle: &mut Idle, deadline: Deadline) -> Result<bool> {
        let patience = deadline.capped(self.settings.check_timeout);
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
        let patience = deadline.capped(self.settings.connect_timeout);
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
            done = until.run(self.settings.name, step, work) => done.map_err(|error| self.described(error)),
        }
    }

    /// Counts an acquire that `error` ended, if that was its deadline.
    fn cut(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Timeout {
            self.state.lock().counts.timed_out += 1;
        }
        error
    }

    /// How many idle connections are kept: besides `max_idle` one for each caller that waits, who is about to
    /// take it.
    fn room_for_idle(&self, state: &State<S>) -> usize {
        self.settings.max_idle.saturating_add(state.waiting())
    }

    /// Drops what has been idle since `moment` or longer.
    fn drop_idle_since(&self, moment: Duration) {
        let old = {
            let mut state = self.state.lock();
            let count = state.store.idle_since(moment);
            state.counts.discarded += count as u64;
            state.store.remove_oldest(count)
        };
        drop(old);
    }

    /// Drops what is idle too long; how long until the next is, if anything is still idle.
    pub(super) fn reap(&self) -> Option<Duration> {
        let (now, idle_timeout) = (self.clock.now(), self.settings.idle_timeout);
        let (old, next) = {
            let mut state = self.state.lock();
            let old = now.checked_sub(idle_timeout).map_or(0, |moment| state.store.idle_since(moment));
            let old = state.reap(old);
            // A timeout too long for the clock is no timeout.
            let next = state.store.oldest().and_then(|oldest| oldest.checked_add(idle_timeout));
            state.reaping = next.is_some();
            (old, next)
        };
        drop(old);
        next.map(|next| next.saturating_sub(now))
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
        let (idle, waiters) = {
            let mut state = self.state.lock();
            state.closed = true;
            let idle = state.store.count();
            (state.reap(idle), state.everyone())
        };
        self.closing.send_replace(true);
        waiters.iter().for_each(|waiter| waiter.notify_one());
        drop(idle);
    }

    /// Callers who have a connection, or would have had one if the pool had not been closed.
    fn still_out(&self) -> usize {
        let state = self.state.lock();
        state.places - state.granted
    }

    async fn all_left(&self) {
        loop {
            // Listen before looking: one who leaves in between is not missed.
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if self.still_out() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Frees a place, for the caller who has waited longest if any does.
    fn leave(&self, mut state: MutexGuard<'_, State<S>>) {
        state.places -= 1;
        let next = state.grant();
        let closed = state.closed;
        drop(state);
        if let Some(next) = next {
            next.notify_one();
        }
        if closed {
            self.left.notify_waiters();
        }
    }

    fn shut_down(&self) -> Error {
        Error::new(ErrorKind::Closed, self.settings.name, "the pool is closed")
    }

    fn described(&self, error: Error) -> Error {
        let (in_use, limit, waiting) = {
            let state = self.state.lock();
            (state.out, state.max, state.waiting())
        };
        error.with_context("in_use", in_use).with_context("limit", limit).with_context("waiting", waiting)
    }
}

/// How a caller comes in.
enum Entered<'a, S: Store> {
    /// With a place.
    AtOnce(Came<S>),
    /// At the end of the queue.
    Queued(Turn<'a, S>),
}

/// A caller's place, and the connection it stands for.
type Came<S> = (Box<Place<S>>, Taken<<S as Store>::Ticket>);

/// A caller that waits. However it ends, it is counted out.
struct Turn<'a, S: Store> {
    pool: &'a Arc<Pool<S>>,
    number: u64,
    woken: Arc<Notify>,
    is_over: bool,
}

impl<S: Store> Turn<'_, S> {
    /// Waits until it has come.
    async fn come(mut self, deadline: Deadline) -> Result<Came<S>> {
        let pool = self.pool;
        let too_late = deadline.run(pool.settings.name, "waiting for a free connection", pending());
        tokio::select! {
            // First, so that nobody whose time is over begins what cannot end.
            biased;
            late = too_late => {
                let error = late.map_or_else(|error| error, |never: Infallible| match never {});
                pool.state.lock().counts.timed_out += 1;
                Err(pool.described(error))
            }
            () = self.woken.notified() => self.take(),
        }
    }

    /// Takes what the place stands for that it was given.
    fn take(&mut self) -> Result<Came<S>> {
        let mut state = self.pool.state.lock();
        if state.closed {
            return Err(self.pool.shut_down());
        }
        self.is_over = true;
        state.granted -= 1;
        Ok(Place::with(self.pool, state.take()))
    }
}

impl<S: Store> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.pool.state.lock();
        let had_a_place = !state.unqueue(self.number);
        if had_a_place {
            state.granted -= 1;
        }
        // What was kept for it.
        let room = self.pool.room_for_idle(&state);
        let surplus = state.trim(room);
        match had_a_place {
            true => self.pool.leave(state),
            false => drop(state),
        }
        drop(surplus);
    }
}

/// A caller's place among the connections, and where its connection goes when it is dropped. However it ends,
/// it is counted out; the place is free only once its connection has been dropped or kept.
struct Place<S: Store> {
    pool: Arc<Pool<S>>,
    phase: Phase,
    ticket: Option<S::Ticket>,
}

/// What a place stands for in the pool's counts.
#[derive(Clone, Copy)]
enum Phase {
    /// Nothing any more, not even a place.
    Left,
    /// Nothing but a place.
    Entered,
    /// A connection being made.
    Making,
    /// A connection that is out. If it does not come back it was discarded.
    Out,
    /// A connection that works and for which there is no room.
    Surplus,
}

impl<S: Store> Place<S> {
    /// Takes a place, or one in the queue.
    fn enter(pool: &Arc<Pool<S>>) -> Result<Entered<'_, S>> {
        let mut state = pool.state.lock();
        if state.closed {
            return Err(pool.shut_down());
        }
        if state.places < state.max {
            state.places += 1;
            let taken = state.take();
            drop(state);
            return Ok(Entered::AtOnce(Self::with(pool, taken)));
        }
        let waiting = state.waiting();
        if waiting >= pool.settings.max_waiting {
            state.counts.rejected += 1;
            drop(state);
            let message = format!("all connections are in use and {waiting} callers wait already");
            return Err(pool.described(Error::new(ErrorKind::Capacity, pool.settings.name, message)));
        }
        let (number, woken) = state.queue();
        Ok(Entered::Queued(Turn { pool, number, woken, is_over: false }))
    }

    /// The place of a caller who was given `taken`.
    fn with(pool: &Arc<Pool<S>>, taken: Taken<S::Ticket>) -> Came<S> {
        let phase = Phase::of(&taken);
        (Box::new(Self { pool: Arc::clone(pool), phase, ticket: None }), taken)
    }

    /// Takes another connection in place of one that was lost.
    fn take_another(&mut self) -> Result<Taken<S::Ticket>> {
        let mut state = self.pool.state.lock();
        if state.closed {
            return Err(self.pool.shut_down());
        }
        let taken = state.take();
        self.phase = Phase::of(&taken);
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
        let pool = &self.pool;
        let idle = Idle { connection, since: pool.clock.now() };
        let mut state = pool.state.lock();
        let fits =
            !state.closed && state.open() <= state.max && state.store.count() < pool.room_for_idle(&state);
        let Some(ticket) = self.ticket.take_if(|_| fits) else {
            self.phase = Phase::Surplus;
            return Some(idle.connection);
        };
        state.store.put(idle, ticket);
        state.out -= 1;
        self.phase = Phase::Left;
        let runtime = state.reaper_wanted();
        pool.leave(state);
        if let Some(runtime) = runtime {
            // Not under the lock: on a runtime that has ended the task is dropped at once, and takes it.
            reaper::start(&runtime, pool);
        }
        None
    }
}

impl Phase {
    fn of<T>(taken: &Taken<T>) -> Self {
        match taken {
            Taken::Idle(..) => Self::Out,
            Taken::Connecting(_) => Self::Making,
        }
    }
}

impl<S: Store> ReturnConnection for Place<S> {
    fn give_back(mut self: Box<Self>, connection: Box<dyn Connection>, keep: bool) {
        let unkept = match keep && connection.is_open() {
            true => self.keep(connection),
            false => Some(connection),
        };
        // Dropped before it is counted out, and before its place is free.
        drop(unkept);
    }
}

impl<S: Store> Drop for Place<S> {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Left) {
            return;
        }
        self.ticket = None;
        let mut state = self.pool.state.lock();
        match self.phase {
            Phase::Left | Phase::Entered => {}
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
        self.pool.leave(state);
    }
}

impl<S: Store> Drop for Bounded<S> {
    fn drop(&mut self) {
        self.0.shut();
    }
}
