//! The background task that removes what has expired.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::store::Store;

/// Starts the task at the first write within a tokio runtime and ends it with the store.
#[derive(Debug)]
pub(super) struct Cleanup {
    interval: Duration,
    running: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

/// Says that the task has ended, however it did: its runtime may be gone before the store.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Cleanup {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, running: Arc::default(), task: Mutex::default() }
    }

    /// Starts the task if it does not run and there is a runtime to run it on.
    pub(super) fn start(&self, store: &Arc<Store>) {
        if self.running.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&self.running));
        let task = runtime.spawn(run(self.interval, Arc::downgrade(store), running));
        *self.task.lock() = Some(task.abort_handle());
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

async fn run(interval: Duration, store: Weak<Store>, _running: Running) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(shards) = store.upgrade().map(|store| store.shards()) else { return };
        for shard in 0..shards {
            let Some(store) = store.upgrade() else { return };
            store.clean_up(shard);
            drop(store);
            tokio::task::yield_now().await;
        }
    }
}
