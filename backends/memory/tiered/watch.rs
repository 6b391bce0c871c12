//! Hears from Redis which entries have changed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::{KeysInterface, TrackingInterface};
use fred::types::MultipleStrings;
use fred::types::client::Invalidation;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::copies::Copies;
use crate::backends::redis::{Effect, Prepare, RedisClient, fred};
use crate::{ErrorKind, Result};

/// How often Redis is asked for a sign of life, which everything it told before has come ahead of.
const BEAT: Duration = Duration::from_millis(500);

/// How long copies are read after Redis was last asked for the sign of life that then came.
pub(super) const FRESH: Duration = Duration::from_secs(2);

/// How long the marker stays in Redis when nobody renews it, in seconds.
const MARKER_LIFE: i64 = 30;

/// The watch over the one connection by which the entries are read, written and heard of.
pub(super) struct Watch {
    copies: Arc<Copies>,
    /// A key of this watch alone. Redis tells nothing, that the library would pass on, of a whole database that
    /// is flushed; but then the marker is gone too.
    marker: String,
    /// What a new connection will tell, until the task takes it.
    arrived: Mutex<Option<News>>,
    arrival: Notify,
}

type News = Receiver<Invalidation>;

impl Watch {
    pub(super) fn new(copies: Arc<Copies>) -> Self {
        let random = RandomState::new().hash_one(0);
        let marker = format!("memory:TIERED:{random:016x}");
        Self { copies, marker, arrived: Mutex::default(), arrival: Notify::new() }
    }

    /// Listens, for as long as the client is open and used by anyone else.
    pub(super) async fn keep_watch(self: Arc<Self>, client: Weak<RedisClient>) {
        let mut news = None;
        loop {
            let Some(client) = client.upgrade() else { return };
            let asked = self.copies.now();
            match self.hear_while(&mut news, self.beat(&client)).await {
                Ok(()) => {
                    self.catch_up(&mut news);
                    self.copies.fresh(asked + FRESH);
                }
                Err(error) if error.kind() == ErrorKind::Closed => return,
                // The copies are no longer read once they were last known to be fresh for too long.
                Err(_) => {}
            }
            drop(client);
            self.hear_while(&mut news, tokio::time::sleep(BEAT)).await;
        }
    }

    /// A sign of life from Redis, on the connection on which it tells of changes.
    async fn beat(&self, client: &RedisClient) -> Result<()> {
        let key = self.marker.as_str();
        let is_there: bool = client
            .command("EXPIRE", Effect::Read, key.as_bytes(), key.len(), |redis| async move {
                redis.expire(key, MARKER_LIFE, None).await
            })
            .await?;
        if is_there {
            return Ok(());
        }
        self.copies.clear();
        client.set_key(key, "1", Some(Duration::from_secs(MARKER_LIFE as u64))).await
    }

    async fn hear_while<T>(&self, news: &mut Option<News>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.arrival.notified() => self.turn_to_new(news),
                heard = next(news) => match heard {
                    Ok(changed) => self.apply(&changed),
                    Err(RecvError::Lagged(_)) => self.copies.clear(),
                    Err(RecvError::Closed) => *news = None,
                },
                done = &mut work => return done,
            }
        }
    }

    /// Hears all that has been told so far.
    fn catch_up(&self, news: &mut Option<News>) {
        self.turn_to_new(news);
        loop {
            match news.as_mut().map_or(Err(TryRecvError::Empty), Receiver::try_recv) {
                Ok(changed) => self.apply(&changed),
                Err(TryRecvError::Lagged(_)) => self.copies.clear(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn turn_to_new(&self, news: &mut Option<News>) {
        if let Some(arrived) = self.arrived.lock().take() {
            *news = Some(arrived);
        }
    }

    fn apply(&self, changed: &Invalidation) {
        for key in &changed.keys {
            if let Some(key) = key.as_str() {
                self.copies.changed(key);
            }
        }
    }
}

async fn next(news: &mut Option<News>) -> Result<Invalidation, RecvError> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

/// A new connection: Redis has told nothing of what was read on the one before it, so nothing of that is kept.
#[async_trait]
impl Prepare for Watch {
    async fn prepare(&self, client: &Client) -> Result<(), FredError> {
        let news = client.invalidation_rx();
        // Told of: whatever this connection has read, by others' writes alone.
        client.start_tracking(MultipleStrings::new(), false, false, false, true).await?;
        self.copies.clear();
        *self.arrived.lock() = Some(news);
        self.arrival.notify_one();
        Ok(())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("marker", &self.marker).finish_non_exhaustive()
    }
}
