//! HTTP transports: `ureq` on threads, `hyper` on tasks.
//!
//! Both share their settings, errors, connection pool and the queue in front of it, so that they keep the same limits.

mod connection_pool;
mod counters;
mod errors;
#[cfg(feature = "hyper")]
mod hyper;
mod response;
mod settings;
mod tls;
mod transport;
#[cfg(feature = "ureq")]
mod ureq;

use std::sync::Arc;

use crate::Registry;

#[cfg(feature = "hyper")]
pub use self::hyper::{Hyper, HyperTransport};
pub use self::transport::Transport;
#[cfg(feature = "ureq")]
pub use self::ureq::{Ureq, UreqTransport};

/// Registers the HTTP transports.
pub(super) fn register(registry: &mut Registry) {
    #[cfg(feature = "ureq")]
    {
        registry
            .http
            .register(UreqTransport::NAME, |context| Ok(Arc::new(UreqTransport::from_context(context)?)));
        registry
            .http
            .register(UreqTransport::LEGACY_NAME, |context| Ok(Arc::new(UreqTransport::legacy(context)?)));
    }
    #[cfg(feature = "hyper")]
    registry
        .http
        .register(HyperTransport::NAME, |context| Ok(Arc::new(HyperTransport::from_context(context)?)));
}
