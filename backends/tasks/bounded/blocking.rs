//! Blocking functions: their threads, and which of them run.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::failure::{CallFailure, CallResult};
use crate::config::TaskConfig;
use crate::support::{BlockingPool, OwnedPermit, ResizableSemaphore};
use crate::tasks::{CallContext, FailureKind, FunctionError, FunctionOutput};
use crate::{Error, ErrorKind};

/// The key of the limit of threads.
const MAX_BLOCKING_THREADS: &str = "tasks.max_blocking_threads";

/// Runs blocking functions on a bounded number of threads and knows which of them run.
pub(super) struct BlockingCalls {
    pub(super) permits: ResizableSemaphore,
    pool: BlockingPool,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    last_id: u64,
    calls: BTreeMap<u64, CallContext>,
}

impl BlockingCalls {
    pub(super) fn new(config: &TaskConfig) -> Self {
        let permits = ResizableSemaphore::new(MAX_BLOCKING_THREADS, "threads", config.max_blocking_threads);
        let pool = BlockingPool::with_permits(MAX_BLOCKING_THREADS, permits.clone());
        Self { permits, pool, running: Mutex::default() }
    }

    /// Runs `work`, the body of the function of `context`, on a thread that holds `permit` until it has returned.
    pub(super) async fn run(
        self: &Arc<Self>,
        permit: OwnedPermit,
        context: CallContext,
        work: impl FnOnce(CallContext) -> Result<FunctionOutput, FunctionError> + Send + 'static,
    ) -> CallResult {
        let this = Arc::clone(self);
        let job = move || {
            let _running = RunningGuard::new(&this, context.clone());
            work(context)
        };
        Ok(self.pool.spawn_job(permit, job).map_err(to_failure)?.await.map_err(to_failure)??)
    }

    /// Names of the functions that are on threads.
    pub(super) fn names(&self) -> Vec<String> {
        self.running.lock().calls.values().map(|call| call.function().name().to_owned()).collect()
    }

    /// Names of the functions that have not returned although their calls have ended.
    pub(super) fn overdue(&self) -> Vec<String> {
        let running = self.running.lock();
        let overdue = running.calls.values().filter(|call| call.has_ended());
        overdue.map(|call| call.function().name().to_owned()).collect()
    }

    /// Rejects further calls.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

fn to_failure(error: Error) -> CallFailure {
    match error.kind() {
        ErrorKind::Panic => CallFailure::new(FailureKind::Panicked, error.message()),
        ErrorKind::Closed => CallFailure::shut_down(),
        _ => CallFailure::new(FailureKind::Failed, error.to_string()),
    }
}

/// Keeps a call among the running ones.
struct RunningGuard<'a> {
    calls: &'a BlockingCalls,
    id: u64,
}

impl<'a> RunningGuard<'a> {
    fn new(calls: &'a BlockingCalls, context: CallContext) -> Self {
        let mut running = calls.running.lock();
        running.last_id += 1;
        let id = running.last_id;
        running.calls.insert(id, context);
        drop(running);
        Self { calls, id }
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        let context = self.calls.running.lock().calls.remove(&self.id);
        // Outside the lock: it may hold the last handle of the function.
        drop(context);
    }
}
