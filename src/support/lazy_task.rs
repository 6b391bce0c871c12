//! A background task that ends with its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;

/// Starts one background task when there is a runtime to run it on, and aborts it when dropped.
#[derive(Debug, Default)]
pub struct LazyTask {
    state: Arc<State>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    running: AtomicBool,
    /// The runtime in which the task panicked: perhaps it has no timer, and another one does.
    panicked_in: Mutex<Option<Id>>,
}

/// Records that the task has ended: its runtime may have been shut down, and then the next call starts it again. It is
/// not started again in a runtime in which it panicked.
struct RunningGuard {
    state: Arc<State>,
    runtime: Id,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.state.panicked_in.lock() = Some(self.runtime);
        }
        self.state.running.store(false, Ordering::Release);
    }
}

impl LazyTask {
    /// Ensures that the task is running, if called inside a runtime.
    #[inline]
    pub fn ensure<W>(&self, work: impl FnOnce() -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        if !self.state.running.load(Ordering::Acquire) {
            self.start(work);
        }
    }

    #[cold]
    fn start<W>(&self, work: impl FnOnce() -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut task = self.task.lock();
        if *self.state.panicked_in.lock() == Some(runtime.id())
            || self.state.running.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let running = RunningGuard { state: Arc::clone(&self.state), runtime: runtime.id() };
        let work = work();
        let work = async move {
            let _running = running;
            work.await;
        };
        *task = Some(runtime.spawn(work).abort_handle());
    }
}

impl Drop for LazyTask {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[test]
    fn a_task_that_panicked_starts_again_in_another_runtime_only() {
        let (task, starts) = (LazyTask::default(), Arc::new(Mutex::new(0)));
        let start = || {
            let starts = Arc::clone(&starts);
            task.ensure(|| async move {
                *starts.lock() += 1;
                assert!(*starts.lock() > 1, "the first start panics");
            });
        };
        for expected in [1, 4] {
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                for _ in 0..3 {
                    start();
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(*starts.lock(), expected);
        }
    }
}
