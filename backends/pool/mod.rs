//! Pools of connections: two that hold every bound, and the one from before there were bounds.

mod bounded;
pub mod lean;
pub mod legacy;
#[cfg(feature = "mobc")]
pub mod mobc;
mod reaper;
mod state;

use std::sync::Arc;

use crate::pool::{ConnectionPool, Connector, PoolFactory, PoolSettings};
use crate::{Error, ErrorKind, Registry, Result};

pub use lean::LeanPool;
pub use legacy::LegacyPool;
#[cfg(feature = "mobc")]
pub use mobc::MobcPool;

/// Adds the pools.
pub(super) fn register(registry: &mut Registry) {
    registry.pool.register(lean::NAME, |context| {
        let clock = Arc::clone(&context.clock);
        factory(move |connector, settings| {
            Ok(Arc::new(LeanPool::with_clock(connector, bounded(settings)?, Arc::clone(&clock))))
        })
    });
    registry.pool.register(legacy::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(LegacyPool::new(connector, settings))))
    });
    #[cfg(feature = "mobc")]
    registry.pool.register(mobc::NAME, |context| {
        let clock = Arc::clone(&context.clock);
        factory(move |connector, settings| {
            Ok(Arc::new(MobcPool::with_clock(connector, bounded(settings)?, Arc::clone(&clock))))
        })
    });
    #[cfg(not(feature = "mobc"))]
    registry.pool.register_unavailable("mobc", "mobc");
}

fn factory<F>(build: F) -> Result<Arc<dyn PoolFactory>>
where
    F: Fn(Arc<dyn Connector>, PoolSettings) -> Result<Arc<dyn ConnectionPool>> + Send + Sync + 'static,
{
    Ok(Arc::new(build))
}

/// Settings that a bounded pool can honour.
fn bounded(settings: PoolSettings) -> Result<PoolSettings> {
    match settings.max_connections {
        0 => Err(Error::new(ErrorKind::Config, settings.name, NO_CONNECTIONS)),
        _ => Ok(settings),
    }
}

/// Why a bound of zero is refused.
const NO_CONNECTIONS: &str = "max_connections = 0 would stop all work; the least is 1";

/// The report of a pool that was closed while `in_use` connections were in use.
fn closed_with(in_use: usize) -> crate::CloseReport {
    let lost = (in_use > 0).then(|| format!("{in_use} connections still in use"));
    crate::CloseReport::new(0, 0, lost.into_iter().collect())
}
