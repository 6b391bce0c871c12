//! Functions that models are offered on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a function that is offered on demand is offered by now. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FunctionOffer(Arc<AtomicBool>);

impl FunctionOffer {
    /// Not made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers the function from the next request on.
    pub fn make(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was made.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
