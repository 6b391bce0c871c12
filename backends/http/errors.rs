//! The errors of both transports, without URLs.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::{Error, ErrorKind, Outcome};

/// The component's name in errors.
pub(super) const COMPONENT: &str = "http";

/// The phase of a request. Until the end of `Connecting` nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestPhase {
    Connecting,
    Response,
    Body,
}

impl RequestPhase {
    pub(super) fn outcome(self) -> Outcome {
        if self == Self::Connecting { Outcome::NotSent } else { Outcome::Unknown }
    }
}

/// The phase of a request, written by the job that sends it and read by the caller that waits for it.
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
pub(super) fn deadline_error(phase: RequestPhase) -> Error {
    let message = match phase {
        RequestPhase::Connecting => "timed out while connecting",
        RequestPhase::Response => "timed out while waiting for the response",
        RequestPhase::Body => "timed out while reading the body",
    };
    error(ErrorKind::Timeout, message).with_outcome(phase.outcome())
}

pub(super) fn timed_out(phase: RequestPhase, waited: Duration) -> Error {
    deadline_error(phase).with_context("waited", format!("{waited:.3?}"))
}

pub(super) fn connect_timeout() -> Error {
    error(ErrorKind::Timeout, "connecting took longer than http.connect_timeout").not_sent()
}

pub(super) fn write_timeout(phase: RequestPhase) -> Error {
    error(ErrorKind::Timeout, "sending stalled for longer than http.write_timeout")
        .with_outcome(phase.outcome())
}

/// The server was silent for too long in `phase`.
pub(super) fn silence_timeout(phase: RequestPhase) -> Error {
    let message = match phase {
        RequestPhase::Body => "no body data within http.read_timeout",
        _ => "no response within http.first_byte_timeout",
    };
    error(ErrorKind::Timeout, message).with_outcome(phase.outcome())
}

/// A shutdown aborted the request in `phase`.
pub(super) fn shut_down_error(phase: RequestPhase) -> Error {
    error(ErrorKind::Closed, "transport shut down during the request").with_outcome(phase.outcome())
}

pub(super) fn dropped_error() -> Error {
    error(ErrorKind::Cancelled, "response dropped by the caller")
}

pub(super) fn dns_error() -> Error {
    error(ErrorKind::Unavailable, "DNS lookup failed").not_sent()
}

/// An I/O error in `phase`: of TLS where that is its cause.
pub(super) fn io_error(cause: std::io::Error, phase: RequestPhase) -> Error {
    if let Some(tls) = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls_error(tls.clone(), phase);
    }
    let (kind, message) = match phase {
        RequestPhase::Connecting => (ErrorKind::Unavailable, "connection failed"),
        _ => (ErrorKind::Transport, "connection lost"),
    };
    error(kind, message).with_source(cause).with_outcome(phase.outcome())
}

/// Not retryable: the certificates stay the same.
pub(super) fn tls_error(cause: rustls::Error, phase: RequestPhase) -> Error {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error as E};
    let (message, outcome) = match &cause {
        E::InvalidCertificate(Certificate::UnknownIssuer) => (
            "the server's certificate is from an unknown authority; if it is yours, name it in http.ca_file",
            Outcome::NotSent,
        ),
        E::InvalidCertificate(Certificate::NotValidForName | Certificate::NotValidForNameContext { .. }) => {
            ("the server's certificate is not valid for this host", Outcome::NotSent)
        }
        E::InvalidCertificate(_) => ("the server's certificate is not valid", Outcome::NotSent),
        // With TLS 1.3 it arrives after the request was sent, which the server then has not read.
        E::AlertReceived(Alert::CertificateRequired) => (
            "the server requires a client certificate; set http.client_cert and http.client_key",
            Outcome::Rejected,
        ),
        E::AlertReceived(Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateUnknown) => {
            ("the server rejected the client certificate of http.client_cert", Outcome::Rejected)
        }
        E::InvalidMessage(_) => {
            ("TLS handshake failed; does the server speak TLS on this port?", phase.outcome())
        }
        _ => ("TLS failed", phase.outcome()),
    };
    error(ErrorKind::Transport, message).with_source(cause).with_retryable(false).with_outcome(outcome)
}

/// The proxy answered a request for a tunnel, or one that it was to pass on, with this status.
pub(super) fn proxy_error(status: u16, has_credentials: bool) -> Error {
    let error = match (status, has_credentials) {
        (407, false) => error(
            ErrorKind::Authentication,
            "the proxy requires a user and password (407); write them into http.proxy, e.g. \
             http://user:password@proxy.internal:3128",
        ),
        (407, true) => error(
            ErrorKind::Authentication,
            "the proxy rejected the user and password of http.proxy (407); special characters are percent-encoded",
        ),
        _ => error(
            ErrorKind::Unavailable,
            "the proxy of http.proxy refused the connection; reach the host directly with http.no_proxy, or have it \
             allowed",
        )
        .with_context("status", status)
        .with_retryable(status >= 500),
    };
    error.not_sent()
}

/// A body exceeds `http.max_body_bytes`.
pub(super) fn body_too_large(limit: u64) -> Error {
    error(ErrorKind::TooLarge, "the decoded body exceeds http.max_body_bytes")
        .with_context("limit", limit)
        .with_outcome(Outcome::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_tls_says_what_to_do_and_is_never_retryable() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, unknown);
        let error = io_error(io, RequestPhase::Connecting);
        assert!(error.message().contains("http.ca_file"), "{error}");
        assert_eq!((error.is_retryable(), error.outcome()), (false, Outcome::NotSent));
        let required = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let error = tls_error(required, RequestPhase::Response);
        assert!(error.message().contains("http.client_cert"), "{error}");
        assert_eq!((error.is_retryable(), error.outcome()), (false, Outcome::Rejected));
    }

    #[test]
    fn a_proxy_that_wants_credentials_says_where_to_write_them() {
        let error = proxy_error(407, false);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Authentication, Outcome::NotSent));
        assert!(error.message().contains("http.proxy"), "{error}");
        assert!(!error.is_retryable() && proxy_error(407, true).message().contains("rejected"));
        assert!(!proxy_error(403, true).is_retryable() && proxy_error(503, true).is_retryable());
    }
}
