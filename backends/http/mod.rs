//! HTTP transports.

mod ureq;

use std::sync::Arc;

use crate::Registry;

pub use self::ureq::UreqTransport;

/// Registers the HTTP transports.
pub(super) fn register(registry: &mut Registry) {
    registry
        .http
        .register(UreqTransport::NAME, |context| Ok(Arc::new(UreqTransport::from_context(context)?)));
    registry
        .http
        .register(UreqTransport::LEGACY_NAME, |context| Ok(Arc::new(UreqTransport::legacy(context)?)));
}
