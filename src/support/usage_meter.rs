//! How much of a limit is in use.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LimitUsage;

/// Counts what is in use against a limit that can change, and remembers the peak.
#[derive(Debug)]
pub struct UsageMeter {
    key: &'static str,
    unit: &'static str,
    used: AtomicU64,
    peak: AtomicU64,
    max: AtomicU64,
}

impl UsageMeter {
    /// A meter of the limit `key`, counted in `unit`; `u64::MAX` means unlimited.
    #[must_use]
    pub const fn new(key: &'static str, unit: &'static str, max: u64) -> Self {
        Self { key, unit, used: AtomicU64::new(0), peak: AtomicU64::new(0), max: AtomicU64::new(max) }
    }

    /// Adds `n` if the limit allows it.
    #[must_use]
    pub fn try_add(&self, n: u64) -> bool {
        let max = self.max();
        let added = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(n).filter(|sum| *sum <= max)
        });
        if let Ok(before) = added {
            self.peak.fetch_max(before + n, Ordering::Relaxed);
        }
        added.is_ok()
    }

    /// Adds `n` whether or not the limit allows it.
    pub fn add(&self, n: u64) {
        let before = self.used.fetch_add(n, Ordering::AcqRel);
        self.peak.fetch_max(before.saturating_add(n), Ordering::Relaxed);
    }

    /// Adds `n` for now, without recording a peak: for users that exceed the limit until they have made room.
    pub fn add_provisionally(&self, n: u64) {
        self.used.fetch_add(n, Ordering::AcqRel);
    }

    /// Records what is in use, up to the limit, as a peak.
    pub fn record_peak(&self) {
        let used = self.used().min(self.max());
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    /// Whether more is in use than the limit allows.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.max()
    }

    /// Takes away `n` that was added before.
    pub fn sub(&self, n: u64) {
        self.used.fetch_sub(n, Ordering::AcqRel);
    }

    /// In use now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The limit; `u64::MAX` when unlimited.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Acquire)
    }

    /// Changes the limit. What is in use stays in use. A limit, however high, stays one that can be lowered again: only
    /// [`new`](Self::new) makes a meter without a limit.
    pub fn set_max(&self, max: u64) {
        self.max.store(max.min(u64::MAX - 1), Ordering::Release);
    }

    /// The configuration key of the limit.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// A snapshot.
    #[must_use]
    pub fn usage(&self) -> LimitUsage {
        let max = self.max();
        let limit = (max != u64::MAX).then_some(max);
        LimitUsage::new(self.key, self.unit, self.used(), self.peak.load(Ordering::Relaxed), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_added_beyond_the_limit_and_the_peak_is_kept() {
        let meter = UsageMeter::new("test.max", "bytes", 10);
        assert!(meter.try_add(7));
        assert!(!meter.try_add(4));
        assert!(!meter.try_add(u64::MAX));
        meter.sub(5);
        assert_eq!(meter.usage(), LimitUsage::new("test.max", "bytes", 2, 7, Some(10)));
        meter.add_provisionally(9);
        assert!(meter.is_exceeded());
        meter.record_peak();
        meter.sub(9);
        assert_eq!(meter.usage(), LimitUsage::new("test.max", "bytes", 2, 10, Some(10)));
        meter.set_max(u64::MAX);
        assert!(meter.try_add(1 << 40));
        assert_eq!(meter.usage().limit, Some(u64::MAX - 1));
    }
}
