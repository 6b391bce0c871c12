//! Cores and memory of the host or container.

use std::path::{Path, PathBuf};

/// Cores and memory of the host or container, to which limits adapt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostResources {
    /// Cores that this process may use, within its cgroups' quotas.
    pub cores: usize,
    /// Whether it runs in a container: `/.dockerenv`, `KUBERNETES_SERVICE_HOST` or a cgroup's CPU quota.
    pub in_container: bool,
    /// The container's memory limit in bytes, if there is one.
    pub memory_limit: Option<u64>,
}

impl HostResources {
    /// A host outside a container.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { cores, in_container: false, memory_limit: None }
    }

    /// A container.
    #[must_use]
    pub fn container(cores: usize, memory_limit: Option<u64>) -> Self {
        Self { cores, in_container: true, memory_limit }
    }

    /// The resources of this process.
    #[must_use]
    pub fn detect() -> Self {
        // The standard library honours affinity and the quotas of both cgroup versions.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let in_kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        Self::from_root(Path::new("/"), cores, in_kubernetes)
    }

    /// The resources described by the file system under `root`.
    fn from_root(root: &Path, cores: usize, in_kubernetes: bool) -> Self {
        let groups = Cgroups::from_root(root);
        let in_container = in_kubernetes || root.join(".dockerenv").exists() || groups.has_cpu_quota();
        Self { cores, in_container, memory_limit: groups.memory_limit().filter(|_| in_container) }
    }

    /// Maximum number of idle connections of a pool.
    pub(super) fn max_idle(self) -> usize {
        let cores = self.cores.max(1);
        if self.in_container { 5.min(cores) } else { 8.min(2 * cores) }
    }

    /// `default_mb`, or the `divisor`th part of the container's memory limit if that is less.
    pub(super) fn capped_memory_mb(self, default_mb: u64, divisor: u64) -> u64 {
        let limit = self.memory_limit.map(|bytes| (bytes / divisor) >> 20);
        limit.map_or(default_mb, |limit| default_mb.min(limit.max(1)))
    }
}

/// The cgroups of this process, from its own up to the root. The lowest limit of any of them applies.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn from_root(root: &Path) -> Self {
        let mounted = root.join("sys/fs/cgroup");
        let own = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut groups = Vec::new();
        for line in own.lines() {
            // `hierarchy:controllers:path`; version 2 has one hierarchy and names no controllers.
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let hierarchy = match controllers {
                "" => mounted.clone(),
                "memory" => mounted.join("memory"),
                cpu if cpu.split(',').any(|name| name == "cpu") => mounted.join("cpu"),
                _ => continue,
            };
            let group = hierarchy.join(path.trim_start_matches('/'));
            groups.extend(group.ancestors().take_while(|at| at.starts_with(&hierarchy)).map(Path::to_owned));
        }
        Self(groups)
    }

    fn read<'a>(&'a self, file: &'a str) -> impl Iterator<Item = String> + 'a {
        let read = move |group: &PathBuf| std::fs::read_to_string(group.join(file)).ok();
        self.0.iter().filter_map(read).map(|text| text.trim().to_owned())
    }

    /// Whether any of them limits CPU time.
    fn has_cpu_quota(&self) -> bool {
        self.read("cpu.max").any(|quota| !quota.starts_with("max"))
            || self.read("cpu.cfs_quota_us").any(|quota| !quota.starts_with('-'))
    }

    /// The lowest memory limit. Version 1 writes "none" as a number near the top of the address space.
    fn memory_limit(&self) -> Option<u64> {
        const NONE: u64 = 1 << 60;
        let limits = self.read("memory.max").chain(self.read("memory.limit_in_bytes"));
        limits.filter_map(|limit| limit.parse().ok()).filter(|limit| *limit < NONE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_follow_cores() {
        assert_eq!([HostResources::new(2).max_idle(), HostResources::new(64).max_idle()], [4, 8]);
        let container = |cores| HostResources::container(cores, None).max_idle();
        assert_eq!([container(2), container(64)], [2, 5]);
    }

    #[test]
    fn memory_is_half_the_container_if_that_is_less() {
        assert_eq!(HostResources::container(2, Some(512 << 20)).capped_memory_mb(500, 2), 256);
        assert_eq!(HostResources::container(2, Some(8 << 30)).capped_memory_mb(500, 2), 500);
        assert_eq!(HostResources::new(2).capped_memory_mb(500, 2), 500);
    }

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("created");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn a_cpu_quota_of_a_parent_cgroup_makes_a_container_and_the_lowest_memory_limit_applies() {
        let root = root(&[
            ("proc/self/cgroup", "0::/system.slice/my.service\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
            ("sys/fs/cgroup/system.slice/my.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/my.service/memory.max", "max\n"),
        ]);
        assert_eq!(
            HostResources::from_root(root.path(), 2, false),
            HostResources::container(2, Some(512 << 20))
        );
    }

    #[test]
    fn version_1_cgroups_are_read() {
        let root = root(&[
            ("proc/self/cgroup", "5:memory:/\n4:cpu,cpuacct:/\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(HostResources::from_root(root.path(), 1, false), HostResources::container(1, None));
    }

    #[test]
    fn docker_and_kubernetes_are_containers_and_a_bare_host_is_not() {
        let docker = root(&[(".dockerenv", "")]);
        assert_eq!(HostResources::from_root(docker.path(), 4, false), HostResources::container(4, None));
        let bare = root(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1048576\n")]);
        assert_eq!(HostResources::from_root(bare.path(), 4, false), HostResources::new(4));
        assert_eq!(
            HostResources::from_root(bare.path(), 4, true),
            HostResources::container(4, Some(1 << 20))
        );
    }
}
