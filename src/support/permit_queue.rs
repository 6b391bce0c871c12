//! A limited number of permits, and a limited number of callers that wait for one.

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;

use super::{OwnedPermit, ResizableSemaphore};

/// A [`ResizableSemaphore`] whose queue is bounded too: callers wait in order of arrival, at most `max_waiting` of
/// them, until their deadline.
#[derive(Debug, Clone)]
pub struct PermitQueue {
    permits: ResizableSemaphore,
    waiting: ResizableSemaphore,
    component: &'static str,
    step: &'static str,
}

impl PermitQueue {
    /// Hands out `permits`; `waiting` limits the callers that wait for one.
    #[must_use]
    pub fn new(permits: ResizableSemaphore, waiting: ResizableSemaphore) -> Self {
        let component = permits.key();
        Self { permits, waiting, component, step: "waiting for a permit" }
    }

    /// Sets the component and the step that errors name; by default the permits' key and "waiting for a permit".
    #[must_use]
    pub fn with_step(mut self, component: &'static str, step: &'static str) -> Self {
        (self.component, self.step) = (component, step);
        self
    }

    /// Takes a permit, waiting for one until `deadline`. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Capacity`] immediately when `max_waiting` callers wait already, [`ErrorKind::Timeout`] at the
    /// deadline, both naming the setting to raise; [`ErrorKind::Closed`] once closed.
    pub async fn acquire(&self, deadline: Deadline) -> Result<OwnedPermit> {
        if let Some(permit) = self.permits.try_acquire_owned() {
            return Ok(permit);
        }
        if self.permits.is_closed() {
            return Err(self.closed_error());
        }
        let Some(_waiting) = self.waiting.try_acquire_owned() else {
            return Err(self.queue_full_error());
        };
        match deadline.run(self.component, self.step, self.permits.acquire_owned()).await {
            Ok(acquired) => acquired.map_err(|_| self.closed_error()),
            Err(timeout) => Err(self.timeout_error(timeout)),
        }
    }

    /// The permits.
    #[must_use]
    pub fn permits(&self) -> &ResizableSemaphore {
        &self.permits
    }

    /// Callers that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.used()
    }

    /// Snapshots of both limits.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitUsage> {
        vec![self.permits.usage(), self.waiting.usage()]
    }

    /// Turns waiting and further callers away with [`ErrorKind::Closed`].
    pub fn close(&self) {
        self.permits.close();
    }

    fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, self.component, "closed").not_sent()
    }

    fn queue_full_error(&self) -> Error {
        let message = format!("queue is full: {} callers wait already", self.waiting.max());
        Error::new(ErrorKind::Capacity, self.component, message)
            .with_context("setting", self.waiting.key())
            .not_sent()
    }

    fn timeout_error(&self, timeout: Error) -> Error {
        timeout
            .with_context("limit", self.permits.max())
            .with_context("setting", self.permits.key())
            .not_sent()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue(permits: usize, waiting: usize) -> PermitQueue {
        PermitQueue::new(
            ResizableSemaphore::new("test.max", "permits", permits),
            ResizableSemaphore::new("test.max_waiting", "callers", waiting),
        )
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_rejects_immediately_and_a_waiting_caller_times_out_naming_the_setting() {
        let queue = queue(1, 1);
        let held = queue.acquire(soon()).await.expect("free");
        let waiting = queue.acquire(soon());
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let full = queue.acquire(soon()).await.expect_err("full");
        assert_eq!(full.kind(), ErrorKind::Capacity);
        assert!(full.to_string().contains("test.max_waiting"), "{full}");
        let timeout = waiting.await.expect_err("held");
        assert_eq!(timeout.kind(), ErrorKind::Timeout);
        assert!(timeout.to_string().contains("setting: test.max"), "{timeout}");
        assert_eq!(queue.waiting(), 0);
        drop(held);
        queue.acquire(soon()).await.expect("free again");
    }

    #[tokio::test]
    async fn closing_turns_callers_away() {
        let queue = queue(0, 1);
        queue.close();
        assert_eq!(queue.acquire(soon()).await.expect_err("closed").kind(), ErrorKind::Closed);
    }
}
