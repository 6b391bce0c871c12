//! The context of a running call.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Function, FunctionCall, TaskExecutor};
use crate::deadline::Deadline;
use crate::support::catch_panic;
use crate::support::opaque_debug;

/// The running call, as its function sees it: deadline, cancellation, call id, progress, and an executor for nested
/// calls. Cloning is cheap.
#[derive(Clone)]
pub struct CallContext {
    call: Arc<RunningCall>,
    progress: Option<ProgressListener>,
}

struct RunningCall {
    function: Function,
    call_id: Option<String>,
    deadline: Option<Deadline>,
    nested: Arc<dyn NestedExecution>,
    /// Created when it is first asked for: most functions never do.
    cancellation: OnceLock<CancellationToken>,
    has_ended: AtomicBool,
}

/// Creates the executors of nested calls: for executor implementations.
pub trait NestedExecution: Send + Sync {
    /// An executor whose calls are children of the call of `parent`: see [`CallContext::executor`].
    fn child_executor(self: Arc<Self>, parent: CallContext) -> Arc<dyn TaskExecutor>;
}

/// The progress of a running call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The function's name.
    pub name: String,
    /// The model's id of the call.
    pub call_id: Option<String>,
    /// The reported value.
    pub value: Value,
}

/// Called for each progress report, on the task or thread of the function. It must be quick. Panics in it are caught
/// and logged.
pub type ProgressListener = Arc<dyn Fn(Progress) + Send + Sync>;

impl CallContext {
    /// The context of `call`: for executors, which must [end](Self::end) it when the call ends for any reason.
    #[must_use]
    pub fn new(
        function: &Function,
        call: &FunctionCall,
        deadline: Option<Deadline>,
        nested: Arc<dyn NestedExecution>,
    ) -> Self {
        let call = RunningCall {
            function: function.clone(),
            call_id: call.call_id.clone(),
            deadline,
            nested,
            cancellation: OnceLock::new(),
            has_ended: AtomicBool::new(false),
        };
        Self { call: Arc::new(call), progress: None }
    }

    /// Sets the listener of progress reports: for executors, from [`Functions::progress_listener`].
    ///
    /// [`Functions::progress_listener`]: super::Functions::progress_listener
    #[must_use]
    pub fn with_progress_listener(mut self, listener: Option<ProgressListener>) -> Self {
        self.progress = listener;
        self
    }

    /// The called function.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.call.function
    }

    /// The model's id of the call.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        self.call.call_id.as_deref()
    }

    /// When the call times out; `None` for a background call without a timeout.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.call.deadline
    }

    /// Cancelled when the call has ended for any reason: completed, timed out, cancelled, or the executor closed. An
    /// async function is dropped then; a blocking one should check it between steps.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        let token = self.call.cancellation.get_or_init(CancellationToken::new);
        // Either this sees that the call has ended, or `end` sees the token.
        fence(Ordering::SeqCst);
        if self.has_ended() {
            token.cancel();
        }
        token
    }

    /// Cancels [`cancellation`](Self::cancellation): for executors, when the call has ended.
    pub fn end(&self) {
        self.call.has_ended.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if let Some(token) = self.call.cancellation.get() {
            token.cancel();
        }
    }

    /// Whether the call has [ended](Self::end).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.call.has_ended.load(Ordering::SeqCst)
    }

    /// Reports progress to the [listener](super::Functions::with_progress_listener) of the turn, if there is one.
    pub fn report_progress(&self, value: impl Into<Value>) {
        let Some(listener) = &self.progress else { return };
        let (name, call_id) = (self.function().name().to_owned(), self.call.call_id.clone());
        let progress = Progress { name, call_id, value: value.into() };
        if let Err(message) = catch_panic(|| listener(progress)) {
            tracing::error!(
                function = self.function().name(),
                message,
                "progress listener panicked; ignored"
            );
        }
    }

    /// An executor for nested calls, such as those of an agent that is used as a tool.
    ///
    /// Its regular calls are children of this call: they run under this call's permit instead of waiting for one, end
    /// by its deadline and are cancelled when it ends. Each executor has a concurrency limit of its own. Background
    /// calls count against the background task limit as usual and outlive this call. Blocking functions need a thread
    /// per nesting level.
    #[must_use]
    pub fn executor(&self) -> Arc<dyn TaskExecutor> {
        Arc::clone(&self.call.nested).child_executor(self.clone())
    }
}

opaque_debug!(CallContext(self) { function: self.function().name(), call_id: self.call_id() });
