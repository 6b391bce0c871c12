//! A connection that all callers use at the same time.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use fred::interfaces::ClientLike;
use fred::types::Value;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::COMPONENT;
use super::errors::{breaks_connection, connection_lost_error, is_unexpected_reply};
use super::fred_connection::FredConnection;
use super::in_flight::InFlightGuard;
use crate::pool::PooledConnection;
use crate::{Deadline, Error, ErrorKind, Result};

/// Every so many commands a reply is checked to be the reply to its command: those to reads all look alike.
const COMMANDS_PER_CHECK: u64 = 64;

/// A pooled connection with the commands of all callers in flight. Redis replies in the order of the commands, so a
/// reply shows that every earlier command is done.
#[derive(Debug)]
pub(super) struct MultiplexedConnection {
    client: Client,
    closed: CancellationToken,
    driver_task: AbortHandle,
    /// Replies are out of step with their commands: no further one is handed to a caller.
    out_of_step: AtomicBool,
    /// No further commands may use it, though its socket may still be open.
    broken: AtomicBool,
    sent: AtomicU64,
    /// Replies received so far.
    replies: AtomicU64,
    probing: Mutex<Probing>,
    has_abandoned: AtomicBool,
    command_timeout: Duration,
    runtime: Handle,
    /// Dropped with the last user of the connection, which frees the pool's permit. `Mutex` makes it `Sync`.
    _pooled: Mutex<PooledConnection>,
}

/// What the reply to a `PING` is to show.
#[derive(Debug, Default)]
struct Probing {
    /// That these are done: commands whose callers stopped waiting, by number. They still count as in flight, since fred
    /// still holds them.
    abandoned: Vec<(u64, InFlightGuard)>,
    /// That replies are in order.
    check_due: bool,
    /// A task sends it and waits for the reply.
    is_running: bool,
}

impl MultiplexedConnection {
    pub(super) fn new(mut pooled: PooledConnection, command_timeout: Duration) -> Result<Self> {
        let Some(connection) = pooled.get_mut::<FredConnection>() else {
            return Err(Error::new(
                ErrorKind::Internal,
                COMPONENT,
                "the pool returned a non-Redis connection",
            ));
        };
        let (client, closed) = (connection.client().clone(), connection.closed().clone());
        let driver_task = connection.driver_task().clone();
        // Commands may be in flight on it when it is dropped: it is never reused.
        pooled.set_reusable(false);
        Ok(Self {
            client,
            closed,
            driver_task,
            out_of_step: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            probing: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
            command_timeout,
            runtime: Handle::current(),
            _pooled: Mutex::new(pooled),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Acquire) && !self.closed.is_cancelled()
    }

    fn mark_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Closes the socket: all commands in flight fail.
    fn break_off(&self) {
        self.mark_broken();
        self.out_of_step.store(true, Ordering::Release);
        self.driver_task.abort();
    }

    /// Runs one command until `deadline`, and marks the connection broken if the result shows that it is. A command
    /// that gets no reply, because of the deadline or a dropped future, takes its share of the limits out of
    /// `in_flight`: it stays in use until a later reply, or until the connection closes.
    pub(super) async fn run<T>(
        self: &Arc<Self>,
        deadline: Deadline,
        in_flight: &mut Option<InFlightGuard>,
        command: impl Future<Output = Result<T, FredError>>,
    ) -> Result<T, FredError> {
        let (started, replies_before) = (Instant::now(), self.replies.load(Ordering::Relaxed));
        let number = self.next_number();
        if number.is_multiple_of(COMMANDS_PER_CHECK) {
            let mut probing = self.probing.lock();
            probing.check_due = true;
            self.start_probing(&mut probing);
        }
        let mut unanswered = Unanswered { connection: self, in_flight, number, answered: false };
        let result = tokio::select! {
            biased;
            result = pin!(command) => result,
            // fred never completes commands that reach it while its connection closes.
            () = self.closed.cancelled() => Err(connection_lost_error()),
            () = tokio::time::sleep_until(deadline.instant()) => {
                // Half: connecting may have used a part of the caller's deadline.
                let silent = self.replies.load(Ordering::Relaxed) == replies_before;
                if silent && started.elapsed() >= self.command_timeout / 2 {
                    self.mark_broken();
                }
                return Err(FredError::new(FredKind::Timeout, "deadline"));
            }
        };
        unanswered.answered = true;
        if self.out_of_step.load(Ordering::Acquire) {
            return Err(connection_lost_error());
        }
        match &result {
            Err(error) if is_unexpected_reply(error) => self.break_off(),
            Err(error) if breaks_connection(error) => self.mark_broken(),
            _ => self.replied(number),
        }
        result
    }

    fn next_number(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Command `number` got its reply.
    fn replied(&self, number: u64) {
        self.replies.fetch_add(1, Ordering::Relaxed);
        if self.has_abandoned.load(Ordering::Acquire) {
            let abandoned = &mut self.probing.lock().abandoned;
            abandoned.retain(|(abandoned, _)| *abandoned > number);
            self.has_abandoned.store(!abandoned.is_empty(), Ordering::Release);
        }
    }

    /// Keeps the share of a command whose caller stopped waiting, and finds out whether the server still replies.
    fn abandon(self: &Arc<Self>, number: u64, guard: InFlightGuard) {
        let mut probing = self.probing.lock();
        probing.abandoned.push((number, guard));
        self.has_abandoned.store(true, Ordering::Release);
        self.start_probing(&mut probing);
    }

    fn start_probing(self: &Arc<Self>, probing: &mut Probing) {
        if !std::mem::replace(&mut probing.is_running, true) {
            self.runtime.spawn(Self::probe(Arc::downgrade(self)));
        }
    }

    /// Sends `PING` with a number until no abandoned command is left. A connection that does not reply in time, or not
    /// with the number, is broken.
    async fn probe(connection: Weak<Self>) {
        while let Some((client, closed, timeout, number)) =
            connection.upgrade().and_then(|it| it.next_probe())
        {
            let expected = number.to_string();
            let reply = tokio::select! {
                reply = client.ping::<Value>(Some(expected.clone())) => reply.ok(),
                () = closed.cancelled() => None,
                () = tokio::time::sleep(timeout) => None,
            };
            let Some(connection) = connection.upgrade() else { return };
            match reply {
                Some(reply) if reply.as_str().as_deref() == Some(&*expected) => connection.replied(number),
                Some(_) => return connection.break_off(),
                None => return connection.mark_broken(),
            }
        }
    }

    /// What the next probe needs, without keeping the connection open; `None` ends the probing.
    fn next_probe(&self) -> Option<(Client, CancellationToken, Duration, u64)> {
        let mut probing = self.probing.lock();
        probing.is_running = std::mem::take(&mut probing.check_due) || !probing.abandoned.is_empty();
        let probe = || (self.client.clone(), self.closed.clone(), self.command_timeout, self.next_number());
        probing.is_running.then(probe)
    }
}

/// A command in flight.
struct Unanswered<'a> {
    connection: &'a Arc<MultiplexedConnection>,
    in_flight: &'a mut Option<InFlightGuard>,
    number: u64,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(guard) = self.in_flight.take_if(|_| !self.answered) {
            self.connection.abandon(self.number, guard);
        }
    }
}
