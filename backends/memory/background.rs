//! A task that a store keeps running beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// Starts a store's one background task when there is a runtime to run it, and ends it with the store.
#[derive(Default)]
pub(super) struct Background {
    running: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

/// Says that the task no longer runs, whichever way it ended: its runtime may have been shut down, and then
/// the next one starts it again. One that panicked is not started again.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::Release);
    }
}

impl Background {
    /// Makes sure that the task runs, if called inside a runtime.
    #[inline]
    pub(super) fn ensure<W>(&self, work: impl FnOnce() -> W)
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
        let running = Running(Arc::clone(&self.running));
        let work = work();
        let work = async move {
            let _running = running;
            work.await;
        };
        *task = Some(runtime.spawn(work).abort_handle());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}
