//! A semaphore whose number of permits can change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, Notify, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;

/// A FIFO semaphore whose number of permits can be changed while permits are in use.
///
/// Lowering the number takes nothing away from those who hold a permit: permits released beyond the new number are
/// forgotten. Cloning returns another handle to the same semaphore.
#[derive(Debug, Clone)]
pub struct ResizableSemaphore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: &'static str,
    unit: &'static str,
    semaphore: Semaphore,
    size: Mutex<Size>,
    used: AtomicUsize,
    peak: AtomicUsize,
    /// Notified when the last permit in use is released.
    idle: Notify,
}

#[derive(Debug)]
struct Size {
    max: usize,
    /// Permits that exist: free, or in use. More than `max` while permits in use outlive a lowered limit.
    existing: usize,
}

impl ResizableSemaphore {
    /// The largest number of permits; stands for "unlimited".
    pub const MAX: usize = Semaphore::MAX_PERMITS;

    /// A semaphore of `max` permits, reported as the limit `key` (a configuration key) counted in `unit`.
    #[must_use]
    pub fn new(key: &'static str, unit: &'static str, max: usize) -> Self {
        let max = max.min(Self::MAX);
        Self(Arc::new(Inner {
            key,
            unit,
            semaphore: Semaphore::new(max),
            size: Mutex::new(Size { max, existing: max }),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            idle: Notify::new(),
        }))
    }

    /// Waits for a permit. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once [`close`](Self::close) was called.
    pub async fn acquire_owned(&self) -> Result<OwnedPermit> {
        let permit = self.0.semaphore.acquire().await.map_err(|AcquireError { .. }| self.closed_error())?;
        permit.forget();
        self.0.record_acquired();
        Ok(OwnedPermit(Arc::clone(&self.0)))
    }

    /// Takes a permit if one is free; `None` otherwise and once closed.
    #[must_use]
    pub fn try_acquire_owned(&self) -> Option<OwnedPermit> {
        self.0.semaphore.try_acquire().ok()?.forget();
        self.0.record_acquired();
        Some(OwnedPermit(Arc::clone(&self.0)))
    }

    /// The error for callers after [`close`](Self::close).
    #[must_use]
    pub fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, self.0.key, "closed").not_sent()
    }

    /// Changes the number of permits. Waiters are served immediately when it rises. It stays a limit, however high, that
    /// can be lowered again: only [`new`](Self::new) makes a semaphore without one.
    pub fn set_max(&self, max: usize) {
        let max = max.min(Self::MAX - 1);
        let mut size = self.0.size.lock();
        if max > size.existing {
            self.0.semaphore.add_permits(max - size.existing);
            size.existing = max;
        } else {
            size.existing -= self.0.semaphore.forget_permits(size.existing - max);
        }
        size.max = max;
    }

    /// The current number of permits.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.size.lock().max
    }

    /// Permits in use now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    /// The configuration key of the limit.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.0.key
    }

    /// Waits until no permit is in use. Permits may be taken again immediately, unless [closed](Self::close).
    ///
    /// Dropping the future stops waiting and nothing else.
    pub async fn wait_idle(&self) {
        loop {
            // Register before looking: a release in between is not missed.
            let mut idle = std::pin::pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.used() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Turns waiting and further callers away with [`ErrorKind::Closed`]. Permits in use stay in use.
    pub fn close(&self) {
        self.0.semaphore.close();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.semaphore.is_closed()
    }

    /// A snapshot of the limit.
    #[must_use]
    pub fn usage(&self) -> LimitUsage {
        let max = self.max();
        let limit = (max < Self::MAX).then_some(max as u64);
        let peak = self.0.peak.load(Ordering::Relaxed) as u64;
        LimitUsage::new(self.0.key, self.0.unit, self.used() as u64, peak, limit)
    }
}

/// A permit in use; dropping it releases it.
#[derive(Debug)]
#[must_use = "dropping the permit releases it"]
pub struct OwnedPermit(Arc<Inner>);

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Inner {
    fn record_acquired(&self) {
        let used = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        // Read first: the peak is rarely exceeded, and a plain load does not contend for the cache line.
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    fn release(&self) {
        let was_last = self.used.fetch_sub(1, Ordering::AcqRel) == 1;
        {
            let mut size = self.size.lock();
            if size.existing > size.max {
                size.existing -= 1;
            } else {
                self.semaphore.add_permits(1);
            }
        }
        if was_last {
            self.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_permit_is_free_again_the_moment_it_is_dropped() {
        let slots = ResizableSemaphore::new("test", "slots", 1);
        let slot = slots.try_acquire_owned().expect("free");
        assert!(slots.try_acquire_owned().is_none());
        drop(slot);
        assert!(slots.try_acquire_owned().is_some());
    }

    #[tokio::test]
    async fn closing_turns_waiters_away() {
        let slots = ResizableSemaphore::new("test", "slots", 0);
        let waiter = slots.acquire_owned();
        slots.close();
        assert_eq!(waiter.await.expect_err("closed").kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_slot() {
        let slots = ResizableSemaphore::new("test", "slots", 2);
        let (first, last) =
            (slots.try_acquire_owned().expect("free"), slots.try_acquire_owned().expect("free"));
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.wait_idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(last);
        waiter.await.expect("it ends");
    }

    proptest! {
        #[test]
        fn whatever_the_changes_the_slots_in_use_and_free_add_up(
            steps in proptest::collection::vec((0u8..3, 0usize..12), 1..200)
        ) {
            let slots = ResizableSemaphore::new("test", "slots", 4);
            let mut held = Vec::new();
            for (what, n) in steps {
                match what {
                    0 => slots.set_max(n),
                    1 => { held.pop(); }
                    _ => {
                        let before = held.len();
                        let taken = slots.try_acquire_owned();
                        prop_assert_eq!(taken.is_some(), before < slots.max(), "{} of {}", before, slots.max());
                        held.extend(taken);
                    }
                }
                prop_assert_eq!(slots.used(), held.len());
            }
        }
    }
}
