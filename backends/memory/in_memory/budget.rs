//! The two bounds of a store, shared by its shards.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::LimitUsage;
use crate::memory::RemovalCause;

/// Entries and bytes in use, their limits and their peaks. Room is reserved before it is used, so that what
/// is in use never exceeds a limit, not even for a moment.
#[derive(Debug)]
pub(super) struct Budget {
    entries: Meter,
    bytes: Meter,
}

#[derive(Debug)]
struct Meter {
    used: AtomicU64,
    limit: AtomicU64,
    peak: AtomicU64,
}

impl Meter {
    fn new(used: u64, limit: u64) -> Self {
        Self { used: used.into(), limit: limit.into(), peak: used.into() }
    }

    fn reserve(&self, amount: u64) -> bool {
        let limit = self.limit.load(SeqCst);
        let grown = self
            .used
            .fetch_update(SeqCst, SeqCst, |used| used.checked_add(amount).filter(|grown| *grown <= limit));
        let Ok(before) = grown else { return false };
        // The limit may have been lowered in between: whoever lowered it then saw either this reservation
        // or nothing, and in the second case it is for us to step back.
        if before + amount > self.limit.load(SeqCst) {
            self.release(amount);
            return false;
        }
        if before + amount > self.peak.load(SeqCst) {
            self.peak.fetch_max(before + amount, SeqCst);
        }
        true
    }

    fn release(&self, amount: u64) {
        if amount > 0 {
            self.used.fetch_sub(amount, SeqCst);
        }
    }

    fn usage(&self, name: &'static str, unit: &'static str) -> LimitUsage {
        let [used, peak, limit] = [&self.used, &self.peak, &self.limit].map(|figure| figure.load(SeqCst));
        LimitUsage::new(name, unit, used, peak, Some(limit))
    }

    fn excess(&self) -> bool {
        self.used.load(SeqCst) > self.limit.load(SeqCst)
    }
}

impl Budget {
    pub(super) fn new(base_bytes: u64, max_entries: u64, max_bytes: u64) -> Self {
        Self { entries: Meter::new(0, max_entries), bytes: Meter::new(base_bytes, max_bytes) }
    }

    /// Reserves room, all or nothing.
    ///
    /// # Errors
    /// Which of the two limits is in the way.
    pub(super) fn reserve(&self, entries: u64, bytes: u64) -> Result<(), RemovalCause> {
        if entries > 0 && !self.entries.reserve(entries) {
            return Err(RemovalCause::MaxEntries);
        }
        if bytes > 0 && !self.bytes.reserve(bytes) {
            self.entries.release(entries);
            return Err(RemovalCause::MaxBytes);
        }
        Ok(())
    }

    pub(super) fn release(&self, entries: u64, bytes: u64) {
        self.entries.release(entries);
        self.bytes.release(bytes);
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.used.load(SeqCst)
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.bytes.limit.load(SeqCst)
    }

    pub(super) fn set_limits(&self, max_entries: Option<u64>, max_bytes: Option<u64>) {
        if let Some(limit) = max_entries {
            self.entries.limit.store(limit, SeqCst);
        }
        if let Some(limit) = max_bytes {
            self.bytes.limit.store(limit, SeqCst);
        }
    }

    /// Which limit is exceeded, after it was lowered.
    pub(super) fn excess(&self) -> Option<RemovalCause> {
        match (self.entries.excess(), self.bytes.excess()) {
            (true, _) => Some(RemovalCause::MaxEntries),
            (_, true) => Some(RemovalCause::MaxBytes),
            _ => None,
        }
    }

    pub(super) fn limits(&self) -> [LimitUsage; 2] {
        [
            self.entries.usage("memory.max_entries", "entries"),
            self.bytes.usage("memory.max_memory_mb", "bytes"),
        ]
    }
}
