//! A connection, driven by the request that uses it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::Uri;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, TrackedIo};
use super::connect::{Route, connect};
use super::errors::from_hyper;
use crate::Result;
use crate::backends::http::connection_pool;
use crate::backends::http::errors::{AtomicRequestPhase, RequestPhase};
use crate::backends::http::settings::{MAX_HEAD_BYTES, Settings};

/// As ureq's.
const MAX_HEADERS: usize = 128;

/// A connection in the pool; the request that uses it first opens it.
pub(in crate::backends::http) struct PooledConnection {
    pub(super) open: Option<OpenConnection>,
    pub(super) aborted: CancellationToken,
    phase: Arc<AtomicRequestPhase>,
}

impl PooledConnection {
    pub(super) fn new() -> Self {
        let phase = Arc::new(AtomicRequestPhase::new(RequestPhase::Connecting));
        Self { open: None, aborted: CancellationToken::new(), phase }
    }
}

impl connection_pool::PooledConnection for PooledConnection {
    type Abort = Box<dyn Fn() + Send + Sync>;

    fn abort_handle(&self) -> Self::Abort {
        let aborted = self.aborted.clone();
        Box::new(move || aborted.cancel())
    }

    fn phase(&self) -> &Arc<AtomicRequestPhase> {
        &self.phase
    }
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// hyper's connection has no task of its own: whoever waits for it [drives](Driver::drive) it.
pub(super) struct OpenConnection {
    pub(super) sender: Sender,
    pub(super) driver: Driver,
}

pub(super) struct Driver {
    /// `None` once it has ended.
    connection: Option<http1::Connection<TokioIo<TrackedIo>, Full<Bytes>>>,
    pub(super) activity: Arc<Activity>,
}

impl OpenConnection {
    /// Connects to the server of `uri`.
    pub(super) async fn open(uri: &Uri, route: &Route, settings: &Settings) -> Result<Self> {
        let io = connect(uri, route, settings).await?;
        let activity = Activity::new();
        let io = TokioIo::new(TrackedIo::new(io, Arc::clone(&activity)));
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD_BYTES).max_buf_size(MAX_HEAD_BYTES);
        let (sender, connection) =
            builder.handshake(io).await.map_err(|cause| from_hyper(cause, RequestPhase::Connecting))?;
        Ok(Self { sender, driver: Driver { connection: Some(connection), activity } })
    }

    /// Whether another request can be sent: the last one has ended, and the server has not closed.
    pub(super) fn is_reusable(&mut self) -> bool {
        let ready = poll_fn(|context| {
            self.driver.poll(context);
            self.sender.poll_ready(context)
        });
        matches!(ready.now_or_never(), Some(Ok(()))) && self.driver.connection.is_some()
    }
}

impl Driver {
    fn poll(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            // Its error is delivered to the request, or to the body.
            self.connection = None;
        }
    }

    /// Moves bytes until `work`, which waits for them, is done.
    ///
    /// # Errors
    /// `Timeout` when the connection is silent for too long.
    pub(super) async fn drive<F: Future>(
        &mut self,
        work: F,
        settings: &Settings,
        phase: RequestPhase,
        mut sleep: Pin<&mut Sleep>,
    ) -> Result<F::Output> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Before, since the connection reads a body only for those who wait for it; and after.
            for _ in 0..2 {
                if let Poll::Ready(output) = work.as_mut().poll(context) {
                    return Poll::Ready(Ok(output));
                }
                self.poll(context);
            }
            self.activity.poll_silence(sleep.as_mut(), settings, phase, context).map(Err)
        })
        .await
    }
}
