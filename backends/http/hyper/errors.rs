//! hyper's errors as arshai's.

use std::error::Error as _;
use std::io;

use crate::backends::http::errors::{RequestPhase, error, io_error};
use crate::{Error, ErrorKind};

/// The error of hyper in `phase`. Its own text is kept only where it cannot hold a URL or a header.
pub(super) fn from_hyper(cause: hyper::Error, phase: RequestPhase) -> Error {
    if let Some(io) = cause.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return io_error(copied(io), phase);
    }
    let error = if cause.is_parse_too_large() {
        error(ErrorKind::TooLarge, "response headers too large")
    } else if cause.is_parse() {
        error(ErrorKind::Protocol, "malformed HTTP response")
    } else if cause.is_user() {
        error(ErrorKind::InvalidInput, "invalid URL or header")
    } else {
        // Without a cause worth keeping: the server closed the connection.
        error(ErrorKind::Transport, "connection lost").with_source(cause)
    };
    error.with_outcome(phase.outcome())
}

/// The same error, for hyper keeps its own.
fn copied(cause: &io::Error) -> io::Error {
    match cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => io::Error::new(cause.kind(), tls.clone()),
        None => cause.raw_os_error().map_or_else(|| cause.kind().into(), io::Error::from_raw_os_error),
    }
}
