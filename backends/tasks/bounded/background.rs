//! Background tasks: their limit, their failures, their end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::super::notify_failure;
use super::failure::{CallFailure, CallResult};
use crate::Deadline;
use crate::config::TaskConfig;
use crate::support::{OwnedPermit, ResizableSemaphore};
use crate::tasks::{
    BackgroundFailureListener, CallContext, FailureKind, FunctionCall, FunctionOutcome, TaskStats,
};

/// The warning is logged again after usage fell this many percentage points below its threshold.
const WARNING_HYSTERESIS_PERCENT: u8 = 10;

/// The background tasks of one executor.
pub(super) struct BackgroundTasks {
    pub(super) permits: ResizableSemaphore,
    warning_percent: u8,
    warned: AtomicBool,
    listener: Option<BackgroundFailureListener>,
    stats: Arc<Mutex<TaskStats>>,
    /// Cancelled when running tasks must end.
    pub(super) stop: CancellationToken,
}

impl BackgroundTasks {
    pub(super) fn new(
        config: &TaskConfig,
        listener: Option<BackgroundFailureListener>,
        stats: &Arc<Mutex<TaskStats>>,
    ) -> Self {
        let max = config.max_background_tasks;
        Self {
            permits: ResizableSemaphore::new("tasks.max_background_tasks", "tasks", max),
            warning_percent: config.background_warning_percent,
            warned: AtomicBool::new(false),
            listener,
            stats: Arc::clone(stats),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn set_max(&self, max: usize) {
        self.permits.set_max(max);
        self.rearm_warning();
    }

    /// Waits until no task runs, or for `timeout`; returns the number of tasks that still run.
    pub(super) async fn wait(&self, timeout: Option<Duration>) -> usize {
        match timeout {
            None => self.permits.wait_idle().await,
            Some(timeout) => {
                // Whether the timeout passed shows in the number of tasks.
                let idle = self.permits.wait_idle();
                let _ = Deadline::after(timeout).run("tasks", "waiting for background tasks", idle).await;
            }
        }
        self.permits.used()
    }

    /// Starts `work`, the call of `context`, without waiting for it.
    pub(super) fn start(
        self: &Arc<Self>,
        call: FunctionCall,
        context: CallContext,
        runtime: &Handle,
        work: impl Future<Output = CallResult> + Send + 'static,
    ) -> FunctionOutcome {
        let Some(permit) = self.permits.try_acquire_owned() else {
            return self.no_permit_failure().into_outcome(call);
        };
        self.warn_if_near_limit();
        self.stats.lock().background_started += 1;
        let run = BackgroundRun { tasks: Arc::clone(self), permit: Some(permit), context, result: None };
        runtime.spawn(run.run(work));
        FunctionOutcome::initiated(call)
    }

    fn no_permit_failure(&self) -> CallFailure {
        if self.permits.is_closed() {
            return CallFailure::shut_down();
        }
        self.stats.lock().background_rejected += 1;
        let max = self.permits.max();
        let error = format!(
            "background task limit ({max}) reached; task not started. Try again later, or raise \
             tasks.max_background_tasks (ARSHAI_MAX_BACKGROUND_TASKS)"
        );
        CallFailure::new(FailureKind::NoBackgroundSlot, error)
    }

    fn warn_if_near_limit(&self) {
        if self.warning_percent == 0 || self.is_below(self.warning_percent) {
            return;
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                running = self.permits.used(),
                limit = self.permits.max(),
                "background tasks are near their limit; raise tasks.max_background_tasks \
                 (ARSHAI_MAX_BACKGROUND_TASKS) if this is expected"
            );
        }
    }

    fn rearm_warning(&self) {
        let percent = self.warning_percent.saturating_sub(WARNING_HYSTERESIS_PERCENT);
        if self.permits.used() == 0 || self.is_below(percent) {
            self.warned.store(false, Ordering::Relaxed);
        }
    }

    /// Whether less than `percent` of the permits are in use.
    fn is_below(&self, percent: u8) -> bool {
        // Widened: an unlimited maximum times a percentage overflows.
        (self.permits.used() as u128) * 100 < self.permits.max() as u128 * u128::from(percent)
    }
}

/// A running background task. Dropping it ends the task, also when the runtime drops it.
struct BackgroundRun {
    tasks: Arc<BackgroundTasks>,
    permit: Option<OwnedPermit>,
    context: CallContext,
    /// `None` when the task was dropped before it ended.
    result: Option<CallResult>,
}

impl BackgroundRun {
    async fn run(mut self, work: impl Future<Output = CallResult>) {
        let stop = self.tasks.stop.clone();
        let (timeout, deadline) = (self.context.function().timeout(), self.context.deadline());
        let work = async {
            let mut work = pin!(work);
            let Some(deadline) = deadline else { return work.await };
            // Boxed: few tasks have a timeout, and a task is as large as everything it might hold.
            let limited = Box::pin(tokio::time::timeout_at(deadline.instant(), work.as_mut()));
            limited.await.unwrap_or_else(|_| Err(CallFailure::timed_out(timeout.unwrap_or_default())))
        };
        self.result = stop.run_until_cancelled(work).await;
    }
}

impl Drop for BackgroundRun {
    fn drop(&mut self) {
        self.context.end();
        let result = self.result.take().unwrap_or_else(|| Err(CallFailure::cancelled()));
        {
            let mut stats = self.tasks.stats.lock();
            match result {
                Ok(_) => stats.background_succeeded += 1,
                Err(_) => stats.background_failed += 1,
            }
        }
        self.permit = None;
        self.tasks.rearm_warning();
        if let Err(failure) = result {
            let listener = self.tasks.listener.as_ref();
            notify_failure(listener, &self.context, failure.kind, failure.error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn the_warning_is_logged_once_until_usage_fell_well_below_its_threshold() {
        let mut config = Config::default().tasks;
        config.max_background_tasks = 10;
        let tasks = BackgroundTasks::new(&config, None, &Arc::default());
        let mut permits = Vec::new();
        let mut set_used = |used: usize| {
            permits.truncate(used);
            tasks.rearm_warning();
            permits.resize_with(used, || tasks.permits.try_acquire_owned());
            let was_due = !tasks.warned.load(Ordering::Relaxed);
            tasks.warn_if_near_limit();
            was_due && tasks.warned.load(Ordering::Relaxed)
        };
        assert_eq!(
            [7, 8, 9, 7, 8, 6, 8, 8].map(&mut set_used),
            [false, true, false, false, false, false, true, false]
        );
        tasks.set_max(ResizableSemaphore::MAX);
        assert!(!tasks.warned.load(Ordering::Relaxed), "the threshold follows the limit");
    }
}
