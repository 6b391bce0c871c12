//! The background task that removes expired entries.

use std::sync::Arc;
use std::time::Duration;

use super::store::Store;
use crate::support::LazyTask;

/// Removes expired entries periodically until the store is dropped.
pub(super) struct Cleanup {
    interval: Duration,
    task: LazyTask,
}

impl Cleanup {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, task: LazyTask::default() }
    }

    /// Ensures that the task is running, if called inside a runtime.
    pub(super) fn start(&self, store: &Arc<Store>) {
        let interval = self.interval;
        self.task.ensure(|| {
            let store = Arc::downgrade(store);
            async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let Some(store) = store.upgrade() else { break };
                    store.clean_up_async().await;
                }
            }
        });
    }
}
