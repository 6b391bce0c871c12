//! Errors of Milvus and of the connection to it as errors of this crate.

use milvus::proto::common::{ErrorCode, Status as MilvusStatus};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use super::COMPONENT;
use crate::support::truncated;
use crate::{Error, ErrorKind, Outcome};

/// Bytes of a server's text that are kept.
const MAX_REASON_BYTES: usize = 300;

/// The error of a call that failed below Milvus: the connection, gRPC or HTTP/2.
pub(super) fn from_grpc(status: &Status) -> Error {
    from_connection(status).unwrap_or_else(|| from_code(status))
}

/// The error of the connection, where it is one: then the status has a cause.
fn from_connection(status: &Status) -> Option<Error> {
    let causes = || std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    let root = causes().last()?.to_string();
    let error = |kind, message: &'static str| {
        Error::new(kind, COMPONENT, message).with_context("cause", truncated(&root, MAX_REASON_BYTES))
    };
    if causes().any(|cause| cause.is::<ConnectError>()) {
        return Some(error(ErrorKind::Unavailable, "failed to connect to Milvus").not_sent());
    }
    if status.code() == Code::DeadlineExceeded || causes().any(|cause| cause.is::<TimeoutExpired>()) {
        return Some(error(ErrorKind::Timeout, "timed out: waiting for the response"));
    }
    Some(error(ErrorKind::Transport, "connection to Milvus lost"))
}

/// The error that the server or gRPC answered with.
fn from_code(status: &Status) -> Error {
    let error = |kind, message: &'static str| {
        Error::new(kind, COMPONENT, message)
            .with_context("server", truncated(status.message(), MAX_REASON_BYTES))
    };
    match status.code() {
        Code::DeadlineExceeded => error(ErrorKind::Timeout, "timed out: waiting for the response"),
        Code::Cancelled => error(ErrorKind::Timeout, "timed out: Milvus cancelled the request"),
        Code::Unavailable => error(ErrorKind::Transport, "connection to Milvus lost"),
        Code::OutOfRange if status.message().contains("message length too large") => Error::new(
            ErrorKind::TooLarge,
            COMPONENT,
            "response exceeds milvus.max_response_bytes; ask for fewer entities or fields",
        )
        .with_context("cause", truncated(status.message(), MAX_REASON_BYTES)),
        Code::ResourceExhausted if status.message().contains("larger than max") => {
            error(ErrorKind::TooLarge, "Milvus rejected the request as too large")
                .with_outcome(Outcome::Rejected)
        }
        Code::ResourceExhausted => error(ErrorKind::RateLimited, "Milvus limits the rate of requests")
            .with_outcome(Outcome::Rejected),
        Code::Unauthenticated | Code::PermissionDenied => {
            error(ErrorKind::Authentication, "Milvus rejected the credentials (milvus.token)")
                .with_outcome(Outcome::Rejected)
        }
        Code::Unimplemented => {
            error(ErrorKind::Unsupported, "this version of Milvus does not support the request")
                .with_outcome(Outcome::Rejected)
        }
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => {
            error(ErrorKind::BadRequest, "Milvus rejected the request").with_outcome(Outcome::Rejected)
        }
        _ => error(ErrorKind::Protocol, "Milvus failed"),
    }
}

/// The error that a response carries, if any.
pub(super) fn from_milvus(status: Option<&MilvusStatus>) -> Result<(), Error> {
    let Some(status) = status else {
        return Err(Error::new(ErrorKind::Protocol, COMPONENT, "response lacks a status"));
    };
    #[expect(deprecated, reason = "servers before 2.3 set only this one")]
    let legacy = ErrorCode::try_from(status.error_code).unwrap_or(ErrorCode::UnexpectedError);
    if status.code == 0 && legacy == ErrorCode::Success {
        return Ok(());
    }
    let (kind, outcome, message) = match status.code {
        0 => classify_legacy(legacy),
        code => classify(code),
    };
    let kind = if status.retriable && kind == ErrorKind::BadRequest { ErrorKind::Unavailable } else { kind };
    Err(Error::new(kind, COMPONENT, message)
        .with_context("code", if status.code == 0 { legacy as i32 } else { status.code })
        .with_context("server", truncated(&status.reason, MAX_REASON_BYTES))
        .with_outcome(outcome))
}

const UNSPECIFIC: (ErrorKind, Outcome, &str) = (ErrorKind::BadRequest, Outcome::Unknown, "Milvus failed");
const RATE_LIMITED: (ErrorKind, Outcome, &str) =
    (ErrorKind::RateLimited, Outcome::Rejected, "Milvus limits the rate of requests");
const FULL: (ErrorKind, Outcome, &str) = (
    ErrorKind::Capacity,
    Outcome::Rejected,
    "Milvus denies the request: out of memory or disk, or over a quota",
);
const NOT_READY: (ErrorKind, Outcome, &str) =
    (ErrorKind::Unavailable, Outcome::Rejected, "Milvus is not ready");
const NOT_LOADED: (ErrorKind, Outcome, &str) =
    (ErrorKind::Unavailable, Outcome::Rejected, "collection is not loaded");
const NOT_FOUND: (ErrorKind, Outcome, &str) =
    (ErrorKind::NotFound, Outcome::Rejected, "collection or database does not exist");
const REJECTED: (ErrorKind, Outcome, &str) =
    (ErrorKind::BadRequest, Outcome::Rejected, "Milvus rejected the request");
const FORBIDDEN: (ErrorKind, Outcome, &str) =
    (ErrorKind::Authentication, Outcome::Rejected, "Milvus rejected the credentials (milvus.token)");

/// By the code of Milvus 2.3 and later.
fn classify(code: i32) -> (ErrorKind, Outcome, &'static str) {
    match code {
        1 | 2 => NOT_READY,
        3 | 7 | 9 | 102 => FULL,
        4 => (ErrorKind::Overloaded, Outcome::Rejected, "Milvus is overloaded"),
        8 => RATE_LIMITED,
        10 => {
            (ErrorKind::Unsupported, Outcome::Rejected, "this version of Milvus does not support the request")
        }
        100 | 800 => NOT_FOUND,
        101 | 103 => NOT_LOADED,
        // Partitions, resource groups, indexes, parameters, aliases and fields.
        200..=399 | 700..=799 | 1_100..=1_199 | 1_600..=1_799 => REJECTED,
        // Replicas, channels, segments and nodes that are moving, starting or gone.
        400..=699 | 900..=999 => {
            (ErrorKind::Unavailable, Outcome::Unknown, "a part of Milvus is not available")
        }
        1_400..=1_499 | 1_800..=1_899 => FORBIDDEN,
        _ => UNSPECIFIC,
    }
}

fn classify_legacy(code: ErrorCode) -> (ErrorKind, Outcome, &'static str) {
    match code {
        ErrorCode::RateLimit => RATE_LIMITED,
        ErrorCode::CollectionNotExists | ErrorCode::CollectionNameNotFound => NOT_FOUND,
        ErrorCode::NotReadyServe | ErrorCode::NotReadyCoordActivating | ErrorCode::ConnectFailed => NOT_READY,
        ErrorCode::MemoryQuotaExhausted
        | ErrorCode::DiskQuotaExhausted
        | ErrorCode::ForceDeny
        | ErrorCode::OutOfMemory => FULL,
        ErrorCode::PermissionDenied => FORBIDDEN,
        ErrorCode::IllegalArgument
        | ErrorCode::IllegalDimension
        | ErrorCode::IllegalIndexType
        | ErrorCode::IllegalCollectionName
        | ErrorCode::IllegalTopk
        | ErrorCode::IllegalRowRecord
        | ErrorCode::IllegalNlist
        | ErrorCode::IllegalMetricType
        | ErrorCode::SchemaMismatch
        | ErrorCode::IndexNotExist => REJECTED,
        _ => UNSPECIFIC,
    }
}

/// Whether Milvus says that the collection is not loaded. Versions before 2.3.4 say so only in the text.
pub(super) fn is_not_loaded(error: &Error) -> bool {
    error.message() == NOT_LOADED.2
        || error.context().any(|(name, value)| name == "server" && value.contains("not loaded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: i32, reason: &str) -> MilvusStatus {
        MilvusStatus { code, reason: reason.into(), ..MilvusStatus::default() }
    }

    #[test]
    fn codes_become_kinds_and_outcomes() {
        let cases = [
            (8, ErrorKind::RateLimited, Outcome::Rejected),
            (100, ErrorKind::NotFound, Outcome::Rejected),
            (101, ErrorKind::Unavailable, Outcome::Rejected),
            (503, ErrorKind::Unavailable, Outcome::Unknown),
            (1_100, ErrorKind::BadRequest, Outcome::Rejected),
            (1_400, ErrorKind::Authentication, Outcome::Rejected),
            (65_535, ErrorKind::BadRequest, Outcome::Unknown),
        ];
        for (code, kind, outcome) in cases {
            let error = from_milvus(Some(&status(code, "why"))).expect_err("an error");
            assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{code}");
            assert!(error.to_string().contains("why"), "{error}");
        }
        assert!(from_milvus(Some(&status(0, ""))).is_ok());
        assert_eq!(from_milvus(None).expect_err("no status").kind(), ErrorKind::Protocol);
    }

    #[test]
    fn grpc_codes_that_mean_no_are_not_retried() {
        for code in [Code::Unimplemented, Code::Unknown, Code::InvalidArgument, Code::Unauthenticated] {
            let error = from_grpc(&Status::new(code, "no"));
            assert!(!error.is_retryable(), "{code:?}");
        }
        let error = from_grpc(&Status::unavailable("gone"));
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::Unknown));
    }

    #[test]
    fn a_servers_text_is_truncated() {
        let error = from_milvus(Some(&status(1_100, &"x".repeat(10_000)))).expect_err("an error");
        assert!(error.to_string().len() < 1_000);
    }
}
