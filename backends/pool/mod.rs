//! Connection pools: the default, one over mobc, and the legacy one.

mod bounded;
mod legacy;
mod limits;
#[cfg(feature = "mobc")]
mod mobc;

use std::sync::Arc;

use crate::pool::{ConnectionPool, Connector, PoolFactory, PoolSettings};
use crate::{CloseReport, Deadline, Error, ErrorKind, Health, Registry, Result};

pub use bounded::BoundedPool;

const MAX_CONNECTIONS: &str = "pool.max_connections";

/// Registers the pools.
pub(super) fn register(registry: &mut Registry) {
    registry.pool.register(BoundedPool::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(BoundedPool::new(connector, settings)?)))
    });
    registry.pool.register(legacy::LegacyPool::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(legacy::LegacyPool::new(connector, &settings))))
    });
    #[cfg(feature = "mobc")]
    registry.pool.register(mobc::MobcPool::NAME, |_| {
        factory(|connector, settings| Ok(Arc::new(mobc::MobcPool::new(connector, settings)?)))
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

fn closed_error(name: &'static str) -> Error {
    Error::new(ErrorKind::Closed, name, "pool is closed").not_sent()
}

/// The report of a pool that was closed while `in_use` connections were in use.
fn close_report(in_use: usize) -> CloseReport {
    let lost = (in_use > 0).then(|| format!("{in_use} connections still in use"));
    CloseReport::new(0, 0, lost.into_iter().collect())
}

/// Checks the server through a connection of the pool.
async fn check_health(pool: &dyn ConnectionPool, deadline: Deadline) -> Health {
    let check = async { pool.acquire(deadline).await?.check(deadline).await };
    match check.await {
        Ok(()) => Health::Healthy,
        Err(error) => Health::unhealthy(error.to_string()),
    }
}
