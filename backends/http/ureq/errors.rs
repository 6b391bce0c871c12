//! ureq's errors in arshai's words, without URLs.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::ureq::Timeout;

use super::COMPONENT;
use crate::http::nothing_was_sent;
use crate::{Error, ErrorKind};

/// What an exchange is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connecting,
    Response,
    Body,
}

/// The step an exchange is at, written by its thread and read by whoever waits for it.
#[derive(Debug)]
pub(super) struct Stage(AtomicU8);

impl Stage {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(Step::Response as u8))
    }

    pub(super) fn set(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Step {
        match self.0.load(Ordering::Relaxed) {
            step if step == Step::Connecting as u8 => Step::Connecting,
            step if step == Step::Body as u8 => Step::Body,
            _ => Step::Response,
        }
    }
}

pub(super) fn error(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(kind, COMPONENT, message)
}

/// The whole call's deadline passed at `step`.
pub(super) fn timed_out(step: Step, waited: Duration) -> Error {
    let message = match step {
        Step::Connecting => "the deadline passed while connecting",
        Step::Response => "the deadline passed while waiting for the response",
        Step::Body => "the deadline passed while the body was read",
    };
    let error = error(ErrorKind::Timeout, message).with_context("waited", format!("{waited:.3?}"));
    if step == Step::Connecting { nothing_was_sent(error) } else { error }
}

/// The exchange was ended by a shutdown.
pub(super) fn cut_off() -> Error {
    error(ErrorKind::Closed, "the transport was shut down during the exchange")
}

/// What ureq failed with at `step`. Its own text is kept only where it cannot hold a URL or a header.
pub(super) fn from_ureq(cause: ::ureq::Error, step: Step) -> Error {
    use ::ureq::Error as E;
    let error = match cause {
        E::Timeout(timeout) => error(ErrorKind::Timeout, timeout_message(timeout, step)),
        E::HostNotFound => error(ErrorKind::Unavailable, "the host's name cannot be resolved"),
        // How a handshake fails: with data that is not what it should be, a certificate as a rule.
        E::Io(cause) if step == Step::Connecting && cause.kind() == std::io::ErrorKind::InvalidData => {
            tls_failed(cause)
        }
        E::Io(cause) if step == Step::Connecting => {
            error(ErrorKind::Unavailable, "the host cannot be reached").with_source(cause)
        }
        E::Io(cause) => error(ErrorKind::Transport, "the connection broke").with_source(cause),
        E::ConnectionFailed => error(ErrorKind::Unavailable, "the host cannot be reached"),
        E::ConnectProxyFailed(_) => error(ErrorKind::Unavailable, "the proxy refused to connect"),
        E::Tls(_) | E::Rustls(_) => tls_failed(cause),
        E::BadUri(_) | E::Http(_) | E::RequireHttpsOnly(_) => {
            error(ErrorKind::InvalidInput, "the URL or a header cannot be sent")
        }
        E::Decompress(_, cause) => {
            error(ErrorKind::Protocol, "the body cannot be decompressed").with_source(cause)
        }
        E::LargeResponseHeader(size, limit) => error(ErrorKind::TooLarge, "the response's head is too large")
            .with_context("bytes", size)
            .with_context("limit", limit),
        E::Protocol(_) => error(ErrorKind::Protocol, "the answer is not HTTP, or breaks its rules"),
        _ => error(ErrorKind::Transport, "the exchange failed"),
    };
    if step == Step::Connecting { nothing_was_sent(error) } else { error }
}

/// Another try would find the same certificate.
fn tls_failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    error(ErrorKind::Transport, "TLS failed; is the certificate valid for this host?")
        .with_source(cause)
        .with_retryable(false)
}

fn timeout_message(timeout: Timeout, step: Step) -> &'static str {
    match (timeout, step) {
        (Timeout::Connect | Timeout::Resolve, _) => "connecting took longer than http.connect_timeout",
        (Timeout::PerRead, Step::Body) => "the body was silent for longer than http.read_timeout",
        (Timeout::PerRead, _) => "the response did not begin within http.read_timeout",
        (Timeout::PerWrite, _) => "sending stalled for longer than http.write_timeout",
        (_, Step::Connecting) => "the deadline passed while connecting",
        (_, Step::Response) => "the deadline passed while waiting for the response",
        (_, Step::Body) => "the deadline passed while the body was read",
    }
}
