//! Connection pool: active and idle connections, and aborting an active one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::ureq::Agent;
use ::ureq::unversioned::transport::DefaultConnector;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connector::{CachingResolver, PhaseTrackingConnector};
use super::counters::Counters;
use super::dns_cache::DnsCache;
use super::errors::{AtomicRequestPhase, RequestPhase, shut_down_error};
use super::settings::Settings;
use crate::support::{IdleStack, ResizableSemaphore};
use crate::{Clock, Result};

/// Connections beyond `pool.max_idle` are kept this long for the next call of a burst. Callers that return and take
/// connections all the time would otherwise open one call in six anew (measured: 20 callers, 8 kept idle).
const BURST_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// An origin, and whether connections to it were checked not to go to private addresses.
type Destination = (Arc<str>, bool);

/// A ureq agent with at most one connection, all to one destination.
pub(super) struct PooledAgent {
    destination: Destination,
    agent: Agent,
    phase: Arc<AtomicRequestPhase>,
}

/// The agents of a transport. The permits of `permits` limit the active ones; idle ones count against its limit too.
pub(super) struct AgentPool {
    pub(super) settings: Settings,
    pub(super) counters: Counters,
    permits: ResizableSemaphore,
    connector: Arc<DefaultConnector>,
    dns: Arc<DnsCache>,
    state: Mutex<AgentPoolState>,
    /// Wakes the reaper when there is an idle agent again.
    idle_added: Arc<Notify>,
}

#[derive(Default)]
struct AgentPoolState {
    idle: IdleStack<Destination, PooledAgent>,
    active: Vec<Arc<CallAbortHandle>>,
    reaper_parked: bool,
    closed: bool,
}

impl AgentPool {
    pub(super) fn new(settings: Settings, permits: ResizableSemaphore, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings,
            counters: Counters::default(),
            permits,
            connector: Arc::default(),
            dns: Arc::new(DnsCache::new(clock)),
            state: Mutex::default(),
            idle_added: Arc::default(),
        }
    }

    /// Starts a call to `origin` on an idle agent if there is one, else on a new one. The caller holds a permit.
    pub(super) fn checkout(self: &Arc<Self>, origin: String, deny_private: bool) -> Result<ActiveCall> {
        let destination = (Arc::from(origin), deny_private);
        let mut state = self.state.lock();
        if state.closed {
            return Err(shut_down_error(RequestPhase::Connecting));
        }
        self.evict_idle(&mut state);
        let agent =
            state.idle.pop(&destination).map_or_else(|| self.new_agent(destination), |(agent, _)| agent);
        agent.phase.set(RequestPhase::Connecting);
        let abort =
            Arc::new(CallAbortHandle { agent: agent.agent.clone(), finished: AtomicBool::new(false) });
        state.active.push(Arc::clone(&abort));
        // Under the lock, so that no connection is opened before those in its stead are closed.
        self.evict_idle(&mut state);
        drop(state);
        Ok(ActiveCall { agent: Some(agent), abort, is_complete: false, pool: Arc::clone(self) })
    }

    fn new_agent(&self, destination: Destination) -> PooledAgent {
        let phase = Arc::new(AtomicRequestPhase::new(RequestPhase::Connecting));
        let connector = PhaseTrackingConnector {
            connector: Arc::clone(&self.connector),
            dns: Arc::clone(&self.dns),
            phase: Arc::clone(&phase),
            deny_private: destination.1,
        };
        let resolver = CachingResolver { dns: Arc::clone(&self.dns), phase: Arc::clone(&phase) };
        let agent = Agent::with_parts(self.settings.agent(), connector, resolver);
        PooledAgent { destination, agent, phase }
    }

    /// Closes, oldest first, the idle agents that expired, that exceed `pool.max_idle` after a burst, or that exceed
    /// the limit together with the active ones.
    fn evict_idle(&self, state: &mut AgentPoolState) {
        let len = state.idle.len();
        let unneeded =
            state.idle.count_idle_for(BURST_KEEP_ALIVE).min(len.saturating_sub(self.settings.max_idle));
        let room = self.permits.max().saturating_sub(state.active.len());
        drop(state.idle.trim(self.settings.idle_timeout, room.min(len - unneeded)));
    }

    /// Ends a call; its agent becomes idle if it is given.
    fn finish_call(&self, call: &Arc<CallAbortHandle>, reusable: Option<PooledAgent>) {
        let mut state = self.state.lock();
        state.active.retain(|other| !Arc::ptr_eq(other, call));
        if let Some(agent) = reusable.filter(|_| !state.closed && self.settings.max_idle > 0) {
            state.idle.push(agent.destination.clone(), agent);
            if std::mem::take(&mut state.reaper_parked) {
                self.idle_added.notify_one();
            }
        }
        self.evict_idle(&mut state);
    }

    /// Closes idle agents when they expire, for as long as the pool lives.
    pub(super) fn reap(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        async fn run(pool: Weak<AgentPool>, idle_added: Arc<Notify>) {
            while let Some(next) = pool.upgrade().map(|pool| pool.close_expired()) {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => idle_added.notified().await,
                }
            }
        }
        run(Arc::downgrade(self), Arc::clone(&self.idle_added))
    }

    /// Returns when to look again; `None` while no agent is idle.
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

    /// Changes the limit. Idle agents beyond it are closed now, active ones when their call ends.
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
pub(super) struct ActiveCall {
    agent: Option<PooledAgent>,
    abort: Arc<CallAbortHandle>,
    is_complete: bool,
    pub(super) pool: Arc<AgentPool>,
}

impl ActiveCall {
    fn pooled(&self) -> &PooledAgent {
        self.agent.as_ref().expect("a call has its agent until it is dropped")
    }

    pub(super) fn agent(&self) -> &Agent {
        &self.pooled().agent
    }

    pub(super) fn phase(&self) -> &Arc<AtomicRequestPhase> {
        &self.pooled().phase
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.abort.finished.load(Ordering::Acquire)
    }

    pub(super) fn abort_on_drop(&self) -> AbortOnDrop {
        AbortOnDrop(Arc::clone(&self.abort))
    }

    /// The response was read to its end: the connection can be reused.
    pub(super) fn complete(mut self) {
        self.is_complete = true;
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        if !self.is_complete {
            self.abort.abort();
        }
        // From here on an abort has no effect: the agent may serve another call.
        let is_reusable = !self.abort.finished.swap(true, Ordering::AcqRel);
        let agent = self.agent.take().filter(|_| is_reusable);
        self.pool.finish_call(&self.abort, agent);
    }
}

/// Aborts a call from another thread.
struct CallAbortHandle {
    agent: Agent,
    finished: AtomicBool,
}

impl CallAbortHandle {
    /// Closes the call's connection unless the call has finished; returns whether it did.
    fn abort(&self) -> bool {
        let aborted = !self.finished.swap(true, Ordering::AcqRel);
        if aborted {
            self.agent.clone().shutdown();
        }
        aborted
    }
}

/// Aborts a call when dropped.
pub(super) struct AbortOnDrop(Arc<CallAbortHandle>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
