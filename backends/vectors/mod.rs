//! Vector stores.

mod embedded;

use std::sync::Arc;

use crate::Registry;

pub use embedded::EmbeddedStore;

/// Adds the vector stores.
pub(super) fn register(registry: &mut Registry) {
    registry
        .vectors
        .register(EmbeddedStore::NAME, |context| Ok(Arc::new(EmbeddedStore::from_context(context))));
}
