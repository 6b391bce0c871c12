//! Pools of connections.

pub mod lean;
pub mod legacy;

use std::sync::Arc;

use crate::Registry;
use crate::pool::{ConnectionPool, Connector, PoolFactory, PoolSettings};

/// Adds the pools.
pub(super) fn register(registry: &mut Registry) {
    registry.pool.register(lean::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(lean::LeanPool::new(connector, settings))))
    });
    registry.pool.register(legacy::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(legacy::LegacyPool::new(connector, settings))))
    });
}

fn factory<F>(build: F) -> crate::Result<Arc<dyn PoolFactory>>
where
    F: Fn(Arc<dyn Connector>, PoolSettings) -> crate::Result<Arc<dyn ConnectionPool>> + Send + Sync + 'static,
{
    Ok(Arc::new(build))
}
