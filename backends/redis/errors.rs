//! What Redis and the library say went wrong, in this crate's words.

use fred::error::{Error as FredError, ErrorKind as FredKind};

use super::COMPONENT;
use crate::{Error, ErrorKind};

/// The codes that Redis starts its errors with, and what each means to a caller.
const CODES: [(&str, ErrorKind, &str); 17] = [
    ("LOADING", ErrorKind::Unavailable, "Redis is loading its data after a start"),
    ("READONLY", ErrorKind::Unavailable, "this Redis is a replica and takes no writes"),
    ("MASTERDOWN", ErrorKind::Unavailable, "this replica has lost its master"),
    ("CLUSTERDOWN", ErrorKind::Unavailable, "the cluster does not serve this key now"),
    ("TRYAGAIN", ErrorKind::Unavailable, "the cluster is moving this key"),
    ("NOREPLICAS", ErrorKind::Unavailable, "Redis has too few replicas to take writes"),
    ("BUSY", ErrorKind::Unavailable, "Redis is busy with a script"),
    ("MISCONF", ErrorKind::Unavailable, "Redis cannot save its data and takes no writes"),
    ("OOM", ErrorKind::Capacity, "Redis has reached its maxmemory and evicts nothing"),
    ("MAXCLIENTS", ErrorKind::Capacity, "Redis has reached its maxclients"),
    ("NOAUTH", ErrorKind::Authentication, "Redis wants a password; put it into redis.url"),
    ("WRONGPASS", ErrorKind::Authentication, "Redis refused the user name or password in redis.url"),
    ("NOPERM", ErrorKind::Authentication, "the user in redis.url may not do this"),
    ("WRONGTYPE", ErrorKind::Corrupt, "the key holds another type of value, which is not ours"),
    ("MOVED", ErrorKind::Config, "this Redis is part of a cluster; use redis-cluster:// in redis.url"),
    ("ASK", ErrorKind::Config, "this Redis is part of a cluster; use redis-cluster:// in redis.url"),
    ("NOSCRIPT", ErrorKind::NotFound, "Redis does not hold the script"),
];

/// The code at the start of a server's error: `OOM`, `READONLY`; none where the library made the error.
pub(super) fn code(error: &FredError) -> Option<&'static str> {
    let details = error.details();
    let first = details.split([' ', ':']).next().unwrap_or_default();
    if details.contains("max number of clients") {
        return Some("MAXCLIENTS");
    }
    CODES.iter().map(|(code, ..)| *code).find(|code| *code == first)
}

/// Whether the server refused the command for a reason that may pass, without having done any of it.
pub(super) fn may_pass(error: &FredError) -> bool {
    matches!(
        code(error),
        Some("LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MAXCLIENTS")
    )
}

/// Whether the connection is of no more use.
pub(super) fn breaks_connection(error: &FredError) -> bool {
    matches!(code(error), Some("READONLY" | "MASTERDOWN" | "MAXCLIENTS"))
        || matches!(error.kind(), FredKind::IO | FredKind::Canceled | FredKind::Protocol | FredKind::Routing)
}

/// An error of `command`. What a server says may repeat arguments of the command, which may be private, so
/// only its code is kept.
pub(super) fn from_fred(error: &FredError, command: &'static str) -> Error {
    let (kind, message) = match CODES.iter().find(|(name, ..)| Some(*name) == code(error)) {
        Some((code, kind, message)) => {
            return Error::new(*kind, COMPONENT, *message)
                .with_context("command", command)
                .with_context("code", *code);
        }
        None => of_kind(error.kind()),
    };
    Error::new(kind, COMPONENT, message).with_context("command", command)
}

fn of_kind(kind: &FredKind) -> (ErrorKind, &'static str) {
    match kind {
        FredKind::Auth => (ErrorKind::Authentication, "Redis refused the credentials in redis.url"),
        FredKind::Timeout => (ErrorKind::Timeout, "Redis did not answer in time"),
        FredKind::IO | FredKind::Canceled => (ErrorKind::Transport, "the connection to Redis was lost"),
        FredKind::Routing | FredKind::Cluster => (ErrorKind::Unavailable, "no Redis server serves this key"),
        FredKind::Sentinel => {
            (ErrorKind::Unavailable, "the sentinels name no Redis master that can be reached")
        }
        FredKind::Protocol | FredKind::Parse => {
            (ErrorKind::Protocol, "Redis answered with something unexpected")
        }
        FredKind::Backpressure => (ErrorKind::Capacity, "too many commands wait for Redis"),
        FredKind::Config | FredKind::Url => (ErrorKind::Config, "redis.url cannot be used with this Redis"),
        FredKind::InvalidArgument | FredKind::InvalidCommand => {
            (ErrorKind::InvalidInput, "Redis or its client refused the arguments")
        }
        FredKind::NotFound => (ErrorKind::NotFound, "there is no such key"),
        #[cfg(feature = "redis-tls")]
        FredKind::Tls => {
            (ErrorKind::Transport, "TLS with Redis failed; is its certificate trusted (redis.ca_file)?")
        }
        FredKind::Unknown => (ErrorKind::BadRequest, "Redis refused the command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_becomes_a_kind_and_a_code_and_is_not_repeated() {
        let cases = [
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Capacity),
            ("NOAUTH Authentication required.", ErrorKind::Authentication),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::Corrupt),
            ("MOVED 1234 127.0.0.1:7001", ErrorKind::Config),
            ("ERR max number of clients reached", ErrorKind::Capacity),
            ("ERR unknown command 'hunter2'", ErrorKind::BadRequest),
        ];
        for (said, kind) in cases {
            let error = from_fred(&FredError::new(FredKind::Unknown, said), "GET");
            assert_eq!(error.kind(), kind, "{said}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
