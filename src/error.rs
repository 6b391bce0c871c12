//! The one error type of the crate.
//!
//! An [`Error`] says what happened ([`Display`](std::fmt::Display)), which part of arshai it came from
//! ([`Error::component`]), what sort of failure it is ([`Error::kind`]), whether trying the same call
//! again can help ([`Error::is_retryable`]), and what caused it ([`std::error::Error::source`]).
//! `Display` never repeats the cause; print the chain to see both.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is. Match on this rather than on text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller passed something that can never work: an empty id, no data, a bad filter.
    InvalidInput,
    /// The configuration is wrong; the message lists every problem found.
    Config,
    /// No backend of that name is registered.
    UnknownBackend,
    /// The thing asked for does not exist.
    NotFound,
    /// One value is larger than its bound and was refused; nothing else changed.
    TooLarge,
    /// A bound is reached: a full pool, a full store, no free slot. Nothing was done.
    Capacity,
    /// A deadline passed. The message says which step was waiting.
    Timeout,
    /// The work was cancelled before it ended.
    Cancelled,
    /// The component was shut down.
    Closed,
    /// The other side cannot be reached or is not ready.
    Unavailable,
    /// This backend does not do what was asked; its capabilities say so beforehand.
    Unsupported,
    /// The other side refused the credentials.
    Authentication,
    /// The other side asks for fewer requests.
    RateLimited,
    /// The conversation is longer than the model accepts.
    ContextLength,
    /// The provider's content filter stopped the answer.
    ContentFilter,
    /// The other side is overloaded (HTTP 5xx and its like).
    Overloaded,
    /// The other side refused the request as malformed.
    BadRequest,
    /// Bytes could not be sent or received.
    Transport,
    /// The other side answered with something that is not of its protocol.
    Protocol,
    /// A function panicked.
    Panic,
    /// A function returned an error of its own.
    Function,
    /// Stored data is damaged or not ours.
    Corrupt,
    /// A broken invariant of arshai itself; please report it.
    Internal,
}

impl ErrorKind {
    /// Whether trying again can help when nothing more is known than the kind.
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

/// What is known about the effect of a failed operation on the other side. Retries follow this, never a message.
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

/// What went wrong, where, and whether trying again can help.
///
/// Secrets (keys, passwords, credentials in URLs) never appear in it: whoever builds an error redacts
/// first.
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

    /// Adds one named fact, shown after the message. Never a secret.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Overrides whether trying again can help.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Sets what is known about its effect.
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

    /// Sets how long the server asked to wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Option<Duration>) -> Self {
        self.0.retry_after = delay;
        self
    }

    /// What is known about its effect on the other side. [`Outcome::Unknown`] unless the component that raised it
    /// knows better.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// How long the server asked to wait before trying again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call, made again later, can succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The part of arshai that raised it, for example `"memory.in_memory"`.
    #[must_use]
    pub fn component(&self) -> &str {
        &self.0.component
    }

    /// The message alone, without component and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The named facts added to it, in order.
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
