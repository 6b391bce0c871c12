//! The one client: connects when it is needed, bounds what is pending, retries what is safe to repeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use milvus::proto::milvus::GetVersionRequest;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::COMPONENT;
use super::client::Client;
use super::engine::Engine;
use super::rpc::{Effect, Rpc};
use super::settings::Settings;
use crate::support::{Backoff, OwnedPermit, ResizableSemaphore, opaque_debug};
use crate::{CloseReport, Deadline, Error, ErrorKind, Outcome, Result};

const MAX_ATTEMPTS: u32 = 3;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

pub(super) struct Connection {
    pub(super) settings: Settings,
    session: Mutex<Option<Session>>,
    generation: AtomicU64,
    pub(super) pending: ResizableSemaphore,
    reads: AtomicUsize,
    /// No new requests; those without effect end.
    closed: CancellationToken,
    /// All requests end.
    aborted: CancellationToken,
}

/// A client and what it is connected to. Replaced when the connection breaks: another server may come up.
#[derive(Clone)]
struct Session {
    client: Client,
    engine: Arc<OnceCell<Engine>>,
    generation: u64,
}

impl Connection {
    pub(super) fn new(settings: Settings) -> Self {
        let pending =
            ResizableSemaphore::new("milvus.max_pending_requests", "requests", settings.max_pending_requests);
        Self {
            settings,
            session: Mutex::default(),
            generation: AtomicU64::new(0),
            pending,
            reads: AtomicUsize::new(0),
            closed: CancellationToken::new(),
            aborted: CancellationToken::new(),
        }
    }

    /// The deadline of a request that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.settings.request_timeout)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(closed_error().not_sent()) } else { Ok(()) }
    }

    /// Sends a request and returns its response. Dropping the future cancels it; the server may complete it all the
    /// same.
    pub(super) async fn call<R: Rpc>(&self, request: &R, deadline: Deadline) -> Result<R::Reply> {
        let _permit = self.permit()?;
        let is_read = R::EFFECT == Effect::None;
        let _reading = is_read.then(|| Reading::new(&self.reads));
        let stop = if is_read { &self.closed } else { &self.aborted };
        let span = tracing::debug_span!(
            "milvus.request",
            otel.kind = "client",
            db.system.name = "milvus",
            db.operation.name = R::STEP,
            error.type = tracing::field::Empty,
        );
        let attempts = self.attempts(request, deadline).instrument(span.clone());
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(closed_error()),
            result = deadline.run(COMPONENT, R::STEP, attempts) => result.and_then(|result| result),
        };
        result.map_err(|error| {
            span.record("error.type", tracing::field::debug(error.kind()));
            error.with_context("operation", R::STEP)
        })
    }

    async fn attempts<R: Rpc>(&self, request: &R, deadline: Deadline) -> Result<R::Reply> {
        let mut failed = 0;
        loop {
            let session = self.session()?;
            let error = match request.send(session.client.clone(), deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if matches!(error.kind(), ErrorKind::Transport | ErrorKind::Unavailable) {
                self.replace(session.generation);
            }
            failed += 1;
            let is_safe = R::EFFECT != Effect::Once || error.outcome() != Outcome::Unknown;
            let delay = BACKOFF.delay_at_least(failed, error.retry_after());
            let is_last = failed == MAX_ATTEMPTS || delay >= deadline.remaining();
            if is_last || !is_safe || !error.is_retryable() {
                return Err(error);
            }
            tracing::debug!(db.system.name = "milvus", attempt = failed, %error, "request failed; retrying");
            tokio::time::sleep(delay).await;
        }
    }

    /// What the connection leads to; asked once per connection.
    pub(super) async fn engine(&self, deadline: Deadline) -> Result<Engine> {
        self.check_open()?;
        let session = self.session()?;
        let detect = || async {
            let answer = self.call(&GetVersionRequest {}, deadline).await;
            let engine = Engine::detect(answer)?;
            tracing::debug!(db.system.name = "milvus", server = %engine, "connected");
            Ok(engine)
        };
        // Another caller may be asking, with a later deadline.
        let asking = session.engine.get_or_try_init(detect);
        deadline.run(COMPONENT, GetVersionRequest::STEP, asking).await?.copied()
    }

    /// The engine, if it is known already.
    pub(super) fn known_engine(&self) -> Option<Engine> {
        self.session.lock().as_ref()?.engine.get().copied()
    }

    fn permit(&self) -> Result<OwnedPermit> {
        self.check_open()?;
        self.pending.try_acquire_owned().ok_or_else(|| {
            let message = "too many pending requests (milvus.max_pending_requests)";
            Error::new(ErrorKind::Capacity, COMPONENT, message)
                .with_context("limit", self.pending.max())
                .not_sent()
        })
    }

    fn session(&self) -> Result<Session> {
        let mut session = self.session.lock();
        if let Some(session) = &*session {
            return Ok(session.clone());
        }
        let client = Client::connect_lazy(&self.settings)?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(session.insert(Session { client, engine: Arc::default(), generation }).clone())
    }

    /// Gives up a broken connection, unless another caller has replaced it: it may belong to a runtime that has ended.
    fn replace(&self, generation: u64) {
        let mut session = self.session.lock();
        if session.as_ref().is_some_and(|session| session.generation == generation) {
            *session = None;
        }
    }

    /// Rejects new requests, ends those without effect and waits for the others.
    pub(super) async fn close(&self, deadline: Deadline) -> CloseReport {
        self.closed.cancel();
        let reads = self.reads.load(Ordering::Acquire);
        let writes = self.pending.used().saturating_sub(reads);
        let idle = deadline.run(COMPONENT, "waiting for running writes", self.pending.wait_idle()).await;
        let left = if idle.is_ok() { 0 } else { self.pending.used() };
        self.aborted.cancel();
        *self.session.lock() = None;
        let lost = (left > 0).then(|| format!("{left} writes without an answer, which may have been done"));
        CloseReport::new(writes.saturating_sub(left), reads, lost.into_iter().collect())
    }
}

opaque_debug!(Connection { settings, pending });

fn closed_error() -> Error {
    Error::new(ErrorKind::Closed, COMPONENT, "store is closed")
}

/// Counts a request without effect while it runs.
struct Reading<'a>(&'a AtomicUsize);

impl<'a> Reading<'a> {
    fn new(reads: &'a AtomicUsize) -> Self {
        reads.fetch_add(1, Ordering::AcqRel);
        Self(reads)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
