//! HTTP transports.

mod ureq;

use std::sync::Arc;

use crate::Registry;

pub use self::ureq::UreqTransport;

/// Adds the HTTP transports.
pub(super) fn register(registry: &mut Registry) {
    registry
        .http
        .register(UreqTransport::NAME, |context| Ok(Arc::new(UreqTransport::from_context(context)?)));
    registry.http.register(UreqTransport::LEGACY, |context| Ok(Arc::new(UreqTransport::legacy(context)?)));
}
