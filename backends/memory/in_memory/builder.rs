//! The builder of an in-process store.

use std::sync::Arc;
use std::time::Duration;

use super::cleanup::Cleanup;
use super::store::Store;
use super::{COMPONENT, InMemoryManager};
use crate::memory::EvictionListener;
use crate::support::opaque_debug;
use crate::{Clock, Error, ErrorKind, Result, SystemClock};

/// Builds an [`InMemoryManager`].
pub struct InMemoryManagerBuilder {
    ttl: Duration,
    max_entries: u64,
    max_bytes: u64,
    cleanup_interval: Duration,
    clock: Arc<dyn Clock>,
    listener: Option<EvictionListener>,
}

impl Default for InMemoryManagerBuilder {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 60 * 60),
            max_entries: 10_000,
            max_bytes: 500 << 20,
            cleanup_interval: Duration::from_secs(300),
            clock: Arc::new(SystemClock::new()),
            listener: None,
        }
    }
}

impl InMemoryManagerBuilder {
    /// TTL of entries, counted from `store`. Default: 12 hours.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Maximum number of entries, `None` for no limit. Default: 10 000.
    #[must_use]
    pub fn max_entries(mut self, max_entries: impl Into<Option<u64>>) -> Self {
        self.max_entries = max_entries.into().unwrap_or(u64::MAX);
        self
    }

    /// Maximum size in MiB (1 048 576 bytes) including overhead, `None` for no limit. Default: 500.
    #[must_use]
    pub fn max_memory_mb(self, mebibytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes(mebibytes.into().map(|mebibytes| mebibytes.saturating_mul(1 << 20)))
    }

    /// Maximum size in bytes including overhead, `None` for no limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes = bytes.into().unwrap_or(u64::MAX);
        self
    }

    /// Interval of the background cleanup. Default: 300 s.
    #[must_use]
    pub fn cleanup_interval(mut self, interval: Duration) -> Self {
        self.cleanup_interval = interval;
        self
    }

    /// The clock for expiry.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Called for every removed entry.
    #[must_use]
    pub fn eviction_listener(mut self, listener: EvictionListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Builds the store. It starts nothing and takes a few kilobytes until it is used.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the TTL, the cleanup interval or a limit is zero, or the size too small for one entry.
    pub fn build(self) -> Result<InMemoryManager> {
        for (name, time) in [("ttl", self.ttl), ("cleanup_interval", self.cleanup_interval)] {
            if time.is_zero() {
                let message = format!("{name} must be greater than zero");
                return Err(Error::new(ErrorKind::Config, COMPONENT, message));
            }
        }
        let limits = (self.max_entries, self.max_bytes);
        let store = Store::new(limits, self.ttl, self.clock, self.listener)?;
        Ok(InMemoryManager {
            store: Arc::new(store),
            cleanup: Cleanup::new(self.cleanup_interval),
            closed: false.into(),
        })
    }
}

opaque_debug!(InMemoryManagerBuilder { ttl, max_entries, max_bytes, cleanup_interval });
