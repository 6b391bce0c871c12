//! When an exchange is tried again, and how long after.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// The first pause between attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, unless the provider asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Is told of every failed attempt that is tried again; tells nobody unless something listens.
#[derive(Clone, Default)]
pub struct RetryListener(Option<Arc<Listener>>);

type Listener = dyn Fn(&Error) + Send + Sync;

impl RetryListener {
    /// Calls `listener`, which must be quick.
    pub fn new(listener: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Tells of `error`: for clients.
    pub fn tell(&self, error: &Error) {
        if let Some(listener) = &self.0 {
            listener(error);
        }
    }

    /// Tells `listener` too, first.
    #[must_use]
    pub fn and(self, listener: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self::new(move |error| {
            listener(error);
            self.tell(error);
        })
    }
}

impl fmt::Debug for RetryListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "RetryListener" } else { "none" })
    }
}

/// When the provider said to come back, as an error of a client tells it.
#[must_use]
pub fn retry_after(error: &Error) -> Option<Duration> {
    let (_, after) = error.context().find(|(name, _)| *name == "retry_after")?;
    let seconds = after.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A failed attempt.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether trying again is safe and can help.
    pub(super) retry: bool,
    /// The pause that the provider asked for.
    pub(super) after: Option<Duration>,
}

impl Failure {
    /// One that ends it.
    pub(super) fn last(error: Error) -> Self {
        Self { error, retry: false, after: None }
    }
}

/// How often, and with which pauses.
#[derive(Debug)]
pub(super) struct Retries {
    pub(super) max: u32,
    jitter: Jitter,
}

impl Retries {
    pub(super) fn new(max: u32) -> Self {
        Self { max, jitter: Jitter::default() }
    }

    /// Attempts until one succeeds, one fails for good, or the deadline would pass during the pause.
    pub(super) async fn run<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        component: &'static str,
        deadline: Deadline,
        listener: &RetryListener,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let mut attempts = 1;
        loop {
            let Failure { error, retry, after } = match attempt().await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let pause = self.pause(attempts, after);
            if !retry || attempts > self.max || pause >= deadline.remaining() {
                return Err(error.with_context("attempts", attempts));
            }
            tracing::warn!(component, attempts, pause_ms = pause.as_millis() as u64, "retrying: {error}");
            listener.tell(&error);
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    /// How long to wait after so many attempts.
    fn pause(&self, attempts: u32, asked: Option<Duration>) -> Duration {
        // To come back at once, or at a moment that has passed, is no pause at all.
        asked.filter(|asked| !asked.is_zero()).unwrap_or_else(|| {
            let pause = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_PAUSE);
            pause.mul_f64(1.0 - self.jitter.next() / 2.0)
        })
    }
}

/// A source of random pauses: a counter under a hasher that is seeded anew for each client.
#[derive(Debug, Default)]
struct Jitter {
    seed: RandomState,
    count: AtomicU64,
}

impl Jitter {
    /// A number from 0 to 1.
    fn next(&self) -> f64 {
        let hash = self.seed.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_what_was_asked_for_and_never_none() {
        let retries = Retries::new(3);
        let second = Duration::from_secs(1);
        assert_eq!(retries.pause(1, Some(second)), second);
        for asked in [None, Some(Duration::ZERO)] {
            assert!(retries.pause(1, asked) >= FIRST_PAUSE / 2, "{asked:?}");
        }
    }

    #[test]
    fn jitter_stays_between_nothing_and_all() {
        let jitter = Jitter::default();
        let drawn: Vec<_> = (0..1000).map(|_| jitter.next()).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(drawn.iter().any(|x| *x < 0.2) && drawn.iter().any(|x| *x > 0.8));
    }
}
