//! State shared by all collections of a store: the memory budget, threads and counters.

use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::support::{BlockingPool, OwnedPermit, ResizableSemaphore, UsageMeter};
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
    search_permits: ResizableSemaphore,
    pub(super) write_threads: BlockingPool,
    pub(super) searches: AtomicU64,
    pub(super) closed: CancellationToken,
    cores: usize,
}

impl Shared {
    pub(super) fn new(max_bytes: u64, search_threads: usize, write_threads: usize) -> Self {
        let search_permits = ResizableSemaphore::new(SEARCH_THREADS, "threads", search_threads);
        Self {
            budget: UsageMeter::new(MAX_MEMORY_MB, "bytes", max_bytes),
            search_threads: BlockingPool::with_permits(SEARCH_THREADS, search_permits.clone()),
            search_permits,
            write_threads: BlockingPool::new(WRITE_THREADS, write_threads),
            searches: AtomicU64::new(0),
            closed: CancellationToken::new(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "vectors.embedded", "store is closed").not_sent());
        }
        Ok(())
    }

    /// Permits for further threads of a search, as far as cores and threads are free.
    pub(super) fn helpers(&self, wanted: usize) -> Vec<OwnedPermit> {
        let wanted = wanted.min(self.cores.saturating_sub(self.search_permits.used()));
        (0..wanted).map_while(|_| self.search_permits.try_acquire_owned()).collect()
    }

    /// Takes bytes from the budget.
    pub(super) fn reserve(&self, bytes: u64) -> Result<()> {
        if self.budget.try_add(bytes) {
            return Ok(());
        }
        let (bytes, max) = (self.budget.used() + bytes, self.budget.max());
        let message = format!("insert rejected: {bytes} bytes exceed the limit of {max} ({MAX_MEMORY_MB})");
        let error = Error::new(ErrorKind::Capacity, "vectors.embedded", message);
        Err(error.with_retryable(false).with_outcome(Outcome::Rejected))
    }
}

/// The ids of a collection: a random prefix and a number that ascends.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct IdSequence {
    prefix: u32,
    next: u64,
}

impl IdSequence {
    pub(super) fn new() -> Self {
        Self { prefix: fastrand::u32(..), next: 0 }
    }

    pub(super) fn take(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The id with this number; in the order of the numbers.
    pub(super) fn id(&self, number: u64) -> String {
        format!("{:08x}-{number:016x}", self.prefix)
    }

    pub(super) fn continue_after(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    pub(super) fn skip(&mut self, numbers: u64) {
        self.next = self.next.saturating_add(numbers);
    }
}
