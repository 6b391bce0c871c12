//! One connection to Redis: the library's client, and the certainty that dropping it ends it.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use futures_util::poll;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::errors::from_fred;
use super::settings::Settings;
use crate::Result;
use crate::pool::{Connection, Connector};

/// Tells whoever waits that a connection has ended. It stays told.
#[derive(Debug, Clone)]
pub(super) struct Closed(Arc<Semaphore>);

impl Closed {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) {
        // No permit is ever given: this ends with the semaphore.
        let _ = self.0.acquire().await;
    }
}

/// Tells when it is dropped, whichever way the task that holds it ends.
struct TellClosed(Closed);

impl Drop for TellClosed {
    fn drop(&mut self) {
        self.0.0.close();
    }
}

/// A connection: the library's client and the task that drives its socket.
pub(super) struct RedisLink {
    client: Client,
    router: AbortHandle,
    closed: Closed,
    ended: Arc<Mutex<Vec<Closed>>>,
}

impl RedisLink {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn closed(&self) -> &Closed {
        &self.closed
    }
}

#[async_trait]
impl Connection for RedisLink {
    fn is_open(&self) -> bool {
        !self.closed.is_closed()
    }

    async fn check(&mut self) -> Result<()> {
        let pong: Result<String, _> = self.client.ping(None).await;
        pong.map(|_| ()).map_err(|error| from_fred(&error, "PING"))
    }
}

/// The library's client is kept alive by its own task, so dropping the client ends nothing: its task must be
/// aborted, and the socket goes with it.
impl Drop for RedisLink {
    fn drop(&mut self) {
        self.router.abort();
        if !self.closed.is_closed() {
            self.ended.lock().push(self.closed.clone());
        }
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("closed", &self.closed.is_closed()).finish_non_exhaustive()
    }
}

/// Makes connections.
pub(super) struct RedisConnector {
    settings: Settings,
    /// Connections dropped whose sockets may not be closed yet.
    ended: Arc<Mutex<Vec<Closed>>>,
}

impl RedisConnector {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, ended: Arc::default() }
    }
}

#[async_trait]
impl Connector for RedisConnector {
    async fn connect(&self) -> Result<Box<dyn Connection>> {
        // An aborted task closes its socket when the runtime next gets to it. Waiting for that keeps the
        // server from ever counting one connection too many.
        let ended = std::mem::take(&mut *self.ended.lock());
        for closed in ended {
            closed.wait().await;
        }
        let client = self.settings.client();
        // Its first poll subscribes; without that, the news of a quick connection could be missed.
        let mut connected = pin!(client.wait_for_connect());
        let _ = poll!(connected.as_mut());
        let task = client.connect();
        let closed = Closed::new();
        let link = RedisLink {
            client: client.clone(),
            router: task.abort_handle(),
            closed: closed.clone(),
            ended: Arc::clone(&self.ended),
        };
        let tell = TellClosed(closed);
        tokio::spawn(async move {
            let _ = task.await;
            drop(tell);
        });
        tokio::select! {
            biased;
            result = connected => result.map_err(|error| from_fred(&error, "connect"))?,
            () = link.closed.wait() => return Err(from_fred(&lost(), "connect")),
        }
        Ok(Box::new(link))
    }
}

/// The library's error for a connection that has gone.
pub(super) fn lost() -> fred::error::Error {
    fred::error::Error::new(fred::error::ErrorKind::IO, "the connection ended")
}

impl fmt::Debug for RedisConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnector").field("settings", &self.settings).finish_non_exhaustive()
    }
}
