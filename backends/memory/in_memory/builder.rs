//! How an in-process store is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cleanup::Cleanup;
use super::store::Store;
use super::{COMPONENT, InMemoryManager};
use crate::memory::EvictionListener;
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
    /// How long an entry lives from the moment it is stored.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The most entries.
    #[must_use]
    pub fn max_entries(mut self, max_entries: impl Into<Option<u64>>) -> Self {
        self.max_entries = max_entries.into().unwrap_or(u64::MAX);
        self
    }

    /// The most memory the store may take, in MiB (1 048 576 bytes), its own overhead included.
    #[must_use]
    pub fn max_memory_mb(self, mebibytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes(mebibytes.into().map(|mebibytes| mebibytes.saturating_mul(1 << 20)))
    }

    /// The most memory the store may take, in bytes, its own overhead included.
    #[must_use]
    pub fn max_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_bytes = bytes.into().unwrap_or(1 << 50);
        self
    }

    /// How often expired entries are cleaned up in the background.
    #[must_use]
    pub fn cleanup_interval(mut self, interval: Duration) -> Self {
        self.cleanup_interval = interval;
        self
    }

    /// The clock that entries expire by.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Called for every entry that leaves the store.
    #[must_use]
    pub fn eviction_listener(mut self, listener: EvictionListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Makes the store. It starts nothing and, until it is used, takes a few kilobytes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the time to live, the cleanup interval or a limit is zero, or the budget
    /// too small for a single entry.
    pub fn build(self) -> Result<InMemoryManager> {
        for (name, time) in [("time to live", self.ttl), ("cleanup interval", self.cleanup_interval)] {
            if time.is_zero() {
                let message = format!("the {name} is zero; give it at least a second");
                return Err(Error::new(ErrorKind::Config, COMPONENT, message));
            }
        }
        let limits = (self.max_entries, self.max_bytes);
        let store = Store::new(limits, self.ttl, self.clock, self.listener)?;
        Ok(InMemoryManager {
            store: Arc::new(store),
            cleanup: Cleanup::every(self.cleanup_interval),
            closed: false.into(),
        })
    }
}

impl fmt::Debug for InMemoryManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryManagerBuilder")
            .field("ttl", &self.ttl)
            .field("max_entries", &self.max_entries)
            .field("max_bytes", &self.max_bytes)
            .field("cleanup_interval", &self.cleanup_interval)
            .finish_non_exhaustive()
    }
}
