//! Errors of Redis and of fred as errors of this crate.

use fred::error::{Error as FredError, ErrorKind as FredKind};

use super::COMPONENT;
use crate::{Error, ErrorKind, Outcome};

/// The codes of Redis error replies, and the text of those that have no code.
const CODES: [(&str, ErrorKind, &str); 18] = [
    ("ERR max number of clients", ErrorKind::Capacity, "Redis has reached its connection limit (maxclients)"),
    (
        "ERR DB index",
        ErrorKind::Config,
        "redis.url names a database that this Redis does not have (databases)",
    ),
    ("LOADING", ErrorKind::Unavailable, "Redis is loading its dataset"),
    ("READONLY", ErrorKind::Unavailable, "read-only replica"),
    ("MASTERDOWN", ErrorKind::Unavailable, "replica lost its link to the master"),
    ("CLUSTERDOWN", ErrorKind::Unavailable, "the cluster does not serve this hash slot"),
    ("TRYAGAIN", ErrorKind::Unavailable, "hash slot is being migrated"),
    ("NOREPLICAS", ErrorKind::Unavailable, "not enough replicas for writes (min-replicas-to-write)"),
    ("BUSY", ErrorKind::Unavailable, "Redis is busy with a script"),
    ("MISCONF", ErrorKind::Unavailable, "Redis rejects writes: persistence is failing"),
    ("OOM", ErrorKind::Capacity, "Redis is out of memory (maxmemory)"),
    ("NOAUTH", ErrorKind::Authentication, "Redis requires authentication; set a password in redis.url"),
    ("WRONGPASS", ErrorKind::Authentication, "Redis rejected the username or password in redis.url"),
    ("NOPERM", ErrorKind::Authentication, "permission denied (ACL) for the user in redis.url"),
    ("WRONGTYPE", ErrorKind::Corrupt, "key holds a value of another type"),
    ("MOVED", ErrorKind::Config, "this Redis is a cluster node; use redis-cluster:// in redis.url"),
    ("ASK", ErrorKind::Config, "this Redis is a cluster node; use redis-cluster:// in redis.url"),
    ("NOSCRIPT", ErrorKind::NotFound, "script not loaded"),
];

/// The code of an error reply (`OOM`, `READONLY`), also where a script raised it; `None` for fred's own errors, which
/// start with an ordinary word.
fn error_code(error: &FredError) -> Option<&str> {
    let reply = error.details();
    if let Some((text, ..)) = CODES.iter().find(|(code, ..)| code.contains(' ') && reply.starts_with(code)) {
        return Some(text);
    }
    let is_code = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let first = reply.split([' ', ':']).next().filter(|word| is_code(word))?;
    if first != "ERR" {
        return Some(first);
    }
    // Redis 6 puts the code of an error within a script last; Redis 7 leaves out the one of missing permissions.
    if reply.contains("The user executing the script can't") {
        return Some("NOPERM");
    }
    let in_script = reply.strip_prefix("ERR Error running script").and_then(|rest| rest.rsplit_once(": "));
    Some(
        in_script
            .and_then(|(_, raised)| raised.split(' ').next())
            .filter(|word| is_code(word))
            .unwrap_or(first),
    )
}

/// Whether the connection cannot be used any more.
pub(super) fn breaks_connection(error: &FredError) -> bool {
    match error_code(error) {
        Some(code) => matches!(code, "READONLY" | "MASTERDOWN" | "ERR max number of clients"),
        None => {
            is_unexpected_reply(error)
                || matches!(
                    error.kind(),
                    FredKind::IO | FredKind::Canceled | FredKind::Routing | FredKind::Unknown
                )
        }
    }
}

/// Whether the reply is not of the type that the command has: replies may be out of step with their commands, and those
/// to the other commands in flight may not be theirs.
pub(super) fn is_unexpected_reply(error: &FredError) -> bool {
    error_code(error).is_none() && matches!(error.kind(), FredKind::Protocol | FredKind::Parse)
}

/// The error of `command`: [`Outcome::Rejected`] for an error reply, otherwise [`Outcome::Unknown`]. A reply may
/// repeat arguments of the command, which may be private, so only a known code is kept of it.
pub(super) fn from_fred(error: &FredError, command: &'static str) -> Error {
    let Some(reply) = error_code(error) else {
        let (kind, message) = classify_kind(error.kind());
        return Error::new(kind, COMPONENT, message).with_context("command", command);
    };
    let known = CODES.iter().find(|(code, ..)| *code == reply);
    let (kind, message) = known
        .map_or((ErrorKind::BadRequest, "Redis rejected the command"), |(_, kind, message)| {
            (*kind, *message)
        });
    let error = Error::new(kind, COMPONENT, message).with_context("command", command);
    match known {
        Some((code, ..)) => error.with_context("code", *code),
        None => error,
    }
    .with_outcome(Outcome::Rejected)
}

/// What fred reports of a step of connecting, as a part of its text: it keeps no typed cause.
const CONNECT_FAILURES: [(&str, ErrorKind, &str); 4] = [
    ("Name or service not known", ErrorKind::Unavailable, "unknown host in redis.url"),
    ("InvalidCertificate", ErrorKind::Transport, "TLS certificate not trusted (redis.ca_file)"),
    ("AlertReceived", ErrorKind::Transport, "Redis rejected the TLS handshake"),
    ("InvalidMessage", ErrorKind::Transport, "no TLS at this port; use redis:// in redis.url"),
];

/// The error of an attempt to connect. What the system or TLS says is kept as the cause: it holds no secrets. An
/// unknown host and a failed TLS handshake are not retryable; a closed port is: the server may be starting.
pub(super) fn connect_error(error: &FredError) -> Error {
    let details = error.details();
    let step = CONNECT_FAILURES.iter().find(|(text, ..)| details.contains(text));
    let connect = match (step, error.kind()) {
        (Some((_, kind, message)), _) => Error::new(*kind, COMPONENT, *message).with_retryable(false),
        (None, FredKind::IO) => Error::new(ErrorKind::Unavailable, COMPONENT, "failed to connect to Redis"),
        #[cfg(feature = "redis-tls")]
        (None, FredKind::Tls) => from_fred(error, "connect").with_retryable(false),
        _ => return from_fred(error, "connect").not_sent(),
    };
    connect.with_context("cause", details).not_sent()
}

/// The error of commands on a connection that has closed.
pub(super) fn connection_lost_error() -> FredError {
    FredError::new(FredKind::IO, "connection closed")
}

fn classify_kind(kind: &FredKind) -> (ErrorKind, &'static str) {
    match kind {
        FredKind::Auth => (ErrorKind::Authentication, "Redis rejected the credentials in redis.url"),
        FredKind::Timeout => (ErrorKind::Timeout, "timed out: waiting for the response"),
        // Unknown: fred dropped the command without a response.
        FredKind::IO | FredKind::Canceled | FredKind::Unknown => {
            (ErrorKind::Transport, "connection to Redis lost")
        }
        FredKind::Routing | FredKind::Cluster => (ErrorKind::Unavailable, "no cluster node serves this key"),
        FredKind::Sentinel => (ErrorKind::Unavailable, "Sentinel reports no reachable master"),
        FredKind::Protocol | FredKind::Parse => (ErrorKind::Protocol, "unexpected reply from Redis"),
        FredKind::Backpressure => (ErrorKind::Capacity, "command backlog is full"),
        FredKind::Config | FredKind::Url => (ErrorKind::Config, "redis.url does not fit this Redis"),
        FredKind::InvalidArgument | FredKind::InvalidCommand => {
            (ErrorKind::InvalidInput, "invalid arguments for the command")
        }
        FredKind::NotFound => (ErrorKind::NotFound, "no such key"),
        #[cfg(feature = "redis-tls")]
        FredKind::Tls => {
            (ErrorKind::Transport, "TLS handshake failed; is the certificate trusted (redis.ca_file)?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reply_becomes_a_kind_and_a_code_and_is_not_echoed() {
        let cases = [
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Capacity),
            ("NOAUTH Authentication required.", ErrorKind::Authentication),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::Corrupt),
            ("MOVED 1234 127.0.0.1:7001", ErrorKind::Config),
            ("ERR max number of clients reached", ErrorKind::Capacity),
            ("ERR DB index is out of range", ErrorKind::Config),
            (
                "ERR Error running script (call to f_1): @user_script:2: WRONGTYPE Operation",
                ErrorKind::Corrupt,
            ),
            ("READONLY You can't write against a read only replica. script: 1", ErrorKind::Unavailable),
            (
                "ERR The user executing the script can't run this command or subcommand script: hunter2",
                ErrorKind::Authentication,
            ),
            ("ERR unknown command 'hunter2'", ErrorKind::BadRequest),
        ];
        for (reply, kind) in cases {
            let error = from_fred(&FredError::new(FredKind::Unknown, reply), "GET");
            assert_eq!((error.kind(), error.outcome()), (kind, Outcome::Rejected), "{reply}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn without_a_reply_the_outcome_is_unknown_and_the_connection_broken() {
        for (kind, details) in [
            (FredKind::Unknown, "channel closed"),
            (FredKind::IO, "Io(\"broken pipe\")"),
            (FredKind::Canceled, ""),
        ] {
            let error = FredError::new(kind, details);
            assert!(breaks_connection(&error), "{error:?}");
            let error = from_fred(&error, "SET");
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Transport, Outcome::Unknown));
        }
    }
}
