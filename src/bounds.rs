//! How close each bound is to being reached.

use serde::Serialize;

/// One bound of a runtime, how much of it is in use, and the most that ever was.
///
/// Every store, pool and queue in arshai reports its bounds this way; `Arshai::stats()` gathers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Bound {
    /// Which bound, as in the configuration: `memory.max_entries`.
    pub name: &'static str,
    /// What is counted: `bytes`, `entries`, `tasks`, `connections`, `threads`, `requests`.
    pub unit: &'static str,
    /// In use now.
    pub used: u64,
    /// The most that was in use at once since the component was built.
    pub peak: u64,
    /// The limit now in force; `None` where a rollback flag took it away.
    pub limit: Option<u64>,
}

impl Bound {
    /// A bound and its current figures.
    #[must_use]
    pub fn new(name: &'static str, unit: &'static str, used: u64, peak: u64, limit: Option<u64>) -> Self {
        Self { name, unit, used, peak: peak.max(used), limit }
    }

    /// How much of the limit the peak reached, from 0.0 to 1.0 and above; `None` when unbounded.
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
    /// It can.
    Healthy,
    /// It works, but something is close to failing or already reduced.
    Degraded {
        /// What, in words for a person on call.
        reason: String,
    },
    /// It cannot.
    Unhealthy {
        /// Why, in words for a person on call. Never a secret.
        reason: String,
    },
}

impl Health {
    /// Whether it can do its work, perhaps reduced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Unhealthy { .. })
    }
}
