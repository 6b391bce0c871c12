//! The background task that clears expired entries away.

use std::sync::Arc;
use std::time::Duration;

use super::store::Store;
use crate::support::LazyTask;

/// Clears expired entries away, at intervals, for as long as the store is there.
pub(super) struct Cleanup {
    interval: Duration,
    task: LazyTask,
}

impl Cleanup {
    pub(super) fn every(interval: Duration) -> Self {
        Self { interval, task: LazyTask::default() }
    }

    /// Makes sure that the task runs, if called inside a runtime.
    pub(super) fn start(&self, store: &Arc<Store>) {
        let interval = self.interval;
        self.task.ensure(|| {
            let store = Arc::downgrade(store);
            async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let Some(store) = store.upgrade() else { break };
                    store.clean_up_politely().await;
                }
            }
        });
    }
}
