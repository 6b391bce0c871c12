//! Which functions may be polled in place.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A first poll that took this long blocked, or computed: both belong on a task of their own.
const SLOW: Duration = Duration::from_millis(1);

/// Prompt beginnings that a new function owes before it is trusted.
const FIRST: u32 = 3;

/// Prompt beginnings that a function owes after one that had to wait.
const AFTER_WAITING: u32 = 64;

/// The most that slow beginnings can make a function owe.
const MOST: u32 = 4_096;

/// How the calls of one function have begun so far: for executors.
///
/// A call that ends in its first poll costs next to nothing when an executor polls it where it stands, and
/// ten times as much when it is spawned. But a first poll that blocks would hold up every call behind it. So
/// a function earns being polled in place: its calls are spawned until a few in a row have ended at once; it
/// owes more of them after a call that had to wait, and four times as many after each one that blocked.
#[derive(Debug)]
pub struct Pace {
    owed: AtomicU32,
    penalty: AtomicU32,
}

impl Pace {
    /// Nothing known yet.
    pub(super) const fn new() -> Self {
        Self { owed: AtomicU32::new(FIRST), penalty: AtomicU32::new(FIRST) }
    }

    /// Whether its calls may be expected to end at once.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0
    }

    /// Notes how long the first poll of a call took, and whether it was also the last.
    ///
    /// Calls that begin at the same time may each overwrite what the other noted: this is a guess about the
    /// next call, and a wrong guess costs time, never an outcome.
    pub fn note(&self, first_poll: Duration, ended: bool) {
        let owed = self.owed.load(Ordering::Relaxed);
        let owes = if first_poll >= SLOW {
            let penalty = self.penalty.load(Ordering::Relaxed).saturating_mul(4).min(MOST);
            self.penalty.store(penalty, Ordering::Relaxed);
            penalty
        } else if ended {
            owed.saturating_sub(1)
        } else {
            owed.max(AFTER_WAITING)
        };
        if owes != owed {
            self.owed.store(owes, Ordering::Relaxed);
        }
    }
}

/// A function that is changed starts anew.
impl Clone for Pace {
    fn clone(&self) -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(1);

    fn beginnings_until_prompt(pace: &Pace) -> u32 {
        (0..)
            .find(|_| {
                pace.is_prompt() || {
                    pace.note(QUICK, true);
                    false
                }
            })
            .unwrap_or(u32::MAX)
    }

    #[test]
    fn a_function_is_trusted_after_a_few_prompt_calls() {
        assert_eq!(beginnings_until_prompt(&Pace::new()), FIRST);
    }

    #[test]
    fn a_call_that_waits_puts_trust_off() {
        let pace = Pace::new();
        beginnings_until_prompt(&pace);
        pace.note(QUICK, false);
        assert_eq!(beginnings_until_prompt(&pace), AFTER_WAITING);
    }

    #[test]
    fn each_call_that_blocks_makes_trust_four_times_as_dear() {
        let pace = Pace::new();
        for times in 1..=4 {
            pace.note(SLOW, true);
            assert_eq!(beginnings_until_prompt(&pace), FIRST * 4u32.pow(times));
        }
    }
}
