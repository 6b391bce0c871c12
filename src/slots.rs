//! Counted slots: the bound behind every pool, limit and queue of arshai.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, Notify, Semaphore, TryAcquireError};

use crate::bounds::Bound;
use crate::error::{Error, ErrorKind, Result};

/// A number of slots that can be taken, given back and, while in use, changed.
///
/// Waiters are served in the order they came. Lowering the number takes nothing away from those who hold a
/// slot: slots that come back beyond the new number vanish. Cloning gives another handle to the same slots.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    unit: &'static str,
    semaphore: Semaphore,
    /// The number in force. Held while it changes, so that two changes cannot mix.
    max: Mutex<usize>,
    /// Slots to swallow as they come back, after the number was lowered below what was in use.
    owed: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
    /// Woken when the last slot in use comes back.
    idle: Notify,
}

impl Slots {
    /// The largest number of slots there can be.
    pub const MAX: usize = Semaphore::MAX_PERMITS;

    /// `max` slots, reported as the bound `name` counted in `unit`.
    #[must_use]
    pub fn new(name: &'static str, unit: &'static str, max: usize) -> Self {
        let max = max.min(Self::MAX);
        Self(Arc::new(Inner {
            name,
            unit,
            semaphore: Semaphore::new(max),
            max: Mutex::new(max),
            owed: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            idle: Notify::new(),
        }))
    }

    /// Waits for a slot. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once [`close`](Self::close) was called.
    pub async fn acquire(&self) -> Result<Slot> {
        match self.0.semaphore.acquire().await {
            Ok(permit) => {
                permit.forget();
                Ok(self.take())
            }
            Err(AcquireError { .. }) => Err(self.closed()),
        }
    }

    /// As [`acquire`](Self::acquire), for a slot that lives no longer than this handle: without a count of
    /// its own for all threads to fight over.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] once [`close`](Self::close) was called.
    pub async fn acquire_borrowed(&self) -> Result<BorrowedSlot<'_>> {
        match self.0.semaphore.acquire().await {
            Ok(permit) => {
                permit.forget();
                self.0.count();
                Ok(BorrowedSlot(&self.0))
            }
            Err(AcquireError { .. }) => Err(self.closed()),
        }
    }

    /// Takes a slot if one is free.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] when none is free, [`ErrorKind::Closed`] once closed.
    pub fn try_acquire(&self) -> Result<Slot> {
        match self.0.semaphore.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(self.take())
            }
            Err(TryAcquireError::NoPermits) => Err(Error::new(
                ErrorKind::Capacity,
                self.0.name,
                format!("all {} {} are in use", self.max(), self.0.unit),
            )),
            Err(TryAcquireError::Closed) => Err(self.closed()),
        }
    }

    fn take(&self) -> Slot {
        self.0.count();
        Slot(Arc::clone(&self.0))
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, self.0.name, "it is shut down")
    }

    /// Changes the number of slots. Waiters are served at once when it rises.
    pub fn set_max(&self, max: usize) {
        let max = max.min(Self::MAX);
        let mut current = self.0.max.lock();
        if max >= *current {
            let mut more = max - *current;
            // Forgive what is owed before making new slots.
            let _ = self.0.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| {
                more = (max - *current).saturating_sub(owed);
                Some(owed.saturating_sub(max - *current))
            });
            self.0.semaphore.add_permits(more);
        } else {
            let fewer = *current - max;
            let gone = self.0.semaphore.forget_permits(fewer);
            self.0.owed.fetch_add(fewer - gone, Ordering::AcqRel);
        }
        *current = max;
    }

    /// The number of slots in force.
    #[must_use]
    pub fn max(&self) -> usize {
        *self.0.max.lock()
    }

    /// Slots in use now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    /// Waits until no slot is in use. Slots may be taken again at once, unless [closed](Self::close).
    ///
    /// Dropping the future stops waiting and nothing else.
    pub async fn idle(&self) {
        loop {
            // Listen before looking: a slot that comes back in between is not missed.
            let mut idle = std::pin::pin!(self.0.idle.notified());
            idle.as_mut().enable();
            if self.used() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Refuses every further acquire; those waiting get [`ErrorKind::Closed`]. Slots in use stay in use.
    pub fn close(&self) {
        self.0.semaphore.close();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.semaphore.is_closed()
    }

    /// The figures of the bound.
    #[must_use]
    pub fn bound(&self) -> Bound {
        let max = self.max();
        let limit = (max < Self::MAX).then_some(max as u64);
        let peak = self.0.peak.load(Ordering::Relaxed) as u64;
        Bound::new(self.0.name, self.0.unit, self.used() as u64, peak, limit)
    }
}

/// A slot in use; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping the slot gives it back"]
pub struct Slot(Arc<Inner>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A slot in use, tied to its [`Slots`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping the slot gives it back"]
pub struct BorrowedSlot<'a>(&'a Inner);

impl Drop for BorrowedSlot<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl Inner {
    /// Counts a slot that was taken.
    fn count(&self) {
        let used = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        // Read first: the peak is rarely beaten, and a plain load does not fight over the cache line.
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    fn give_back(&self) {
        let was_last = self.used.fetch_sub(1, Ordering::AcqRel) == 1;
        let swallowed = self.owed.load(Ordering::Acquire) > 0
            && self
                .owed
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |owed| owed.checked_sub(1))
                .is_ok();
        if !swallowed {
            self.semaphore.add_permits(1);
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
    fn a_slot_is_free_again_the_moment_it_is_dropped() {
        let slots = Slots::new("test", "slots", 1);
        let slot = slots.try_acquire().expect("free");
        assert_eq!(slots.try_acquire().expect_err("taken").kind(), ErrorKind::Capacity);
        drop(slot);
        assert!(slots.try_acquire().is_ok());
    }

    #[tokio::test]
    async fn closing_turns_waiters_away() {
        let slots = Slots::new("test", "slots", 0);
        let waiter = slots.acquire();
        slots.close();
        assert_eq!(waiter.await.expect_err("closed").kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_slot() {
        let slots = Slots::new("test", "slots", 2);
        let (first, last) = (slots.try_acquire().expect("free"), slots.try_acquire().expect("free"));
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.idle().await }
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
            let slots = Slots::new("test", "slots", 4);
            let mut held = Vec::new();
            for (what, n) in steps {
                match what {
                    0 => slots.set_max(n),
                    1 => { held.pop(); }
                    _ => {
                        let before = held.len();
                        let taken = slots.try_acquire();
                        prop_assert_eq!(taken.is_ok(), before < slots.max(), "{} of {}", before, slots.max());
                        held.extend(taken);
                    }
                }
                prop_assert_eq!(slots.used(), held.len());
            }
        }
    }
}
