//! What the machine, or the container, gives.

use std::path::Path;

/// Facts that limits adapt to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// Cores this process may use, a cgroup's quota honoured.
    pub cores: usize,
    /// Whether it runs in a container: `/.dockerenv`, `KUBERNETES_SERVICE_HOST` or a cgroup's processor quota.
    pub in_container: bool,
    /// The container's memory limit in bytes, if there is one.
    pub memory_limit: Option<u64>,
}

impl Machine {
    /// A machine outside a container.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { cores, in_container: false, memory_limit: None }
    }

    /// A container.
    #[must_use]
    pub fn container(cores: usize, memory_limit: Option<u64>) -> Self {
        Self { cores, in_container: true, memory_limit }
    }

    /// This machine.
    #[must_use]
    pub fn detect() -> Self {
        // The standard library honours affinity and the quotas of both cgroup versions.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let in_container = Path::new("/.dockerenv").exists()
            || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
            || has_quota();
        Self { cores, in_container, memory_limit: if in_container { memory_limit() } else { None } }
    }

    /// The most connections of a pool, idle connections kept, and seconds an idle one is kept.
    pub(super) fn connections(self) -> (usize, usize, u64) {
        let cores = self.cores.max(1);
        if self.in_container {
            (10.min(2 * cores), 5.min(cores), 15)
        } else {
            (20.min(4 * cores), 8.min(2 * cores), 30)
        }
    }

    /// `default_mb`, or the `share`th part of the container's memory limit if that is less.
    pub(super) fn memory_mb(self, default_mb: u64, share: u64) -> u64 {
        let limit = self.memory_limit.map(|bytes| (bytes / share) >> 20);
        limit.map_or(default_mb, |limit| default_mb.min(limit.max(1)))
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether a cgroup, of version 2 or 1, limits the processor.
fn has_quota() -> bool {
    read("/sys/fs/cgroup/cpu.max").is_some_and(|quota| !quota.starts_with("max"))
        || read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").is_some_and(|quota| !quota.starts_with('-'))
}

/// A cgroup's memory limit. Version 1 says "none" with a number near the top of the address space.
fn memory_limit() -> Option<u64> {
    const NONE: u64 = 1 << 60;
    let text =
        read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))?;
    text.parse().ok().filter(|limit| *limit < NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_adapt_to_cores_and_to_the_container() {
        assert_eq!(Machine::new(2).connections(), (8, 4, 30));
        assert_eq!(Machine::new(64).connections(), (20, 8, 30));
        assert_eq!(Machine::container(2, None).connections(), (4, 2, 15));
        assert_eq!(Machine::container(64, None).connections(), (10, 5, 15));
    }

    #[test]
    fn memory_is_half_the_container_if_that_is_less() {
        assert_eq!(Machine::container(2, Some(512 << 20)).memory_mb(500, 2), 256);
        assert_eq!(Machine::container(2, Some(8 << 30)).memory_mb(500, 2), 500);
        assert_eq!(Machine::new(2).memory_mb(500, 2), 500);
    }
}
