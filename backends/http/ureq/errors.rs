//! ureq's errors as arshai's, without URLs.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::ureq::Timeout;

use super::COMPONENT;
use crate::{Error, ErrorKind, Outcome};

/// The phase of a request. Until the end of `Connecting` nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPhase {
    Connecting,
    Response,
    Body,
}

impl RequestPhase {
    fn outcome(self) -> Outcome {
        if self == Self::Connecting { Outcome::NotSent } else { Outcome::Unknown }
    }
}

/// The phase of a request, written by its thread and read by the caller that waits for it.
#[derive(Debug)]
pub(super) struct AtomicRequestPhase(AtomicU8);

impl AtomicRequestPhase {
    pub(super) fn new(phase: RequestPhase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    pub(super) fn set(&self, phase: RequestPhase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> RequestPhase {
        match self.0.load(Ordering::Relaxed) {
            phase if phase == RequestPhase::Connecting as u8 => RequestPhase::Connecting,
            phase if phase == RequestPhase::Body as u8 => RequestPhase::Body,
            _ => RequestPhase::Response,
        }
    }
}

pub(super) fn error(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, COMPONENT, message)
}

/// The deadline of the call passed in `phase`.
pub(super) fn timed_out(phase: RequestPhase, waited: Duration) -> Error {
    error(ErrorKind::Timeout, deadline_message(phase))
        .with_context("waited", format!("{waited:.3?}"))
        .with_outcome(phase.outcome())
}

/// A shutdown aborted the request in `phase`.
pub(super) fn shut_down_error(phase: RequestPhase) -> Error {
    error(ErrorKind::Closed, "transport shut down during the request").with_outcome(phase.outcome())
}

/// The error of ureq in `phase`. Its own text is kept only where it cannot hold a URL or a header.
pub(super) fn from_ureq(cause: ::ureq::Error, phase: RequestPhase) -> Error {
    use ::ureq::Error as E;
    let is_connecting = phase == RequestPhase::Connecting;
    let error = match cause {
        E::Timeout(timeout) => error(ErrorKind::Timeout, timeout_message(timeout, phase)),
        E::HostNotFound => error(ErrorKind::Unavailable, "DNS lookup failed"),
        // A failed handshake: invalid data, usually a certificate.
        E::Io(cause) if is_connecting && cause.kind() == std::io::ErrorKind::InvalidData => tls_error(cause),
        E::Io(cause) if is_connecting => {
            error(ErrorKind::Unavailable, "connection failed").with_source(cause)
        }
        E::Io(cause) => error(ErrorKind::Transport, "connection lost").with_source(cause),
        E::ConnectionFailed => error(ErrorKind::Unavailable, "connection failed"),
        E::ConnectProxyFailed(_) => error(ErrorKind::Unavailable, "the proxy rejected the connection"),
        E::Tls(_) | E::Rustls(_) => tls_error(cause),
        E::BadUri(_) | E::Http(_) => {
            return error(ErrorKind::InvalidInput, "invalid URL or header").not_sent();
        }
        E::Decompress(_, cause) => {
            error(ErrorKind::Protocol, "failed to decompress the body").with_source(cause)
        }
        E::LargeResponseHeader(size, limit) => error(ErrorKind::TooLarge, "response headers too large")
            .with_context("bytes", size)
            .with_context("limit", limit),
        // Ours, from the connector.
        E::Other(cause) => match cause.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(_) => error(ErrorKind::Transport, "request failed"),
        },
        E::Protocol(_) => error(ErrorKind::Protocol, "malformed HTTP response"),
        _ => error(ErrorKind::Transport, "request failed"),
    };
    error.with_outcome(phase.outcome())
}

/// Not retryable: the certificate stays the same.
fn tls_error(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    error(ErrorKind::Transport, "TLS handshake failed; is the certificate valid for this host?")
        .with_source(cause)
        .with_retryable(false)
}

fn timeout_message(timeout: Timeout, phase: RequestPhase) -> &'static str {
    match (timeout, phase) {
        (Timeout::Connect | Timeout::Resolve, _) => "connecting took longer than http.connect_timeout",
        (Timeout::PerRead, RequestPhase::Body) => "no body data within http.read_timeout",
        (Timeout::PerRead, _) => "no response within http.read_timeout",
        (Timeout::PerWrite, _) => "sending stalled for longer than http.write_timeout",
        (_, phase) => deadline_message(phase),
    }
}

fn deadline_message(phase: RequestPhase) -> &'static str {
    match phase {
        RequestPhase::Connecting => "timed out while connecting",
        RequestPhase::Response => "timed out while waiting for the response",
        RequestPhase::Body => "timed out while reading the body",
    }
}
