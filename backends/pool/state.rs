//! What a bounded pool holds, counted exactly, and where it keeps what is idle.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::pool::{Connection, PoolSettings, PoolStats};
use crate::{LimitUsage, Result};

/// A connection that waits to be used.
pub(super) struct Idle {
    pub(super) connection: Box<dyn Connection>,
    /// On the pool's clock.
    pub(super) since: Duration,
}

/// A connection being made. It is polled only outside the pool's lock.
pub(super) type Connecting<T> = Pin<Box<dyn Future<Output = Result<(Box<dyn Connection>, T)>> + Send>>;

/// What a store gives to a caller who may have a connection.
pub(super) enum Taken<T> {
    /// The idle connection that was used last.
    Idle(Idle, T),
    /// None was idle: a new one.
    Connecting(Connecting<T>),
}

/// Keeps idle connections and makes new ones. It is only called under the pool's lock, so it need not mind
/// other callers; and it drops no connection, since that might take long.
pub(super) trait Store: Send + 'static {
    /// What the store needs to take a connection back. Dropped without it, the connection is gone for good.
    type Ticket: Send + 'static;

    /// The idle connection that came back last, or a new one.
    fn take(&mut self) -> Taken<Self::Ticket>;

    /// Keeps a connection that came back.
    fn put(&mut self, idle: Idle, ticket: Self::Ticket);

    /// How many are idle.
    fn count(&self) -> usize;

    /// Since when the one has been idle that has been so the longest.
    fn oldest(&self) -> Option<Duration>;

    /// How many have been idle since `moment` or longer.
    fn idle_since(&self, moment: Duration) -> usize;

    /// Lets go of the `count` that have been idle the longest.
    fn remove_oldest(&mut self, count: usize) -> Vec<Box<dyn Connection>>;
}

/// All that changes in a pool, behind its one lock.
///
/// `making`, `out` and the store's idle connections are together never more than `max`: each connection being made
/// or out has a place, and whoever makes one found none idle. Callers wait only while every place is taken.
pub(super) struct State<S> {
    pub(super) store: S,
    /// Callers who have a connection or may have one at once.
    pub(super) places: usize,
    /// Those of them who waited and have not woken yet.
    pub(super) granted: usize,
    /// Connections being made.
    pub(super) making: usize,
    /// Connections out with callers, or being checked for one.
    pub(super) out: usize,
    /// The most connections there were at once.
    peak: usize,
    pub(super) max: usize,
    queue: VecDeque<Waiter>,
    next_waiter: u64,
    /// The most that waited at once.
    peak_waiting: usize,
    pub(super) closed: bool,
    /// Whether a reaper runs or is about to.
    pub(super) reaping: bool,
    /// Where a reaper can run: known from the first acquire on.
    pub(super) runtime: Option<Handle>,
    pub(super) counts: Counts,
}

/// A caller in the queue; later ones have higher numbers.
struct Waiter {
    number: u64,
    woken: Arc<Notify>,
}

/// What a pool has done; see [`PoolStats`].
#[derive(Default)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) discarded: u64,
    pub(super) reaped: u64,
    pub(super) failed: u64,
    pub(super) timed_out: u64,
    pub(super) rejected: u64,
}

impl<S: Store> State<S> {
    pub(super) fn new(store: S, max: usize) -> Self {
        Self {
            store,
            places: 0,
            granted: 0,
            making: 0,
            out: 0,
            peak: 0,
            max,
            queue: VecDeque::new(),
            next_waiter: 0,
            peak_waiting: 0,
            closed: false,
            reaping: false,
            runtime: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.making + self.out + self.store.count()
    }

    /// Callers who wait: in the queue, or about to leave it.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.granted
    }

    /// Takes a connection out of the store and counts it.
    pub(super) fn take(&mut self) -> Taken<S::Ticket> {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
        let taken = self.store.take();
        match taken {
            Taken::Idle(..) => self.out += 1,
            Taken::Connecting(_) => {
                self.making += 1;
                self.peak = self.peak.max(self.open());
            }
        }
        taken
    }

    /// Queues a caller; its number, and what wakes it when it has a place or the pool is closed.
    pub(super) fn queue(&mut self) -> (u64, Arc<Notify>) {
        let (number, woken) = (self.next_waiter, Arc::new(Notify::new()));
        self.next_waiter += 1;
        self.queue.push_back(Waiter { number, woken: Arc::clone(&woken) });
        self.peak_waiting = self.peak_waiting.max(self.waiting());
        (number, woken)
    }

    /// Takes a caller out of the queue; whether it was still there.
    pub(super) fn unqueue(&mut self, number: u64) -> bool {
        let found = self.queue.binary_search_by_key(&number, |waiter| waiter.number);
        found.is_ok_and(|at| self.queue.remove(at).is_some())
    }

    /// Gives a free place to the caller who has waited longest, for whoever asks to wake once the lock is free.
    #[must_use = "the caller is to be woken"]
    pub(super) fn grant(&mut self) -> Option<Arc<Notify>> {
        if self.closed || self.places >= self.max {
            return None;
        }
        let first = self.queue.pop_front()?;
        self.places += 1;
        self.granted += 1;
        Some(first.woken)
    }

    /// What wakes each caller in the queue.
    pub(super) fn everyone(&self) -> Vec<Arc<Notify>> {
        self.queue.iter().map(|waiter| Arc::clone(&waiter.woken)).collect()
    }

    /// Takes the `count` oldest idle connections out, for the caller to drop once the lock is free.
    #[must_use = "they are dropped outside the lock"]
    pub(super) fn reap(&mut self, count: usize) -> Vec<Box<dyn Connection>> {
        if count == 0 {
            return Vec::new();
        }
        self.counts.reaped += count as u64;
        self.store.remove_oldest(count)
    }

    /// Takes out what is idle beyond `room` or does not fit below the maximum.
    #[must_use = "they are dropped outside the lock"]
    pub(super) fn trim(&mut self, room: usize) -> Vec<Box<dyn Connection>> {
        let idle = self.store.count();
        let excess = self.open().saturating_sub(self.max).max(idle.saturating_sub(room));
        self.reap(excess.min(idle))
    }

    /// Where to start a reaper, if one is wanted; it counts as running from here on.
    pub(super) fn reaper_wanted(&mut self) -> Option<Handle> {
        if self.reaping {
            return None;
        }
        let runtime = self.runtime.clone()?;
        self.reaping = true;
        Some(runtime)
    }

    pub(super) fn status(&self, settings: &PoolSettings) -> PoolStats {
        let mut status = PoolStats::default();
        status.name = settings.name;
        status.open = self.open() as u64;
        status.idle = self.store.count() as u64;
        status.in_use = self.out as u64;
        status.waiting = self.waiting() as u64;
        status.created = self.counts.created;
        status.discarded = self.counts.discarded;
        status.reaped = self.counts.reaped;
        status.failed = self.counts.failed;
        status.timed_out = self.counts.timed_out;
        status.rejected = self.counts.rejected;
        status
    }

    pub(super) fn limits(&self, settings: &PoolSettings) -> Vec<LimitUsage> {
        let usage = |name, unit, used: usize, peak: usize, limit: usize| {
            LimitUsage::new(name, unit, used as u64, peak as u64, Some(limit as u64))
        };
        vec![
            usage("pool.max_connections", "connections", self.open(), self.peak, self.max),
            usage("pool.max_waiting", "callers", self.waiting(), self.peak_waiting, settings.max_waiting),
        ]
    }
}
