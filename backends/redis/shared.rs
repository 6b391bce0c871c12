//! A connection that many callers use at once.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind as FredKind};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::COMPONENT;
use super::errors::breaks_connection;
use super::link::{Closed, RedisLink, lost};
use crate::pool::PooledConnection;
use crate::{Error, ErrorKind, Result};

/// A connection out of the pool that its lane shares among all callers until it breaks.
#[derive(Debug)]
pub(super) struct SharedLink {
    client: Client,
    closed: Closed,
    /// Nobody may use it any more, though it may not have ended yet.
    broken: AtomicBool,
    /// When the last answer came.
    answered: Mutex<Instant>,
    /// Goes back to the pool, which drops it, with the last caller. Behind a lock because it is not `Sync`.
    _home: Mutex<PooledConnection>,
}

impl SharedLink {
    pub(super) fn new(mut home: PooledConnection) -> Result<Self> {
        let Some(link) = home.get_mut::<RedisLink>() else {
            return Err(Error::new(
                ErrorKind::Internal,
                COMPONENT,
                "the pool holds something other than Redis",
            ));
        };
        let (client, closed) = (link.client().clone(), link.closed().clone());
        // Whatever ends its time here, commands may be under way on it: it is never used again.
        home.set_reusable(false);
        Ok(Self {
            client,
            closed,
            broken: AtomicBool::new(false),
            answered: Mutex::new(Instant::now()),
            _home: Mutex::new(home),
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Acquire) && !self.closed.is_closed()
    }

    /// Lets nobody use it any more.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Runs one command, and finds out from how it went whether the connection can still be used.
    pub(super) async fn run<T>(
        &self,
        began: Instant,
        command: Pin<&mut impl Future<Output = Result<T, FredError>>>,
    ) -> Result<T, FredError> {
        let result = tokio::select! {
            biased;
            result = command => result,
            // The library leaves commands waiting that reach it as its connection ends.
            () = self.closed.wait() => Err(lost()),
        };
        match &result {
            Ok(_) => self.answer(),
            Err(error) if *error.kind() == FredKind::Timeout => self.suspect(began),
            Err(error) if breaks_connection(error) => self.break_off(),
            Err(_) => self.answer(),
        }
        result
    }

    fn answer(&self) {
        // Whoever holds the lock writes the same: there is nothing to wait for.
        if let Some(mut answered) = self.answered.try_lock() {
            *answered = Instant::now();
        }
    }

    /// A command went unanswered. If nothing else was answered meanwhile, the connection is dead, whatever the
    /// system still believes of it.
    fn suspect(&self, began: Instant) {
        if *self.answered.lock() <= began {
            self.break_off();
        }
    }
}
