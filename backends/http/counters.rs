//! Counters of the transport.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http::HttpStats;

#[derive(Default)]
pub(super) struct Counters {
    responses: AtomicU64,
    failures: AtomicU64,
    rejected: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    slowest_ns: AtomicU64,
}

impl Counters {
    pub(super) fn responded(&self, after: Duration) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.slowest_ns.fetch_max(ns, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> HttpStats {
        let mut stats = HttpStats::default();
        stats.responses = self.responses.load(Ordering::Relaxed);
        stats.failures = self.failures.load(Ordering::Relaxed);
        stats.rejected = self.rejected.load(Ordering::Relaxed);
        stats.bytes_sent = self.bytes_sent.load(Ordering::Relaxed);
        stats.bytes_received = self.bytes_received.load(Ordering::Relaxed);
        stats.slowest_response = Duration::from_nanos(self.slowest_ns.load(Ordering::Relaxed));
        stats
    }
}
