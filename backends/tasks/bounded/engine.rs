//! Runs functions within the limits.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;

use super::BoundedExecutor;
use super::background::BackgroundTasks;
use super::blocking::BlockingCalls;
use super::failure::{CallFailure, CallResult, check_result_size};
use crate::Deadline;
use crate::config::TaskConfig;
use crate::support::{OwnedPermit, ResizableSemaphore, catch_panic, panic_message};
use crate::tasks::{
    BackgroundFailureListener, CallContext, FailureKind, Function, FunctionBody, FunctionCall,
    NestedExecution, ProgressListener, TaskExecutor, TaskStats,
};

/// State that an executor shares with its calls and with the executors of nested calls.
pub(super) struct Engine {
    pub(super) background: Arc<BackgroundTasks>,
    pub(super) blocking: Arc<BlockingCalls>,
    pub(super) stats: Arc<Mutex<TaskStats>>,
    pub(super) max_concurrency: usize,
    pub(super) timeout: Duration,
    max_result_bytes: usize,
}

impl Engine {
    pub(super) fn new(config: &TaskConfig, listener: Option<BackgroundFailureListener>) -> Arc<Self> {
        let stats = Arc::default();
        Arc::new(Self {
            background: Arc::new(BackgroundTasks::new(config, listener, &stats)),
            blocking: Arc::new(BlockingCalls::new(config)),
            stats,
            max_concurrency: config.max_concurrency,
            timeout: config.timeout,
            max_result_bytes: config.max_result_bytes,
        })
    }

    pub(super) fn context(
        self: &Arc<Self>,
        function: &Function,
        call: &FunctionCall,
        deadline: Option<Deadline>,
        progress: Option<ProgressListener>,
    ) -> CallContext {
        let nested = Arc::clone(self) as Arc<dyn NestedExecution>;
        CallContext::new(function, call, deadline, nested).with_progress_listener(progress)
    }

    /// Runs the function of `context`, holding `permit` until it has ended.
    pub(super) async fn run(
        &self,
        permit: Option<OwnedPermit>,
        context: &CallContext,
        args: Value,
    ) -> CallResult {
        let function = context.function();
        let output = match (function.body(), permit) {
            (FunctionBody::Async(body), _permit) => {
                let panicked = |message| CallFailure::new(FailureKind::Panicked, message);
                // It may panic before it returns a future.
                let call = catch_panic(|| body(context.clone(), args)).map_err(panicked)?;
                let ended = AssertUnwindSafe(call).catch_unwind().await;
                ended.map_err(|panic| panicked(panic_message(panic)))??
            }
            (FunctionBody::Blocking(body), permit) => {
                let permit = match permit {
                    Some(permit) => permit,
                    None => self.acquire(&self.blocking.permits).await?,
                };
                let body = Arc::clone(body);
                let call = self.blocking.run(permit, context.clone(), move |context| body(context, args));
                // Boxed: a task is as large as everything it might hold, and most functions are async.
                Box::pin(call).await?
            }
        };
        check_result_size(output, function.max_result_bytes().unwrap_or(self.max_result_bytes))
    }

    pub(super) async fn acquire(&self, permits: &ResizableSemaphore) -> Result<OwnedPermit, CallFailure> {
        permits.acquire_owned().await.map_err(|_| CallFailure::shut_down())
    }
}

impl NestedExecution for Engine {
    fn child_executor(self: Arc<Self>, parent: CallContext) -> Arc<dyn TaskExecutor> {
        Arc::new(BoundedExecutor::child(self, parent))
    }
}
