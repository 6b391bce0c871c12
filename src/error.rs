//! The one error type of the crate.
//!
//! An [`Error`] has a message ([`Display`](std::fmt::Display)), the component that raised it ([`Error::component`]), a kind
//! ([`Error::kind`]), whether a retry can help ([`Error::is_retryable`]), and a cause ([`std::error::Error::source`]).
//! `Display` does not repeat the cause; `Debug` prints the message and the chain of causes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`]. Match on this, not on the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Invalid argument: an empty id, missing data, an invalid filter.
    InvalidInput,
    /// Invalid configuration; the message lists every problem found.
    Config,
    /// No backend of that name is registered.
    UnknownBackend,
    /// The requested item does not exist.
    NotFound,
    /// A value exceeds its size limit and was rejected; nothing else changed.
    TooLarge,
    /// A limit is reached: a full pool, store or queue. Nothing was done.
    Capacity,
    /// A deadline passed. The message names the step.
    Timeout,
    /// The work was cancelled before it completed.
    Cancelled,
    /// The component was shut down.
    Closed,
    /// The server cannot be reached or is not ready.
    Unavailable,
    /// This backend does not support the operation; see its capabilities.
    Unsupported,
    /// The server rejected the credentials.
    Authentication,
    /// The server limits the rate of requests.
    RateLimited,
    /// The conversation exceeds the model's context length.
    ContextLength,
    /// The provider's content filter stopped the response.
    ContentFilter,
    /// The server is overloaded (HTTP 5xx and the like).
    Overloaded,
    /// The server rejected the request as malformed.
    BadRequest,
    /// Sending or receiving failed.
    Transport,
    /// The server's response violates the protocol.
    Protocol,
    /// A function panicked.
    Panic,
    /// A function returned an error.
    Function,
    /// Stored data is damaged or has another format.
    Corrupt,
    /// A broken invariant of arshai itself; please report it.
    Internal,
}

impl ErrorKind {
    /// Whether a retry can help, when only the kind is known.
    const fn retryable(self) -> bool {
        matches!(
            self,
            Self::Capacity
                | Self::Timeout
                | Self::Unavailable
                | Self::RateLimited
                | Self::Overloaded
                | Self::Transport
        )
    }
}

/// Whether a failed operation took effect on the server, as far as is known. Retries follow this, never a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was sent: even a non-idempotent operation can be repeated.
    NotSent,
    /// The server rejected it and did nothing.
    Rejected,
    /// It was sent, and may have taken effect.
    Unknown,
}

/// The error type of the crate.
///
/// Match on its [kind](Self::kind), never on its message:
///
/// ```
/// use arshai::{Error, ErrorKind};
///
/// fn status(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::InvalidInput | ErrorKind::TooLarge => 400,
///         ErrorKind::RateLimited | ErrorKind::Capacity => 429,
///         ErrorKind::Timeout => 504,
///         _ if error.is_retryable() => 503,
///         _ => 500,
///     }
/// }
/// ```
///
/// Secrets (keys, passwords, credentials in URLs) never appear in an error.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retryable: bool,
    outcome: Outcome,
    retry_after: Option<Duration>,
    component: Cow<'static, str>,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` from `component` (for example `"memory.in_memory"`).
    #[must_use]
    pub fn new(
        kind: ErrorKind,
        component: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            retryable: kind.retryable(),
            outcome: Outcome::Unknown,
            retry_after: None,
            component: component.into(),
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds a named value, shown after the message. Never a secret.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Overrides whether a retry can help.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Sets its outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    /// Marks that nothing was sent: [`Outcome::NotSent`].
    #[must_use]
    pub fn not_sent(self) -> Self {
        self.with_outcome(Outcome::NotSent)
    }

    /// Sets the delay before a retry that the server requested.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.0.retry_after = delay;
        self
    }

    /// Whether the operation took effect on the server. [`Outcome::Unknown`] unless the component that raised it knows
    /// better.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Delay before a retry that the server requested.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed when it is retried later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The component that raised it, for example `"memory.in_memory"`.
    #[must_use]
    pub fn component(&self) -> &str {
        &self.0.component
    }

    /// The message alone, without component and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The named values added to it, in order.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.component, self.0.message)?;
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if self.0.context.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// The message and its causes, one a line: what `fn main() -> arshai::Result<()>` prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Some causes are summaries of what the message already lists.
            if !printed.contains(&message) {
                printed.push_str("\n  caused by: ");
                printed.push_str(&message);
            }
            cause = error.source();
        }
        f.write_str(&printed)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_where_and_what_and_leaves_the_cause_to_source() {
        let error = Error::new(ErrorKind::Timeout, "http.ureq", "no connection came free within 5s")
            .with_context("in_use", 20)
            .with_context("limit", 20)
            .with_source(std::io::Error::other("underlying cause"));
        assert_eq!(error.to_string(), "http.ureq: no connection came free within 5s (in_use: 20, limit: 20)");
        assert_eq!(error.source().expect("it has one").to_string(), "underlying cause");
        assert!(error.is_retryable());
    }

    #[test]
    fn debug_prints_the_message_and_each_cause_once() {
        let cause = Error::new(ErrorKind::Transport, "http", "connection lost")
            .with_source(std::io::Error::other("broken pipe"));
        let error = Error::new(ErrorKind::Unavailable, "llm", "failed: broken pipe").with_source(cause);
        assert_eq!(format!("{error:?}"), "llm: failed: broken pipe\n  caused by: http: connection lost");
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
