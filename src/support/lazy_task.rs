//! A background task that ends with its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// Starts one background task when there is a runtime to run it on, and aborts it when dropped.
#[derive(Debug, Default)]
pub struct LazyTask {
    running: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

/// Records that the task has ended: its runtime may have been shut down, and then
/// the next call starts it again. One that panicked is not started again.
struct RunningGuard(Arc<AtomicBool>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::Release);
    }
}

impl LazyTask {
    /// Ensures that the task is running, if called inside a runtime.
    #[inline]
    pub fn ensure<W>(&self, work: impl FnOnce() -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        if !self.running.load(Ordering::Acquire) {
            self.start(work);
        }
    }

    #[cold]
    fn start<W>(&self, work: impl FnOnce() -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut task = self.task.lock();
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = RunningGuard(Arc::clone(&self.running));
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
