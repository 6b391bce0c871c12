//! Connections: which are in use, which are idle, and how to hang up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::ureq::Agent;
use ::ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ::ureq::unversioned::transport::{
    ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::errors::{Stage, Step, cut_off};
use super::names::Names;
use super::settings::Settings;
use crate::http::HttpStats;
use crate::support::{OwnedPermit, ResizableSemaphore};
use crate::{Clock, Deadline, Result};

/// How long a connection beyond `pool.max_idle` is kept for the next call of a burst. Callers that leave and take
/// connections all the time would otherwise open one call in six anew (measured: 20 callers, 8 kept idle).
const BURST: Duration = Duration::from_secs(1);

/// A ureq agent with at most one connection, all to one origin.
pub(super) struct Line {
    origin: String,
    agent: Agent,
    stage: Arc<Stage>,
}

/// A line and when it became idle.
struct Idle {
    line: Line,
    since: Duration,
}

/// All lines of a transport.
pub(super) struct Switchboard {
    pub(super) settings: Settings,
    pub(super) connections: ResizableSemaphore,
    pub(super) counters: Counters,
    clock: Arc<dyn Clock>,
    connector: Arc<DefaultConnector>,
    names: Arc<Names>,
    lines: Mutex<Lines>,
    call_ended: Notify,
}

#[derive(Default)]
struct Lines {
    /// Oldest first.
    idle: Vec<Idle>,
    active: HashMap<u64, Arc<Switch>>,
    next_call: u64,
    closed: bool,
}

impl Switchboard {
    pub(super) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            connections: ResizableSemaphore::new(
                "http.max_connections",
                "connections",
                settings.max_connections,
            ),
            settings,
            counters: Counters::default(),
            connector: Arc::new(DefaultConnector::default()),
            names: Arc::new(Names::new(Arc::clone(&clock))),
            clock,
            lines: Mutex::default(),
            call_ended: Notify::new(),
        }
    }

    /// A call to `origin` on an idle line if there is one, else on a new one.
    pub(super) fn dial(self: &Arc<Self>, origin: String, slot: OwnedPermit) -> Result<Call> {
        let mut lines = self.lines.lock();
        if lines.closed {
            return Err(cut_off());
        }
        let mut closing = self.trim(&mut lines);
        let line = match lines.idle.iter().rposition(|idle| idle.line.origin == origin) {
            Some(at) => lines.idle.remove(at).line,
            None => self.new_line(origin),
        };
        let switch = Arc::new(Switch { agent: line.agent.clone(), over: AtomicBool::new(false) });
        let id = lines.next_call;
        lines.next_call += 1;
        lines.active.insert(id, Arc::clone(&switch));
        closing.extend(self.trim(&mut lines));
        // Closed under the lock: nobody opens a connection before these are closed.
        drop(closing);
        drop(lines);
        Ok(Call { id, switch, line: Some(line), slot: Some(slot), switchboard: Arc::clone(self) })
    }

    /// Takes out, oldest first, the idle lines that were unused for too long, and those for which the limit has no
    /// room beside the active ones.
    fn trim(&self, lines: &mut Lines) -> Vec<Idle> {
        let now = self.clock.now();
        let unused_for =
            |time| lines.idle.iter().take_while(|idle| now.saturating_sub(idle.since) >= time).count();
        let expired = unused_for(self.settings.idle_timeout());
        let unneeded = unused_for(BURST).min(lines.idle.len().saturating_sub(self.settings.max_idle));
        let room = self.connections.max().saturating_sub(lines.active.len());
        let surplus = lines.idle.len().saturating_sub(room);
        lines.idle.drain(..expired.max(unneeded).max(surplus)).collect()
    }

    fn new_line(&self, origin: String) -> Line {
        let stage = Arc::new(Stage::new());
        let (connector, names) = (Arc::clone(&self.connector), Arc::clone(&self.names));
        let dialer = Dialer { connector, names: Arc::clone(&names), stage: Arc::clone(&stage) };
        let lookup = Lookup { names, stage: Arc::clone(&stage) };
        Line { origin, agent: Agent::with_parts(self.settings.agent(), dialer, lookup), stage }
    }

    /// Takes a call off the board; its line becomes idle if it can be used again.
    fn end(&self, id: u64, line: Option<Line>) {
        let mut lines = self.lines.lock();
        lines.active.remove(&id);
        if let Some(line) = line.filter(|_| !lines.closed && self.settings.max_idle > 0) {
            lines.idle.push(Idle { line, since: self.clock.now() });
        }
        drop(self.trim(&mut lines));
        drop(lines);
        self.call_ended.notify_waiters();
    }

    pub(super) fn idle(&self) -> u64 {
        self.lines.lock().idle.len() as u64
    }

    pub(super) fn set_max_connections(&self, max: usize) {
        self.connections.set_max(max);
        let mut lines = self.lines.lock();
        drop(self.trim(&mut lines));
    }

    /// Refuses new calls, waits for active ones until `deadline` and cuts the rest.
    pub(super) async fn shutdown(&self, deadline: Deadline) -> usize {
        self.connections.close();
        let all_ended = async {
            loop {
                let ended = self.call_ended.notified();
                if self.lines.lock().active.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        // Whether they ended or the deadline passed, what is left is counted next.
        let _ = tokio::time::timeout_at(deadline.instant(), all_ended).await;
        self.close()
    }

    /// Closes every connection now and gives how many calls that cut.
    pub(super) fn close(&self) -> usize {
        self.connections.close();
        let mut lines = self.lines.lock();
        lines.closed = true;
        let idle = std::mem::take(&mut lines.idle);
        let active: Vec<_> = lines.active.values().cloned().collect();
        drop(lines);
        drop(idle);
        active.iter().filter(|switch| switch.hang_up()).count()
    }
}

/// A call in progress. Dropping it gives back its slot, after its line is idle or closed.
pub(super) struct Call {
    id: u64,
    switch: Arc<Switch>,
    line: Option<Line>,
    slot: Option<OwnedPermit>,
    pub(super) switchboard: Arc<Switchboard>,
}

impl Call {
    fn line(&self) -> &Line {
        self.line.as_ref().expect("a call has its line until it is dropped")
    }

    pub(super) fn agent(&self) -> &Agent {
        &self.line().agent
    }

    pub(super) fn stage(&self) -> &Arc<Stage> {
        &self.line().stage
    }

    /// Whether somebody hung up.
    pub(super) fn is_over(&self) -> bool {
        self.switch.over.load(Ordering::Acquire)
    }

    /// The exchange is complete and the connection can be used again.
    pub(super) fn complete(self) {
        drop(self);
    }

    /// The exchange failed or was given up: the connection is closed.
    pub(super) fn fail(self) {
        self.switch.hang_up();
        drop(self);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // From here on nobody can hang up: the line may serve another call.
        let reusable = !self.switch.over.swap(true, Ordering::AcqRel) && !std::thread::panicking();
        let line = self.line.take().filter(|_| reusable);
        self.switchboard.end(self.id, line);
        drop(self.slot.take());
    }
}

/// Ends a call from outside.
struct Switch {
    agent: Agent,
    over: AtomicBool,
}

impl Switch {
    /// Closes the call's connection unless the call has ended; says whether it did.
    fn hang_up(&self) -> bool {
        let cut = !self.over.swap(true, Ordering::AcqRel);
        if cut {
            self.agent.clone().shutdown();
        }
        cut
    }
}

/// Hangs up when dropped.
pub(super) struct HangUp(Arc<Switch>);

impl HangUp {
    pub(super) fn new(call: &Call) -> Self {
        Self(Arc::clone(&call.switch))
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// Connects a line, saying so.
struct Dialer {
    connector: Arc<DefaultConnector>,
    names: Arc<Names>,
    stage: Arc<Stage>,
}

impl Connector for Dialer {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> std::result::Result<Option<Self::Out>, ::ureq::Error> {
        self.stage.set(Step::Connecting);
        let connected = self.connector.connect(details, chained);
        match connected {
            Ok(_) => self.stage.set(Step::Response),
            Err(_) => self.names.forget(details.uri),
        }
        connected
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// Looks up names for a line, saying so.
#[derive(Debug)]
struct Lookup {
    names: Arc<Names>,
    stage: Arc<Stage>,
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &::http::Uri,
        config: &::ureq::config::Config,
        _: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ::ureq::Error> {
        if let Some(known) = self.names.known(uri) {
            return Ok(known);
        }
        self.stage.set(Step::Connecting);
        let found = self.names.look_up(uri, config)?;
        self.stage.set(Step::Response);
        Ok(found)
    }
}

/// What the transport has done.
#[derive(Default)]
pub(super) struct Counters {
    responses: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    slowest_ns: AtomicU64,
}

impl Counters {
    pub(super) fn responded(&self, after: Duration) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.slowest_ns.fetch_max(ns, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, stats: &mut HttpStats) {
        stats.responses = self.responses.load(Ordering::Relaxed);
        stats.failures = self.failures.load(Ordering::Relaxed);
        stats.rejected = self.rejected.load(Ordering::Relaxed);
        stats.bytes_sent = self.bytes_sent.load(Ordering::Relaxed);
        stats.bytes_received = self.bytes_received.load(Ordering::Relaxed);
        stats.slowest_response = Duration::from_nanos(self.slowest_ns.load(Ordering::Relaxed));
    }
}
