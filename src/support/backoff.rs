//! Delays between attempts.

use std::time::Duration;

/// Exponential backoff with jitter: the delay doubles from `initial` up to `max`, and each one is drawn between
/// half of it and all of it ("equal jitter"), so that callers that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
}

impl Backoff {
    /// Delays from `initial`, doubling up to `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max }
    }

    /// The delay after `failed` failed attempts (1 after the first), jitter included.
    #[must_use]
    pub fn delay(&self, failed: u32) -> Duration {
        self.full_delay(failed).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The same, but at least `retry_after`, which a server asked for.
    #[must_use]
    pub fn delay_at_least(&self, failed: u32, retry_after: Option<Duration>) -> Duration {
        self.delay(failed).max(retry_after.unwrap_or_default())
    }

    fn full_delay(&self, failed: u32) -> Duration {
        let factor = 1u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_keep_at_least_half() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for (failed, full) in [(1, 1), (2, 2), (3, 4), (6, 30), (32, 30), (u32::MAX, 30)] {
            let full = Duration::from_secs(full);
            for _ in 0..100 {
                let delay = backoff.delay(failed);
                assert!(delay >= full / 2 && delay <= full, "{failed}: {delay:?} of {full:?}");
            }
        }
    }

    #[test]
    fn a_server_that_asks_for_more_gets_it() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.delay_at_least(1, Some(asked)), asked);
    }
}
