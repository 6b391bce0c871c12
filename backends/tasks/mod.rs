//! Task executors: bounded, and the legacy implementation without limits.

mod bounded;
mod legacy;

use std::sync::Arc;

use crate::Registry;
use crate::support::catch_panic;
use crate::tasks::{BackgroundFailure, BackgroundFailureListener, CallContext, FailureKind};

pub use bounded::{BoundedExecutor, BoundedExecutorBuilder};
pub use legacy::LegacyExecutor;

/// The default executor, under its name in Python arshai: `FunctionOrchestrator::default()`.
pub type FunctionOrchestrator = BoundedExecutor;

/// Ends the call of a context when dropped.
struct EndOnDrop(CallContext);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Logs that a background task failed, and notifies the listener. The log gets the kind of the failure only: its message
/// may be private.
fn notify_failure(
    listener: Option<&BackgroundFailureListener>,
    context: &CallContext,
    kind: FailureKind,
    error: String,
) {
    let (function, call_id) = (context.function(), context.call_id());
    tracing::warn!(function = function.name(), call_id, ?kind, "background task failed");
    let Some(listener) = listener else { return };
    let failure = BackgroundFailure::new(function, call_id.map(str::to_owned), kind, error);
    if let Err(message) = catch_panic(|| listener(failure)) {
        tracing::error!(function = function.name(), message, "background failure listener panicked; ignored");
    }
}

/// Registers the task backends.
pub(super) fn register(registry: &mut Registry) {
    registry
        .tasks
        .register(BoundedExecutor::NAME, |context| Ok(Arc::new(BoundedExecutor::from_context(context))));
    registry
        .tasks
        .register(LegacyExecutor::NAME, |context| Ok(Arc::new(LegacyExecutor::from_context(context))));
}
