//! Failures of calls.

use std::io;
use std::time::Duration;

use tokio::task::JoinError;

use crate::llm::Attachment;
use crate::support::{ResizableSemaphore, panic_message};
use crate::tasks::{FailureKind, FunctionCall, FunctionError, FunctionOutcome, FunctionOutput};

/// Why a call failed.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub(super) kind: FailureKind,
    pub(super) error: String,
}

/// The result of a call.
pub(super) type CallResult = Result<FunctionOutput, CallFailure>;

impl CallFailure {
    pub(super) fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into() }
    }

    pub(super) fn shut_down() -> Self {
        Self::new(FailureKind::ShutDown, "executor is shut down; call not started")
    }

    pub(super) fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "cancelled: the executor, its runtime or the parent call ended")
    }

    pub(super) fn no_runtime() -> Self {
        Self::new(FailureKind::Failed, "no tokio runtime: must be called from a runtime context")
    }

    pub(super) fn timed_out(waited: Duration) -> Self {
        let error = format!("timed out after {:.3}s (including queue time)", waited.as_secs_f64());
        Self::new(FailureKind::TimedOut, error)
    }

    /// The deadline passed before a permit of `limit` was free.
    pub(super) fn queue_timeout(waited: Duration, limit: &ResizableSemaphore) -> Self {
        let (seconds, key, max) = (waited.as_secs_f64(), limit.key(), limit.max());
        let error = format!("timed out after {seconds:.3}s waiting for other calls to end ({key} = {max})");
        Self::new(FailureKind::TimedOut, error)
    }

    /// The deadline passed while the async function blocked its worker thread.
    pub(super) fn blocked_worker(waited: Duration) -> Self {
        let seconds = waited.as_secs_f64();
        let error = format!("timed out after {seconds:.3}s: the async function blocks its worker thread");
        Self::new(FailureKind::TimedOut, error)
    }

    pub(super) fn into_outcome(self, call: FunctionCall) -> FunctionOutcome {
        FunctionOutcome::failed(call, self.kind, self.error)
    }
}

impl From<FunctionError> for CallFailure {
    fn from(error: FunctionError) -> Self {
        let kind = if error.is_bad_arguments() { FailureKind::BadArguments } else { FailureKind::Failed };
        Self::new(kind, error.message())
    }
}

impl From<JoinError> for CallFailure {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::new(FailureKind::Panicked, panic_message(panic)),
            Err(_) => Self::cancelled(),
        }
    }
}

/// `output`, unless it is longer than `max` bytes of JSON, attachments included.
pub(super) fn check_result_size(output: FunctionOutput, max: usize) -> CallResult {
    let attached = output.attachments.iter().map(Attachment::url_bytes).sum();
    let left = max.checked_sub(attached);
    if left.is_some_and(|left| serde_json::to_writer(ByteBudget(left), &output.value).is_ok()) {
        return Ok(output);
    }
    let error = format!("result exceeds {max} bytes of JSON; request less data");
    Err(CallFailure::new(FailureKind::ResultTooLarge, error))
}

/// Counts what is written and fails at the first byte too many.
struct ByteBudget(usize);

impl io::Write for ByteBudget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
