//! What the transport has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http::HttpStats;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub responses: AtomicU64,
    pub failures: AtomicU64,
    pub rejected: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub bytes_received: AtomicU64,
    slowest_us: AtomicU64,
}

impl Counters {
    pub(super) fn responded_after(&self, time: Duration) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(us, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> HttpStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = HttpStats::default();
        stats.responses = count(&self.responses);
        stats.failures = count(&self.failures);
        stats.rejected = count(&self.rejected);
        stats.bytes_sent = count(&self.bytes_sent);
        stats.bytes_received = count(&self.bytes_received);
        stats.slowest_response = Duration::from_micros(count(&self.slowest_us));
        stats
    }
}
