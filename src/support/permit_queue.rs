//! A limited number of permits, and a limited number of callers that wait for one.

use std::convert::Infallible;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LimitUsage;

use super::{OwnedPermit, ResizableSemaphore};

/// A [`ResizableSemaphore`] whose queue is bounded too: callers wait in order of arrival, at most `max_waiting` of
/// them, until their deadline.
#[derive(Debug, Clone)]
pub struct PermitQueue {
    permits: ResizableSemaphore,
    waiters: ResizableSemaphore,
    component: &'static str,
    step: &'static str,
    setting: &'static str,
}

impl PermitQueue {
    /// Hands out `permits`; `waiters` limits the callers that wait for one.
    #[must_use]
    pub fn new(permits: ResizableSemaphore, waiters: ResizableSemaphore) -> Self {
        let key = permits.key();
        Self { component: key, step: "waiting for a permit", setting: key, permits, waiters }
    }

    /// Names the component and the step in errors: `redis` and `waiting for a connection`.
    #[must_use]
    pub fn named(mut self, component: &'static str, step: &'static str) -> Self {
        (self.component, self.step) = (component, step);
        self
    }

    /// Names the setting to raise in errors at the deadline, where it is not the key of the permits.
    #[must_use]
    pub fn with_setting(mut self, setting: &'static str) -> Self {
        self.setting = setting;
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
        let Some(_waiting) = self.waiters.try_acquire_owned() else {
            return Err(self.queue_full_error());
        };
        let timeout = deadline.run(self.component, self.step, std::future::pending::<Infallible>());
        tokio::select! {
            // First, so that a permit released at the deadline goes to a caller that has time left.
            biased;
            Err(timeout) = timeout => Err(self.timeout_error(timeout)),
            permit = self.permits.acquire_owned() => permit.map_err(|_| self.closed_error()),
        }
    }

    /// The permits.
    #[must_use]
    pub fn permits(&self) -> &ResizableSemaphore {
        &self.permits
    }

    /// The callers that wait.
    #[must_use]
    pub fn waiters(&self) -> &ResizableSemaphore {
        &self.waiters
    }

    /// Snapshots of both limits.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitUsage> {
        vec![self.permits.usage(), self.waiters.usage()]
    }

    /// Rejects waiting and further callers with [`ErrorKind::Closed`].
    pub fn close(&self) {
        self.permits.close();
    }

    fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, self.component, "closed").not_sent()
    }

    fn queue_full_error(&self) -> Error {
        let message = format!("queue is full: {} callers are {}", self.waiters.max(), self.step);
        Error::new(ErrorKind::Capacity, self.component, message)
            .with_context("setting", self.waiters.key())
            .not_sent()
    }

    fn timeout_error(&self, timeout: Error) -> Error {
        timeout.with_context("limit", self.permits.max()).with_context("setting", self.setting).not_sent()
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
        assert_eq!(queue.waiters().used(), 0);
        drop(held);
        drop(queue.acquire(soon()).await.expect("free again"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_released_at_the_deadline_is_not_used() {
        let queue = queue(1, 1).named("redis", "waiting for a connection");
        let held = queue.acquire(soon()).await.expect("free");
        let deadline = soon();
        let release = async {
            tokio::time::sleep_until(deadline.instant()).await;
            drop(held);
        };
        let (late, ()) = tokio::join!(queue.acquire(deadline), release);
        let late = late.expect_err("too late").to_string();
        assert!(late.starts_with("redis: timed out: waiting for a connection"), "{late}");
        assert_eq!(queue.permits().used(), 0);
    }

    #[tokio::test]
    async fn closing_rejects_callers() {
        let queue = queue(0, 1);
        queue.close();
        assert_eq!(queue.acquire(soon()).await.expect_err("closed").kind(), ErrorKind::Closed);
    }
}
