//! One connection to Redis: a fred client whose socket closes when it is dropped.

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use fred::clients::Client;
use fred::interfaces::ClientLike;
use futures_util::poll;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::errors::{connect_error, connection_lost_error, from_fred};
use super::settings::Settings;
use crate::Result;
use crate::pool::{Connection, Connector};

/// A fred client and the task that drives its socket.
///
/// That task owns a client itself, so dropping the last client of ours would close nothing: dropping a connection
/// aborts the task, which closes the socket.
#[derive(Debug)]
pub(super) struct FredConnection {
    client: Client,
    driver_task: AbortHandle,
    closed: CancellationToken,
    closing: ClosingConnections,
}

/// The close signals of dropped connections whose sockets may still be open.
type ClosingConnections = Arc<Mutex<Vec<CancellationToken>>>;

impl FredConnection {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Closes the socket when it is aborted.
    pub(super) fn driver_task(&self) -> &AbortHandle {
        &self.driver_task
    }

    /// Cancelled once the socket is closed, for any reason.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

#[async_trait]
impl Connection for FredConnection {
    fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    async fn check(&mut self) -> Result<()> {
        let pong: Result<String, _> = self.client.ping(None).await;
        pong.map(|_| ()).map_err(|error| from_fred(&error, "PING"))
    }
}

impl Drop for FredConnection {
    fn drop(&mut self) {
        self.driver_task.abort();
        if self.is_open() {
            self.closing.lock().push(self.closed.clone());
        }
    }
}

/// Opens connections.
#[derive(Debug)]
pub(super) struct RedisConnector {
    settings: Settings,
    closing: ClosingConnections,
}

impl RedisConnector {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, closing: ClosingConnections::default() }
    }
}

#[async_trait]
impl Connector for RedisConnector {
    async fn connect(&self) -> Result<Box<dyn Connection>> {
        // An aborted task closes its socket when the runtime next polls it. Waiting for that keeps the number of
        // connections that the server sees within the pool's limit.
        let closing = std::mem::take(&mut *self.closing.lock());
        for closed in closing {
            closed.cancelled().await;
        }
        let client = self.settings.client();
        // The first poll subscribes: fred does not repeat the event to later subscribers.
        let mut connected = pin!(client.wait_for_connect());
        let _ = poll!(connected.as_mut());
        let driver = client.connect();
        let closed = CancellationToken::new();
        let connection = FredConnection {
            client: client.clone(),
            driver_task: driver.abort_handle(),
            closed: closed.clone(),
            closing: Arc::clone(&self.closing),
        };
        let cancel_on_drop = closed.drop_guard();
        tokio::spawn(async move {
            let _cancel_on_drop = cancel_on_drop;
            let _ = driver.await;
        });
        tokio::select! {
            biased;
            result = connected => result.map_err(|error| connect_error(&error))?,
            () = connection.closed.cancelled() => return Err(connect_error(&connection_lost_error())),
        }
        Ok(Box::new(connection))
    }
}
