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
    let base = match find::<Error>(&error) {
        Some(ours) => Error::new(ours.kind(), format!("mcp:{server}"), format!("failed to connect: {}", ours.message()))
            .with_outcome(ours.outcome()),
        None => {
            let (kind, message) = describe(&error);
            Error::new(kind, format!("mcp:{server}"), format!("failed to connect: {message}"))
        }
    };
    match challenge {
        Some(challenge) => Error::new(ErrorKind::Authentication, format!("mcp:{server}"), "authorization required")
            .with_context("challenge", challenge),
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
    if let Some(ours) = find::<Error>(&error) {
        return Error::new(ours.kind(), component, ours.message().to_owned())
            .with_outcome(ours.outcome())
            .with_source(error);
    }
    let (kind, message) = describe(&error);
    Error::new(kind, component, message).with_source(error)
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
    if let Some(StreamableHttpError::SessionExpired) = find::<StreamableHttpError<Error>>(error) {
        return (ErrorKind::Unavailable, "the session has expired".into());
    }
    (ErrorKind::Unavailable, innermost(error))
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}
