//! State shared by all collections of a store: the memory budget, threads and ids.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use crate::support::{BlockingPool, UsageMeter};
use crate::{Error, ErrorKind, Outcome, Result};

/// Key of the limit of bytes.
pub(super) const MAX_MEMORY_MB: &str = "vectors.max_memory_mb";
/// Keys of the threads for large searches and queries, and for large writes, so that writes never wait for searches.
pub(super) const SEARCH_THREADS: &str = "vectors.search_threads";
pub(super) const WRITE_THREADS: &str = "vectors.write_threads";

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) budget: UsageMeter,
    pub(super) search_threads: BlockingPool,
    pub(super) write_threads: BlockingPool,
    pub(super) searches: AtomicU64,
    pub(super) closed: CancellationToken,
    /// Ids are this random prefix and a counter.
    id_prefix: u32,
    next_id: AtomicU64,
}

impl Shared {
    pub(super) fn new(max_bytes: u64, search_threads: usize, write_threads: usize) -> Self {
        Self {
            budget: UsageMeter::new(MAX_MEMORY_MB, "bytes", max_bytes),
            search_threads: BlockingPool::new(SEARCH_THREADS, search_threads),
            write_threads: BlockingPool::new(WRITE_THREADS, write_threads),
            searches: AtomicU64::new(0),
            closed: CancellationToken::new(),
            id_prefix: fastrand::u32(..),
            next_id: AtomicU64::new(0),
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "vectors.embedded", "store is closed").not_sent());
        }
        Ok(())
    }

    pub(super) fn next_id(&self) -> String {
        format!("{:08x}-{:016x}", self.id_prefix, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Replaces `before` bytes by `after`, if they fit.
    pub(super) fn adjust_budget(&self, before: u64, after: u64) -> Result<()> {
        if after <= before {
            self.budget.sub(before - after);
        } else if !self.budget.try_add(after - before) {
            let (bytes, max) = (self.budget.used() + after - before, self.budget.max());
            let message =
                format!("insert rejected: {bytes} bytes exceed the limit of {max} ({MAX_MEMORY_MB})");
            let error = Error::new(ErrorKind::Capacity, "vectors.embedded", message);
            return Err(error.with_retryable(false).with_outcome(Outcome::Rejected));
        }
        Ok(())
    }
}
