//! What a runtime reports of its components: statistics, health, and the end.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::component::{CloseReport, Component};
use crate::limits::{Health, LimitUsage};

/// A snapshot of every limit and counter of a runtime. Displays as a table of limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// The components, in order of registration.
    pub components: Vec<ComponentStats>,
}

/// A snapshot of one component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ComponentStats {
    /// Its [name](Component::name).
    pub name: String,
    /// Its [limits](Component::limits).
    pub limits: Vec<LimitUsage>,
    /// Its [counters](Component::counters).
    pub counters: Value,
}

impl ComponentStats {
    pub(super) fn of(component: &dyn Component) -> Self {
        Self {
            name: component.name().into_owned(),
            limits: component.limits(),
            counters: component.counters(),
        }
    }

    /// The limit with this configuration key.
    #[must_use]
    pub fn limit(&self, key: &str) -> Option<&LimitUsage> {
        self.limits.iter().find(|usage| usage.key == key)
    }
}

impl RuntimeStats {
    /// The first component of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ComponentStats> {
        self.components.iter().find(|component| component.name == name)
    }

    /// Every limit with the name of its component.
    pub fn limits(&self) -> impl Iterator<Item = (&str, &LimitUsage)> {
        self.components.iter().flat_map(|component| {
            let name = component.name.as_str();
            component.limits.iter().map(move |usage| (name, usage))
        })
    }
}

impl fmt::Display for RuntimeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<28} {:>12} {:>12} {:>12}", "component", "limit", "used", "peak", "max")?;
        for (name, usage) in self.limits() {
            let max = usage.limit.map_or_else(|| "none".into(), |limit| limit.to_string());
            let ratio =
                usage.peak_ratio().map_or_else(String::new, |ratio| format!("{:.1} %", ratio * 100.0));
            let LimitUsage { key, unit, used, peak, .. } = usage;
            writeln!(f, "{name:<12} {key:<28} {used:>12} {peak:>12} {max:>12}  {ratio:<8} {unit}")?;
        }
        Ok(())
    }
}

/// Whether each component of a runtime can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuntimeHealth {
    /// The health of each component, by name.
    pub components: BTreeMap<String, Health>,
}

impl RuntimeHealth {
    /// The health of one component.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Health> {
        self.components.get(name)
    }

    /// Whether every component can do its work, perhaps reduced.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.components.values().all(Health::is_usable)
    }
}

/// The work that a shutdown completed, aborted and lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The report of each component, in the order in which they were closed.
    pub components: Vec<(String, CloseReport)>,
}

impl ShutdownReport {
    /// The report of the first component of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CloseReport> {
        self.components.iter().find(|(other, _)| other == name).map(|(_, report)| report)
    }

    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.components.iter().all(|(_, report)| report.is_clean())
    }
}
