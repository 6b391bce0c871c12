//! A transport that sends nothing: it remembers what it was asked and answers as told.

use crate::{CloseReport, Component, LimitUsage, ShutdownPhase};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use crate::{Deadline, Error, ErrorKind, Health, Result};

const COMPONENT: &str = "http.scripted";

/// Answers requests by script, in order, and remembers them.
///
/// A request beyond the script fails as [`ErrorKind::Internal`].
#[derive(Default)]
pub struct ScriptedTransport {
    script: Mutex<VecDeque<Step>>,
    requests: Mutex<Vec<HttpRequest>>,
    closed: AtomicBool,
}

enum Step {
    Answer(Result<http::Response<Bytes>>),
    Hang,
}

impl ScriptedTransport {
    /// A transport without answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next request is answered with `response`.
    #[must_use]
    pub fn answering(self, response: http::Response<impl Into<Bytes>>) -> Self {
        self.then(Step::Answer(Ok(response.map(Into::into))))
    }

    /// The next request fails.
    #[must_use]
    pub fn failing(self, error: Error) -> Self {
        self.then(Step::Answer(Err(error)))
    }

    /// The next request is never answered; it ends with its deadline, if it has one.
    #[must_use]
    pub fn hanging(self) -> Self {
        self.then(Step::Hang)
    }

    fn then(mut self, step: Step) -> Self {
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
        Health::Healthy
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
            return Err(Error::new(ErrorKind::Closed, COMPONENT, "it is shut down"));
        }
        let deadline = request.deadline;
        self.requests.lock().push(request);
        let step = self.script.lock().pop_front();
        match (step, deadline) {
            (Some(Step::Answer(answer)), _) => {
                let (parts, body) = answer?.into_parts();
                let body = HttpBody::full(body);
                Ok(HttpResponse { status: parts.status, headers: parts.headers, body })
            }
            (Some(Step::Hang), Some(deadline)) => deadline.run(COMPONENT, "hanging", pending()).await?,
            (Some(Step::Hang), None) => pending().await,
            (None, _) => Err(Error::new(ErrorKind::Internal, COMPONENT, "the script has no further answer")),
        }
    }

    fn stats(&self) -> HttpStats {
        HttpStats::default()
    }
}

impl fmt::Debug for ScriptedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedTransport")
            .field("answers_left", &self.script.lock().len())
            .finish_non_exhaustive()
    }
}
