//! Injected time.
//!
//! Everything in arshai that expires asks a [`Clock`]. The default one, [`SystemClock`], is monotonic:
//! moving the machine's wall clock expires nothing early and keeps nothing alive. Tests pass a
//! [`ManualClock`] and move it by hand instead of sleeping. Deadlines of asynchronous work are
//! [`Deadline`](crate::Deadline)s, which follow tokio's clock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A source of time for whatever expires.
///
/// `now` must never go backwards. It may be coarse: the default one advances in steps of at most ten
/// milliseconds, because it is read on every memory hit.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Time since a fixed but unspecified moment, monotonic.
    fn now(&self) -> Duration;

    /// The wall clock, for timestamps that people and other programs read.
    fn system_time(&self) -> SystemTime;
}

/// The machine's own monotonic clock, read coarsely where the system offers it.
///
/// On Linux readings are `CLOCK_MONOTONIC_COARSE` and `CLOCK_REALTIME_COARSE`: a few nanoseconds, accurate to one
/// kernel tick (1 to 10 ms). Elsewhere they are [`std::time::Instant`] and [`SystemTime`].
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    #[cfg(not(target_os = "linux"))]
    origin: std::time::Instant,
}

impl SystemClock {
    /// The machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            #[cfg(not(target_os = "linux"))]
            origin: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Duration {
        read_coarse(rustix::time::ClockId::MonotonicCoarse)
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    #[cfg(target_os = "linux")]
    fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + read_coarse(rustix::time::ClockId::RealtimeCoarse)
    }

    #[cfg(not(target_os = "linux"))]
    fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(target_os = "linux")]
fn read_coarse(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    // The kernel keeps the nanoseconds in range; the seconds are negative only on a machine set before 1970.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), time.tv_nsec as u32)
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_ns: AtomicU64,
    /// Milliseconds added to the wall clock on its own, to play a wall clock that jumps.
    wall_offset_ms: AtomicU64,
}

impl ManualClock {
    /// A clock at zero, its wall clock at the Unix epoch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves both the monotonic and the wall clock forward.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// Moves the wall clock alone, as an administrator or NTP would.
    pub fn advance_system_time(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.wall_offset_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }

    fn system_time(&self) -> SystemTime {
        let offset = Duration::from_millis(self.wall_offset_ms.load(Ordering::SeqCst));
        SystemTime::UNIX_EPOCH + offset + self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_backwards() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_wall_clock_is_the_systems_to_within_a_tick() {
        let before = SystemTime::now();
        let off = SystemClock::new()
            .system_time()
            .duration_since(before)
            .unwrap_or_else(|earlier| earlier.duration());
        assert!(off < Duration::from_secs(1), "{off:?}");
    }

    #[test]
    fn a_wall_clock_that_jumps_leaves_monotonic_time_alone() {
        let clock = ManualClock::new();
        clock.advance_system_time(Duration::from_secs(86_400));
        assert_eq!(clock.now(), Duration::ZERO);
        assert_eq!(clock.system_time(), SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
    }
}
