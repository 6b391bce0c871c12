//! Connection pool: active and idle connections, and aborting an active one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::counters::Counters;
use super::errors::{AtomicRequestPhase, RequestPhase, shut_down_error};
use super::settings::Settings;
use crate::Result;
use crate::support::{IdleStack, ResizableSemaphore};

/// Connections beyond `pool.max_idle` are kept this long for the next call of a burst. Callers that return and take
/// connections all the time would otherwise open one call in six anew (measured: 20 callers, 8 kept idle).
const BURST_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A connection to one origin, which connects when it is used first.
pub(super) trait PooledConnection: Send + 'static {
    /// Closes the connection from another thread.
    type Abort: Fn() + Send + Sync + 'static;

    fn abort_handle(&self) -> Self::Abort;

    /// The phase of the request that uses the connection.
    fn phase(&self) -> &Arc<AtomicRequestPhase>;
}

/// Requests with equal keys can share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) origin: Arc<str>,
    /// The tokio runtime that the connection belongs to, if it does.
    pub(super) runtime: Option<tokio::runtime::Id>,
    /// Whether it was checked not to go to a private address.
    pub(super) deny_private: bool,
}

/// The connections of a transport. The permits of `permits` limit the active ones; idle ones count against its limit
/// too.
pub(super) struct ConnectionPool<C: PooledConnection> {
    pub(super) settings: Arc<Settings>,
    pub(super) counters: Counters,
    permits: ResizableSemaphore,
    state: Mutex<PoolState<C>>,
    /// Wakes the reaper when there is an idle connection again.
    idle_added: Arc<Notify>,
}

struct PoolState<C: PooledConnection> {
    idle: IdleStack<PoolKey, C>,
    active: Vec<Arc<CallAbortHandle<C>>>,
    reaper_parked: bool,
    closed: bool,
}

impl<C: PooledConnection> ConnectionPool<C> {
    pub(super) fn new(settings: Arc<Settings>, permits: ResizableSemaphore) -> Self {
        let state =
            PoolState { idle: IdleStack::new(), active: Vec::new(), reaper_parked: false, closed: false };
        Self {
            settings,
            counters: Counters::default(),
            permits,
            state: Mutex::new(state),
            idle_added: Arc::default(),
        }
    }

    /// Starts a call on an idle connection if there is one, else on a new one. The caller holds a permit.
    pub(super) fn checkout(
        self: &Arc<Self>,
        key: PoolKey,
        new: impl FnOnce(&PoolKey) -> C,
    ) -> Result<ActiveCall<C>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(shut_down_error(RequestPhase::Connecting));
        }
        self.evict_idle(&mut state);
        let connection = state.idle.pop(&key).map_or_else(|| new(&key), |(connection, _)| connection);
        connection.phase().set(RequestPhase::Connecting);
        let abort =
            Arc::new(CallAbortHandle { abort: connection.abort_handle(), finished: AtomicBool::new(false) });
        state.active.push(Arc::clone(&abort));
        // Under the lock, so that no connection is opened before those in its stead are closed.
        self.evict_idle(&mut state);
        drop(state);
        Ok(ActiveCall {
            connection: Some(connection),
            key,
            abort,
            is_complete: false,
            pool: Arc::clone(self),
        })
    }

    /// Closes, oldest first, the idle connections that expired, that exceed `pool.max_idle` after a burst, or that
    /// exceed the limit together with the active ones.
    fn evict_idle(&self, state: &mut PoolState<C>) {
        let len = state.idle.len();
        let unneeded =
            state.idle.count_idle_for(BURST_KEEP_ALIVE).min(len.saturating_sub(self.settings.max_idle));
        let room = self.permits.max().saturating_sub(state.active.len());
        drop(state.idle.trim(self.settings.idle_timeout, room.min(len - unneeded)));
    }

    /// Ends a call; its connection becomes idle if it is given.
    fn finish_call(&self, call: &Arc<CallAbortHandle<C>>, reusable: Option<(PoolKey, C)>) {
        let mut state = self.state.lock();
        if let Some(at) = state.active.iter().position(|other| Arc::ptr_eq(other, call)) {
            state.active.swap_remove(at);
        }
        if let Some((key, connection)) = reusable.filter(|_| !state.closed && self.settings.max_idle > 0) {
            state.idle.push(key, connection);
            if std::mem::take(&mut state.reaper_parked) {
                self.idle_added.notify_one();
            }
        }
        self.evict_idle(&mut state);
    }

    /// Closes idle connections when they expire, for as long as the pool lives.
    pub(super) fn reap(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<C> {
        async fn run<C: PooledConnection>(pool: Weak<ConnectionPool<C>>, idle_added: Arc<Notify>) {
            while let Some(next) = pool.upgrade().map(|pool| pool.close_expired()) {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => idle_added.notified().await,
                }
            }
        }
        run(Arc::downgrade(self), Arc::clone(&self.idle_added))
    }

    /// Returns when to look again; `None` while no connection is idle.
    fn close_expired(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        self.evict_idle(&mut state);
        let oldest = state.idle.oldest_since();
        state.reaper_parked = oldest.is_none();
        // At least once a second while some are idle: a burst may have left more than `pool.max_idle`.
        oldest.map(|since| (since + self.settings.idle_timeout).min(Instant::now() + BURST_KEEP_ALIVE))
    }

    pub(super) fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }

    /// Changes the limit. Idle connections beyond it are closed now, active ones when their call ends.
    pub(super) fn set_max_connections(&self, max: usize) {
        self.permits.set_max(max);
        self.evict_idle(&mut self.state.lock());
    }

    /// Closes every connection, rejects further calls, and returns how many calls that aborted.
    pub(super) fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let (idle, active) = (std::mem::take(&mut state.idle), state.active.clone());
        drop(state);
        drop(idle);
        active.iter().filter(|call| call.abort()).count()
    }
}

/// A call in progress. Dropping it closes its connection, unless it is [complete](Self::complete).
pub(super) struct ActiveCall<C: PooledConnection> {
    connection: Option<C>,
    key: PoolKey,
    abort: Arc<CallAbortHandle<C>>,
    is_complete: bool,
    pub(super) pool: Arc<ConnectionPool<C>>,
}

impl<C: PooledConnection> ActiveCall<C> {
    pub(super) fn connection(&self) -> &C {
        self.connection.as_ref().expect("a call has its connection until it is dropped")
    }

    #[cfg(feature = "hyper")]
    pub(super) fn connection_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect("a call has its connection until it is dropped")
    }

    pub(super) fn phase(&self) -> &Arc<AtomicRequestPhase> {
        self.connection().phase()
    }

    #[cfg(feature = "ureq")]
    pub(super) fn is_aborted(&self) -> bool {
        self.abort.finished.load(Ordering::Acquire)
    }

    pub(super) fn abort_on_drop(&self) -> AbortOnDrop<C> {
        AbortOnDrop(Arc::clone(&self.abort))
    }

    /// The response was read to its end: the connection can be reused.
    pub(super) fn complete(mut self) {
        self.is_complete = true;
    }
}

impl<C: PooledConnection> Drop for ActiveCall<C> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.abort.abort();
        }
        // From here on an abort has no effect: the connection may serve another call.
        let is_reusable = !self.abort.finished.swap(true, Ordering::AcqRel);
        let connection = self.connection.take().filter(|_| is_reusable);
        self.pool.finish_call(&self.abort, connection.map(|connection| (self.key.clone(), connection)));
    }
}

/// Aborts a call from another thread.
struct CallAbortHandle<C: PooledConnection> {
    abort: C::Abort,
    finished: AtomicBool,
}

impl<C: PooledConnection> CallAbortHandle<C> {
    /// Closes the call's connection unless the call has finished; returns whether it did.
    fn abort(&self) -> bool {
        let aborted = !self.finished.swap(true, Ordering::AcqRel);
        if aborted {
            (self.abort)();
        }
        aborted
    }
}

/// Aborts a call when dropped.
pub(super) struct AbortOnDrop<C: PooledConnection>(Arc<CallAbortHandle<C>>);

impl<C: PooledConnection> Drop for AbortOnDrop<C> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
