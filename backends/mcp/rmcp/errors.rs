//! rmcp's errors as ours, with the server's name, kind and outcome.

use std::error::Error as StdError;
use std::time::Duration;

use rmcp::ServiceError;
use rmcp::model::ErrorCode;
use rmcp::service::ClientInitializeError;
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, InsufficientScopeError, StreamableHttpError,
};

use crate::support::truncated;
use crate::{Error, ErrorKind, Outcome};

/// The name under which an error has the challenge of a server that wants authorization.
pub(super) const CHALLENGE: &str = "challenge";
/// Longest part of a remote text that is repeated.
const MAX_REMOTE_TEXT: usize = 500;

/// Why connecting failed.
pub(super) fn connect_error(server: &str, error: ClientInitializeError) -> Error {
    let component = format!("mcp:{server}");
    let cause = cause(&error);
    if let Some(ours) = find_ours(cause) {
        return as_cause(ours, component, "failed to connect: ").with_source(error);
    }
    match &error {
        ClientInitializeError::JsonRpcError(data) => {
            let message = format!("failed to connect: the server answered: {}", remote(&data.message));
            return Error::new(ErrorKind::Protocol, component, message)
                .with_outcome(Outcome::Rejected)
                .with_source(error);
        }
        ClientInitializeError::ExpectedInitResult(_)
        | ClientInitializeError::NoCompatibleProtocolVersion { .. } => {
            let message = "failed to connect: the handshake has no usable answer";
            return Error::new(ErrorKind::Protocol, component, message)
                .with_outcome(Outcome::Rejected)
                .with_source(error);
        }
        _ => {}
    }
    let described = describe(cause);
    described.into_error(component, "failed to connect: ").with_source(error)
}

/// The transport's error inside, which rmcp does not return as the source.
fn cause(error: &ClientInitializeError) -> &(dyn StdError + 'static) {
    match error {
        ClientInitializeError::TransportError { error, .. } => error.error.as_ref(),
        other => other,
    }
}

/// Why a request failed.
pub(super) fn call_error(server: &str, error: ServiceError) -> Error {
    let component = format!("mcp:{server}");
    match &error {
        ServiceError::McpError(data) => {
            let message =
                format!("the server rejected the call: {} ({})", remote(&data.message), data.code.0);
            // An internal error may come after the tool took effect.
            let outcome = match data.code {
                ErrorCode::INTERNAL_ERROR => Outcome::Unknown,
                _ => Outcome::Rejected,
            };
            return Error::new(ErrorKind::Function, component, message).with_outcome(outcome);
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
        return as_cause(ours, component, "").with_source(error);
    }
    describe(&error).into_error(component, "").with_source(error)
}

/// An error of our own transport, as the reason of another.
fn as_cause(ours: &Error, component: String, prefix: &str) -> Error {
    let error = Error::new(ours.kind(), component, format!("{prefix}{}", ours.message()))
        .with_outcome(ours.outcome())
        .with_retry_after(ours.retry_after());
    match ours.context().find(|(name, _)| *name == CHALLENGE) {
        Some((name, challenge)) => error.with_context(name, challenge),
        None => error,
    }
}

/// Whether the server no longer knows the session.
pub(super) fn is_session_lost(error: &ServiceError) -> bool {
    matches!(find::<StreamableHttpError<Error>>(error), Some(StreamableHttpError::SessionExpired))
}

/// Whether this request is not permitted (403), which says nothing of other requests.
pub(super) fn is_forbidden(error: &ServiceError) -> bool {
    find::<InsufficientScopeError>(error).is_some()
        || matches!(find::<StreamableHttpError<Error>>(error),
            Some(StreamableHttpError::HttpStatus(status)) if status.status == 403)
}

/// Whether trying another handshake is pointless.
pub(super) fn is_final(error: &Error) -> bool {
    error.outcome() == Outcome::NotSent
        || matches!(error.kind(), ErrorKind::Authentication | ErrorKind::RateLimited)
        || error.retry_after().is_some()
}

/// The error of our own transport inside, which rmcp does not return as a source.
fn find_ours<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    match find::<StreamableHttpError<Error>>(error)? {
        StreamableHttpError::Client(error) => Some(error),
        _ => None,
    }
}

/// The meaning of an error of rmcp's transport.
struct Described {
    kind: ErrorKind,
    message: String,
    outcome: Outcome,
    challenge: Option<String>,
    retry_after: Option<Duration>,
}

impl Described {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), outcome: Outcome::Unknown, challenge: None, retry_after: None }
    }

    fn authorization(message: &str, challenge: &str) -> Self {
        let challenge = (!challenge.is_empty()).then(|| remote(challenge));
        let outcome = Outcome::Rejected;
        Self { challenge, outcome, ..Self::new(ErrorKind::Authentication, message) }
    }

    fn into_error(self, component: String, prefix: &str) -> Error {
        let error = Error::new(self.kind, component, format!("{prefix}{}", self.message))
            .with_outcome(self.outcome)
            .with_retry_after(self.retry_after);
        match self.challenge {
            Some(challenge) => error.with_context(CHALLENGE, challenge),
            None => error,
        }
    }
}

fn describe(error: &(dyn StdError + 'static)) -> Described {
    if let Some(required) = find::<AuthRequiredError>(error) {
        return Described::authorization("authorization required", &required.www_authenticate_header);
    }
    if let Some(scope) = find::<InsufficientScopeError>(error) {
        let message = "authorization does not permit this request";
        return Described::authorization(message, &scope.www_authenticate_header);
    }
    match find::<StreamableHttpError<Error>>(error) {
        Some(StreamableHttpError::HttpStatus(status)) => describe_status(status),
        Some(StreamableHttpError::ResponseBodyTooLarge { max_size }) => {
            Described::new(ErrorKind::TooLarge, format!("the response exceeds {max_size} bytes"))
        }
        Some(
            error @ (StreamableHttpError::UnexpectedServerResponse(_)
            | StreamableHttpError::Deserialize(_)
            | StreamableHttpError::UnexpectedContentType(_)),
        ) => Described::new(ErrorKind::Protocol, remote(&error.to_string())),
        _ => Described::new(ErrorKind::Unavailable, remote(&innermost(error))),
    }
}

fn describe_status(status: &HttpStatusError) -> Described {
    let seconds = status.retry_after.as_deref().and_then(|seconds| seconds.parse().ok());
    let kind = match status.status {
        401 | 403 => ErrorKind::Authentication,
        429 => ErrorKind::RateLimited,
        _ => ErrorKind::Unavailable,
    };
    let outcome = match status.status {
        400 | 401 | 403 | 405 | 413 | 415 | 429 => Outcome::Rejected,
        _ => Outcome::Unknown,
    };
    let retry_after = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let message = format!("the server answered HTTP {}", status.status);
    Described { outcome, retry_after, ..Described::new(kind, message) }
}

fn remote(text: &str) -> String {
    truncated(text, MAX_REMOTE_TEXT).into_owned()
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
