//! A transport that sends nothing: it records requests and responds by script.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use crate::support::opaque_debug;
use crate::{CloseReport, Component, Deadline, Error, ErrorKind, Health, LimitUsage, Result, ShutdownPhase};

const COMPONENT: &str = "http.scripted";

/// Responds to requests by script, in order, and records them.
///
/// A request beyond the script fails as [`ErrorKind::Internal`].
#[derive(Default)]
pub struct ScriptedTransport {
    script: Mutex<VecDeque<ScriptedStep>>,
    requests: Mutex<Vec<HttpRequest>>,
    closed: AtomicBool,
}

enum ScriptedStep {
    Respond(Result<http::Response<Bytes>>),
    Hang,
}

impl ScriptedTransport {
    /// A transport with an empty script.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next request gets `response`.
    #[must_use]
    pub fn with_response(self, response: http::Response<impl Into<Bytes>>) -> Self {
        self.then(ScriptedStep::Respond(Ok(response.map(Into::into))))
    }

    /// The next request fails.
    #[must_use]
    pub fn with_error(self, error: Error) -> Self {
        self.then(ScriptedStep::Respond(Err(error)))
    }

    /// The next request gets no response; it ends at its deadline, if it has one.
    #[must_use]
    pub fn with_hang(self) -> Self {
        self.then(ScriptedStep::Hang)
    }

    fn then(mut self, step: ScriptedStep) -> Self {
        self.script.get_mut().push_back(step);
        self
    }

    /// Takes every request so far, in order.
    #[must_use]
    pub fn take_requests(&self) -> Vec<HttpRequest> {
        std::mem::take(&mut self.requests.lock())
    }
}

#[async_trait]
impl Component for ScriptedTransport {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("http")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        match self.closed.load(Ordering::Acquire) {
            true => Health::unhealthy("transport is shut down"),
            false => Health::Healthy,
        }
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        self.closed.store(true, Ordering::Release);
        CloseReport::idle()
    }
}

#[async_trait]
impl HttpTransport for ScriptedTransport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, COMPONENT, "transport is shut down").not_sent());
        }
        let deadline = request.deadline;
        self.requests.lock().push(request);
        let step = self.script.lock().pop_front();
        match (step, deadline) {
            (Some(ScriptedStep::Respond(response)), _) => {
                let (parts, body) = response?.into_parts();
                let body = HttpBody::full(body);
                Ok(HttpResponse { status: parts.status, headers: parts.headers, body })
            }
            (Some(ScriptedStep::Hang), Some(deadline)) => {
                deadline.run(COMPONENT, "waiting for the response", pending()).await?
            }
            (Some(ScriptedStep::Hang), None) => pending().await,
            (None, _) => {
                Err(Error::new(ErrorKind::Internal, COMPONENT, "the script has no further response"))
            }
        }
    }

    fn stats(&self) -> HttpStats {
        HttpStats::default()
    }
}

opaque_debug!(ScriptedTransport(self) { responses_left: self.script.lock().len() });
