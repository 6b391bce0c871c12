//! Task executors: bounded, and as they were before there were bounds.

mod background;
mod bounded;
mod call;
mod legacy;
mod size;
mod turn;

use std::sync::Arc;

use crate::Registry;

pub use bounded::{BoundedExecutor, BoundedExecutorBuilder};
pub use legacy::LegacyExecutor;

/// Adds the task backends.
pub(super) fn register(registry: &mut Registry) {
    registry
        .tasks
        .register(BoundedExecutor::NAME, |context| Ok(Arc::new(BoundedExecutor::from_context(context))));
    registry
        .tasks
        .register(LegacyExecutor::NAME, |context| Ok(Arc::new(LegacyExecutor::from_context(context))));
}
