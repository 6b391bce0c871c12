//! The transport of streams that stay open: of the same kind as the runtime's, with connections of its own, so that a
//! server that is only listened to takes none from model calls or tools.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::http::HttpTransport;
use crate::{BuildContext, LimitUsage, Result};

/// A stream without any event is opened anew after this time: its server may be gone.
const MAX_SILENCE: Duration = Duration::from_secs(600);
const CONNECTIONS: &str = "pool.max_connections";
pub(super) const MAX_STREAMS: &str = "mcp.max_streams";

/// A transport with `mcp.max_streams` connections and no timeout in total. `None` where the runtime's transport was
/// passed by value: that one carries the streams too, within its own limits.
pub(super) fn transport(context: &BuildContext) -> Result<Option<Arc<dyn HttpTransport>>> {
    let backend = context.config.http.backend.as_str();
    if !context.config.mcp.enabled || !context.registry.http.contains(backend) {
        return Ok(None);
    }
    let mut config = Config::clone(&context.config);
    config.pool.max_connections = config.mcp.max_streams;
    config.pool.max_idle = 0;
    config.http.total_timeout = Duration::MAX;
    config.http.read_timeout = MAX_SILENCE;
    config.http.max_body_bytes = u64::MAX;
    let mut own = context.clone();
    own.config = Arc::new(config);
    context.registry.http.build(backend, &own).map(Some)
}

/// How many streams are open.
pub(super) fn usage(streams: &dyn HttpTransport) -> Option<LimitUsage> {
    let mut usage = streams.limits().into_iter().find(|usage| usage.key == CONNECTIONS)?;
    usage.key = MAX_STREAMS;
    Some(usage)
}

pub(super) fn set_max(streams: &dyn HttpTransport, max: u64) -> Result<()> {
    streams.set_limit(CONNECTIONS, max)
}
