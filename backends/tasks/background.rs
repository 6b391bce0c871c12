//! Background tasks: their slots, their failures, their end.

use std::fmt;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::call::{Counters, Ended, Failure, stopped};
use crate::support::panic_message;
use crate::support::{OwnedPermit, ResizableSemaphore};
use crate::tasks::{
    BackgroundFailure, BackgroundFailureListener, FailureKind, Function, FunctionCall, FunctionOutcome,
};
use crate::{Deadline, ErrorKind};

/// The background tasks of one executor.
pub(super) struct Background {
    slots: ResizableSemaphore,
    warning_percent: u8,
    /// Tasks in use from which the warning is due; follows the limit.
    warn_at: AtomicUsize,
    warned: AtomicBool,
    listener: Option<BackgroundFailureListener>,
    counters: Arc<Counters>,
}

impl Background {
    /// At most `max` tasks at once, a warning at `warning_percent` of them (0: never).
    pub(super) fn new(
        max: usize,
        warning_percent: u8,
        listener: Option<BackgroundFailureListener>,
        counters: &Arc<Counters>,
    ) -> Self {
        Self {
            counters: Arc::clone(counters),
            slots: ResizableSemaphore::new("tasks.max_background_tasks", "tasks", max),
            warning_percent,
            warn_at: AtomicUsize::new(warn_at(max, warning_percent)),
            warned: AtomicBool::new(false),
            listener,
        }
    }

    pub(super) fn slots(&self) -> &ResizableSemaphore {
        &self.slots
    }

    pub(super) fn set_max(&self, max: usize) {
        self.slots.set_max(max);
        self.warn_at.store(warn_at(max, self.warning_percent), Ordering::Relaxed);
        self.rearm();
    }

    /// Waits until no task runs, or for `timeout`; gives how many still run.
    pub(super) async fn wait(&self, timeout: Option<Duration>) -> usize {
        match timeout {
            None => self.slots.wait_idle().await,
            Some(timeout) => {
                // Whether time ran out shows in how many still run.
                let _ =
                    Deadline::after(timeout).run("tasks", "background tasks", self.slots.wait_idle()).await;
            }
        }
        self.slots.used()
    }

    fn warn_if_close(&self) {
        let used = self.slots.used();
        if used >= self.warn_at.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                running = used,
                limit = self.slots.max(),
                "background tasks are close to their limit; raise tasks.max_background_tasks \
                 (ARSHAI_MAX_BACKGROUND_TASKS) if this is expected"
            );
        }
    }

    /// Makes the warning due again once the tasks are back below it.
    fn rearm(&self) {
        if self.slots.used() < self.warn_at.load(Ordering::Relaxed) {
            self.warned.store(false, Ordering::Relaxed);
        }
    }

    fn slot(&self) -> Result<OwnedPermit, Failure> {
        self.slots.try_acquire_owned().ok_or_else(|| {
            if self.slots.is_closed() {
                return Failure::shut_down();
            }
            self.counters.background_rejected.fetch_add(1, Ordering::Relaxed);
            let max = self.slots.max();
            Failure::new(
                FailureKind::NoBackgroundSlot,
                format!(
                    "all {max} background tasks that may run at once are running; nothing was started. \
                     Try again later, or raise tasks.max_background_tasks (ARSHAI_MAX_BACKGROUND_TASKS)"
                ),
            )
        })
    }

    /// Starts `work`, the call of `function` that `call` asks for, and does not wait for it.
    pub(super) fn start(
        self: &Arc<Self>,
        call: FunctionCall,
        function: &Function,
        stop: watch::Receiver<bool>,
        work: impl Future<Output = Ended> + Send + 'static,
    ) -> FunctionOutcome {
        let Ok(runtime) = Handle::try_current() else { return Failure::no_runtime().of(call) };
        let slot = match self.slot() {
            Ok(slot) => slot,
            Err(failure) => return failure.of(call),
        };
        self.warn_if_close();
        self.counters.background_started.fetch_add(1, Ordering::Relaxed);
        let running = Running {
            background: Arc::clone(self),
            slot: Some(slot),
            function: function.clone(),
            call_id: call.call_id.clone(),
            ended: None,
        };
        runtime.spawn(run(running, stop, work));
        FunctionOutcome::initiated(call)
    }
}

fn warn_at(max: usize, percent: u8) -> usize {
    match percent {
        0 => usize::MAX,
        // Widened, since an unbounded maximum times a hundred does not fit.
        percent => {
            let share = (max as u128 * u128::from(percent)).div_ceil(100);
            usize::try_from(share).unwrap_or(usize::MAX).max(1)
        }
    }
}

async fn run(mut running: Running, stop: watch::Receiver<bool>, work: impl Future<Output = Ended> + Send) {
    let timeout = running.function.timeout();
    let late = async {
        match timeout {
            // Boxed: few have one, and a task is as large as all that it might hold.
            Some(timeout) => Box::pin(tokio::time::sleep(timeout)).await,
            None => pending().await,
        }
        Failure::timed_out(timeout.unwrap_or_default())
    };
    running.ended = Some(tokio::select! {
        biased;
        () = stopped(stop) => Err(Failure::cancelled()),
        ended = AssertUnwindSafe(work).catch_unwind() => ended.unwrap_or_else(|panic| {
            Err(Failure::new(FailureKind::Panicked, panic_message(panic.as_ref())))
        }),
        failure = late => Err(failure),
    });
}

/// A background task that runs. Its drop is the task's end, however the task came to it.
struct Running {
    background: Arc<Background>,
    slot: Option<OwnedPermit>,
    function: Function,
    call_id: Option<String>,
    /// Still none when the runtime dropped the task.
    ended: Option<Ended>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (background, counters) = (&self.background, &self.background.counters);
        let ended = self.ended.take().unwrap_or_else(|| Err(Failure::cancelled()));
        let failure = match ended {
            Ok(_) => {
                counters.background_succeeded.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(failure) => {
                counters.background_failed.fetch_add(1, Ordering::Relaxed);
                Some(failure)
            }
        };
        self.slot = None;
        background.rearm();
        if let Some(failure) = failure {
            report(background.listener.as_ref(), &self.function, self.call_id.take(), failure);
        }
    }
}

/// The words of a failure may be private; the log gets its kind alone.
fn report(
    listener: Option<&BackgroundFailureListener>,
    function: &Function,
    call_id: Option<String>,
    failure: Failure,
) {
    let name = function.name();
    tracing::warn!(function = name, call_id, kind = ?failure.kind, "a background task failed");
    let Some(listener) = listener else { return };
    let failure = BackgroundFailure::new(function, call_id, failure.kind, failure.error);
    if catch_unwind(AssertUnwindSafe(|| listener(failure))).is_err() {
        tracing::error!(function = name, "the listener of background failures panicked");
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("slots", &self.slots).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_due_once_per_crossing_and_follows_the_limit() {
        let background = Background::new(5, 80, None, &Arc::default());
        let mut held = Vec::new();
        let mut take = |background: &Background| {
            held.push(background.slots.try_acquire_owned());
            background.warn_if_close();
            background.warned.load(Ordering::Relaxed)
        };
        assert_eq!([(); 5].map(|()| take(&background)), [false, false, false, true, true]);
        held.clear();
        background.rearm();
        assert!(!background.warned.load(Ordering::Relaxed), "due again once they are back below");
        background.set_max(10);
        assert_eq!(background.warn_at.load(Ordering::Relaxed), 8);
    }
}
