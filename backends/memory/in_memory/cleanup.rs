//! The background task that clears expired entries away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::store::Store;

/// Starts the task once there is a runtime to run it, and ends it with the store.
pub(super) struct Cleanup {
    interval: Duration,
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

impl Cleanup {
    pub(super) fn every(interval: Duration) -> Self {
        Self { interval, running: Arc::default(), task: Mutex::new(None) }
    }

    /// Makes sure that the task runs, if called inside a runtime.
    pub(super) fn start(&self, store: &Arc<Store>) {
        if self.running.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut task = self.task.lock();
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&self.running));
        let (interval, store) = (self.interval, Arc::downgrade(store));
        let work = async move {
            let _running = running;
            loop {
                tokio::time::sleep(interval).await;
                let Some(store) = store.upgrade() else { break };
                store.clean_up_politely().await;
            }
        };
        *task = Some(runtime.spawn(work).abort_handle());
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}
