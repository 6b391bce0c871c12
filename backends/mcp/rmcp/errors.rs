//! rmcp's errors as ours, with the server's name, kind and outcome.

use std::error::Error as StdError;

use rmcp::ServiceError;
use rmcp::service::ClientInitializeError;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
};

use crate::{Error, ErrorKind, Outcome};

/// Why connecting failed.
pub(super) fn connect_error(server: &str, error: ClientInitializeError) -> Error {
    let challenge = error.auth_challenge().map(str::to_owned);
    let base = match find_ours(&error) {
        Some(ours) => {
            Error::new(ours.kind(), format!("mcp:{server}"), format!("failed to connect: {}", ours.message()))
                .with_outcome(ours.outcome())
        }
        None => {
            let (kind, message) = describe(&error);
            Error::new(kind, format!("mcp:{server}"), format!("failed to connect: {message}"))
        }
    };
    match challenge {
        Some(challenge) => {
            Error::new(ErrorKind::Authentication, format!("mcp:{server}"), "authorization required")
                .with_context("challenge", challenge)
        }
        None => base.with_source(error),
    }
}

/// Why a request failed.
pub(super) fn call_error(server: &str, error: ServiceError) -> Error {
    let component = format!("mcp:{server}");
    match &error {
        ServiceError::McpError(data) => {
            let message = format!("the server rejected the call: {} ({})", data.message, data.code.0);
            return Error::new(ErrorKind::Function, component, message).with_outcome(Outcome::Rejected);
        }
        ServiceError::Timeout { timeout } => {
            let message = format!("timed out: no answer within {:.3}s", timeout.as_secs_f64());
            return Error::new(ErrorKind::Timeout, component, message).with_source(error);
        }
        ServiceError::Cancelled { .. } => return Error::new(ErrorKind::Cancelled, component, "cancelled"),
        ServiceError::UnexpectedResponse => {
            return Error::new(ErrorKind::Protocol, component, "unexpected result").with_source(error);
        }
        _ => {}
    }
    if is_session_lost(&error) {
        return Error::new(ErrorKind::Unavailable, component, "the session has expired").with_source(error);
    }
    if let Some(ours) = find_ours(&error) {
        return Error::new(ours.kind(), component, ours.message().to_owned())
            .with_outcome(ours.outcome())
            .with_source(error);
    }
    let (kind, message) = describe(&error);
    Error::new(kind, component, message).with_source(error)
}

/// Whether the server no longer knows the session.
pub(super) fn is_session_lost(error: &ServiceError) -> bool {
    matches!(find::<StreamableHttpError<Error>>(error), Some(StreamableHttpError::SessionExpired))
}

/// The error of our own transport inside, which rmcp does not return as a source.
fn find_ours<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    match find::<StreamableHttpError<Error>>(error)? {
        StreamableHttpError::Client(error) => Some(error),
        _ => None,
    }
}

/// Whether trying another handshake is pointless.
pub(super) fn is_final(error: &Error) -> bool {
    error.outcome() == Outcome::NotSent || error.kind() == ErrorKind::Authentication
}

/// Kind and message of an error that comes from rmcp's transport.
fn describe(error: &(dyn StdError + 'static)) -> (ErrorKind, String) {
    if let Some(status) = find::<HttpStatusError>(error) {
        let kind = match status.status {
            429 => ErrorKind::RateLimited,
            _ => ErrorKind::Unavailable,
        };
        return (kind, format!("the server answered HTTP {}", status.status));
    }
    if find::<AuthRequiredError>(error).is_some() || find::<InsufficientScopeError>(error).is_some() {
        return (ErrorKind::Authentication, "authorization required".into());
    }
    (ErrorKind::Unavailable, innermost(error))
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

fn innermost(mut error: &(dyn StdError + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
