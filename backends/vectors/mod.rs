//! Vector stores.

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "milvus")]
mod milvus;

#[cfg(any(feature = "embedded", feature = "milvus"))]
use std::sync::Arc;

use crate::Registry;

#[cfg(feature = "embedded")]
pub use embedded::{DamagedFile, EmbeddedStore};
#[cfg(feature = "milvus")]
pub use milvus::{LegacyMilvusStore, MilvusStore};

/// Adds the vector stores.
pub(super) fn register(registry: &mut Registry) {
    #[cfg(feature = "embedded")]
    registry
        .vectors
        .register(EmbeddedStore::NAME, |context| Ok(Arc::new(EmbeddedStore::from_context(context))));
    #[cfg(not(feature = "embedded"))]
    registry.vectors.register_unavailable("embedded", "embedded");
    #[cfg(feature = "milvus")]
    {
        let vectors = &mut registry.vectors;
        vectors.register(MilvusStore::NAME, |context| Ok(Arc::new(MilvusStore::from_context(context)?)));
        vectors.register(LegacyMilvusStore::NAME, |context| {
            Ok(Arc::new(LegacyMilvusStore::from_context(context)?))
        });
    }
    #[cfg(not(feature = "milvus"))]
    for name in ["milvus", "milvus_legacy"] {
        registry.vectors.register_unavailable(name, "milvus");
    }
}
