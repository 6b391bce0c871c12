//! Task executors: bounded, and the legacy implementation without limits.

mod bounded;
mod legacy;

use std::sync::Arc;

use crate::Registry;

pub use bounded::{BoundedExecutor, BoundedExecutorBuilder};
pub use legacy::LegacyExecutor;

/// The default executor, under its name in Python arshai: `FunctionOrchestrator::default()`.
pub type FunctionOrchestrator = BoundedExecutor;

/// Registers the task backends.
pub(super) fn register(registry: &mut Registry) {
    registry
        .tasks
        .register(BoundedExecutor::NAME, |context| Ok(Arc::new(BoundedExecutor::from_context(context))));
    registry
        .tasks
        .register(LegacyExecutor::NAME, |context| Ok(Arc::new(LegacyExecutor::from_context(context))));
}
