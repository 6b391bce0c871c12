//! Limits that change while a runtime runs.

use std::borrow::Cow;
use std::sync::Arc;

use crate::component::{Component, ShutdownPhase, unsupported_limit_error};
use crate::error::{Error, ErrorKind, Result};

/// Limits to change at run time; those not set stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(Vec<(Cow<'static, str>, u64)>);

impl Limits {
    /// Changes nothing yet.
    #[must_use]
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Maximum number of entries in conversation memory.
    #[must_use]
    pub fn max_entries(self, max: u64) -> Self {
        self.set("memory.max_entries", max)
    }

    /// Maximum MiB in conversation memory.
    #[must_use]
    pub fn max_memory_mb(self, max: u64) -> Self {
        self.set("memory.max_memory_mb", max.saturating_mul(1 << 20))
    }

    /// Maximum number of concurrent background tasks; zero rejects them all.
    #[must_use]
    pub fn max_background_tasks(self, max: usize) -> Self {
        self.set("tasks.max_background_tasks", max as u64)
    }

    /// Maximum number of connections of each pool.
    #[must_use]
    pub fn max_connections(self, max: usize) -> Self {
        self.set("pool.max_connections", max as u64)
    }

    /// The limit with this configuration key, in the unit in which [`Arshai::stats`](crate::Arshai::stats) reports it (memory in bytes).
    #[must_use]
    pub fn set(mut self, key: impl Into<Cow<'static, str>>, max: u64) -> Self {
        self.0.push((key.into(), max));
        self
    }

    /// Which component changes which limit, checked before anything changes.
    pub(super) fn changes<'a>(&'a self, components: &'a [Arc<dyn Component>]) -> Result<Vec<Change<'a>>> {
        let mut changes = Vec::new();
        for (key, max) in &self.0 {
            if *max == 0 && key != "tasks.max_background_tasks" {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "runtime",
                    format!("{key} must be at least 1"),
                ));
            }
            let before = changes.len();
            for component in components {
                let Some(usage) = component.limits().into_iter().find(|usage| usage.key == key) else {
                    continue;
                };
                let Some(previous) = usage.limit else {
                    return Err(unsupported_limit_error(component.name().into_owned(), key));
                };
                changes.push(Change { component, key, max: *max, previous });
            }
            if changes.len() == before {
                return Err(unsupported_limit_error("runtime", key));
            }
        }
        // Stores last: what a lowered limit evicts does not come back when a later change is rejected.
        changes.sort_by_key(|change| change.component.shutdown_phase() == ShutdownPhase::Stores);
        Ok(changes)
    }
}

pub(super) struct Change<'a> {
    component: &'a Arc<dyn Component>,
    key: &'a str,
    max: u64,
    previous: u64,
}

impl Change<'_> {
    pub(super) fn apply(&self) -> Result<()> {
        self.component.set_limit(self.key, self.max)
    }

    pub(super) fn revert(&self) {
        let _ = self.component.set_limit(self.key, self.previous);
    }
}
