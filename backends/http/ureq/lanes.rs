//! One agent per connection.
//!
//! ureq bounds its idle connections and not its active ones, and cannot interrupt one call alone. A lane is an
//! agent of its own that keeps at most one connection: as many lanes as slots, and the server never sees more
//! connections than that; shutting a lane's agent down interrupts its call and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::Authority;
use parking_lot::Mutex;
use ureq::Agent;

/// How each lane's agent is set up.
#[derive(Debug, Clone)]
pub(super) struct LaneSettings {
    pub connect_timeout: Duration,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub idle_timeout: Duration,
    pub proxy: Option<ureq::Proxy>,
}

/// Lanes not in use, the most recently used last.
#[derive(Debug)]
pub(super) struct Lanes {
    settings: LaneSettings,
    max_idle: usize,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    agent: Agent,
    authority: Authority,
    since: Instant,
}

impl Lanes {
    pub(super) fn new(settings: LaneSettings, max_idle: usize) -> Self {
        Self { settings, max_idle, idle: Mutex::default() }
    }

    /// The lane that last spoke to `authority`, or a new one.
    pub(super) fn take(&self, authority: &Authority) -> Agent {
        let mut idle = self.idle.lock();
        let found = idle.iter().rposition(|lane| lane.authority == *authority).map(|at| idle.remove(at));
        drop(idle);
        found.map_or_else(|| self.open(), |lane| lane.agent)
    }

    /// Keeps a lane whose call ended well; the one unused longest goes where there are too many.
    pub(super) fn put_back(&self, agent: Agent, authority: Authority) {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.push(Idle { agent, authority, since: now });
        let expired = idle.iter().filter(|lane| now - lane.since >= self.settings.idle_timeout).count();
        let surplus = idle.len().saturating_sub(self.max_idle).max(expired);
        let gone: Vec<_> = idle.drain(..surplus).collect();
        drop(idle);
        drop(gone);
    }

    /// Connections kept for reuse.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    pub(super) fn clear(&self) {
        self.idle.lock().clear();
    }

    fn open(&self) -> Agent {
        let LaneSettings { connect_timeout, read_timeout, write_timeout, idle_timeout, proxy } =
            &self.settings;
        Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Decided by configuration; ureq would take it from the environment.
            .proxy(proxy.clone())
            .timeout_connect(Some(*connect_timeout))
            .timeout_per_read(*read_timeout)
            .timeout_per_write(*write_timeout)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(*idle_timeout)
            .build()
            .into()
    }
}

/// One call's lane. Whoever takes the agent first, the call that has ended or the caller who has gone, decides
/// what becomes of it.
#[derive(Debug, Clone)]
pub(super) struct Lane(Arc<Mutex<Option<Agent>>>);

impl Lane {
    pub(super) fn new(agent: Agent) -> Self {
        Self(Arc::new(Mutex::new(Some(agent))))
    }

    /// The agent, to make the call with; `None` when the caller has gone.
    pub(super) fn agent(&self) -> Option<Agent> {
        self.0.lock().clone()
    }

    /// Ends the lane's use; gives the agent unless the caller has gone.
    pub(super) fn finish(&self) -> Option<Agent> {
        self.0.lock().take()
    }

    /// Closes the connection if the call has not ended; whether it had not.
    pub(super) fn cut(&self) -> bool {
        // Taken under the lock, shut down outside it: shutting down touches the socket.
        let agent = self.0.lock().take();
        agent.map(Agent::shutdown).is_some()
    }
}

/// Closes the connection when it is dropped before the call has ended.
#[derive(Debug)]
pub(super) struct CutOnDrop(pub Lane);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}
