//! One deadline through everything a call does.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// The moment by which an operation must have ended.
///
/// A deadline is passed down and never restarted: waiting for a permit, connecting, retrying, running tools and reading
/// memory all spend the same one. It follows tokio's clock, so a test that pauses tokio's time pauses deadlines too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `timeout` from now. A timeout too long for the clock (over a century) is cut to thirty years.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self::since(Instant::now(), timeout)
    }

    /// A deadline `seconds` from now.
    #[must_use]
    pub fn after_secs(seconds: u64) -> Self {
        Self::after(Duration::from_secs(seconds))
    }

    /// A deadline `timeout` after `began`, which several deadlines can share. Cut as in [`after`](Self::after).
    #[must_use]
    pub fn since(began: Instant, timeout: Duration) -> Self {
        let far = Duration::from_secs(30 * 365 * 86_400);
        Self(began.checked_add(timeout).unwrap_or_else(|| began + far))
    }

    /// The moment itself.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// How long is left; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this one and `timeout` from now: a step's own limit within the whole.
    #[must_use]
    pub fn capped(self, timeout: Duration) -> Self {
        self.min(Self::after(timeout))
    }

    /// Runs `work` until it ends or the deadline passes.
    ///
    /// When the deadline passes, `work` is dropped and the error is [`ErrorKind::Timeout`], naming
    /// `component` and the `step` that was waiting. Dropping the returned future drops `work`.
    ///
    /// Work that is ready at its first poll needs no tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the deadline passes first, [`ErrorKind::Unsupported`] when it has to wait outside a
    /// tokio runtime.
    pub async fn run<F: Future>(
        self,
        component: &'static str,
        step: &'static str,
        work: F,
    ) -> Result<F::Output> {
        let began = Instant::now();
        if tokio::runtime::Handle::try_current().is_err() {
            // There is no timer, nor need for one if the work is ready.
            return work.now_or_never().ok_or_else(|| {
                let message = format!("no tokio runtime: {step} needs a runtime context");
                Error::new(ErrorKind::Unsupported, component, message)
            });
        }
        tokio::time::timeout_at(self.0, work).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, component, format!("timed out: {step}"))
                .with_context("waited", format!("{:.3}s", began.elapsed().as_secs_f64()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_outlives_its_deadline_is_dropped_and_the_step_is_named() {
        let error = Deadline::after(Duration::from_secs(2))
            .run("tasks", "search", std::future::pending::<()>())
            .await
            .expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().contains("timed out: search"), "{error}");
    }

    #[test]
    fn outside_a_runtime_ready_work_completes_and_other_work_is_a_typed_error() {
        let deadline = Deadline::after(Duration::from_secs(2));
        let ready = deadline.run("tasks", "search", std::future::ready(7)).now_or_never();
        assert_eq!(ready.expect("ready").expect("no timer needed"), 7);
        let waits = deadline.run("tasks", "search", std::future::pending::<()>()).now_or_never();
        assert_eq!(waits.expect("ready").expect_err("no timer").kind(), ErrorKind::Unsupported);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_never_extends_the_whole() {
        let whole = Deadline::after(Duration::from_secs(1));
        assert_eq!(whole.capped(Duration::from_secs(60)), whole);
        assert!(whole.capped(Duration::from_millis(10)) < whole);
    }

    #[tokio::test]
    async fn the_longest_timeout_does_not_overflow() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
    }
}
