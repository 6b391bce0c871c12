//! How close each limit is to being reached, and health.

use serde::Serialize;

/// One limit of a runtime: how much of it is in use, and the peak.
///
/// Every store, pool and queue in arshai reports its limits this way; [`Arshai::stats`](crate::Arshai::stats) collects
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitUsage {
    /// The configuration key that sets the limit: `memory.max_entries`.
    pub key: &'static str,
    /// The unit: `bytes`, `entries`, `tasks`, `connections`, `threads`, `requests`.
    pub unit: &'static str,
    /// In use now.
    pub used: u64,
    /// The most that was in use at the same time since the component was built.
    pub peak: u64,
    /// The current limit; `None` where a rollback flag or the backend removed it.
    pub limit: Option<u64>,
}

impl LimitUsage {
    /// A limit and its current usage.
    #[must_use]
    pub fn new(key: &'static str, unit: &'static str, used: u64, peak: u64, limit: Option<u64>) -> Self {
        Self { key, unit, used, peak: peak.max(used), limit }
    }

    /// The peak as a fraction of the limit, from 0.0 to 1.0 and above; `None` when unlimited.
    #[must_use]
    pub fn peak_ratio(&self) -> Option<f64> {
        match self.limit {
            None => None,
            Some(0) => Some(if self.peak == 0 { 0.0 } else { f64::INFINITY }),
            Some(limit) => Some(self.peak as f64 / limit as f64),
        }
    }
}

/// Whether a component can do its work now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Health {
    /// Fully operational.
    Healthy,
    /// Operational, but something is close to failing or already reduced.
    Degraded {
        /// The reason, for an operator. Never a secret.
        reason: String,
    },
    /// Not operational.
    Unhealthy {
        /// The reason, for an operator. Never a secret.
        reason: String,
    },
}

impl Health {
    /// Degraded, for this reason.
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::Degraded { reason: reason.into() }
    }

    /// Unhealthy, for this reason.
    pub fn unhealthy(reason: impl Into<String>) -> Self {
        Self::Unhealthy { reason: reason.into() }
    }

    /// Whether it can do its work, perhaps reduced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Unhealthy { .. })
    }
}
