//! The effective configuration: rollback flags, and what follows from other keys, applied once to a copy.
//!
//! A runtime is built from this copy and [`Config::explain`] shows it. Nothing else in the crate knows the flags.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::explain::{Origin, Source};
use super::keys::KEYS;
use super::parse::{LONGEST_SECONDS, MOST};

/// The backend name of a part that the application passed to the builder by value. Flags do not touch it.
pub(crate) const PASSED_BY_VALUE: &str = "(passed by value)";

/// The legacy implementations that rollback flags select: key and name.
pub(crate) const LEGACY_BACKENDS: [(&str, &str); 5] = [
    ("memory.backend", "legacy"),
    ("memory.backend", "redis_legacy"),
    ("tasks.backend", "legacy"),
    ("pool.backend", "legacy"),
    ("http.backend", "legacy"),
];

/// What a rollback flag selects instead of a built-in backend. Other backends are never replaced.
const REPLACEMENTS: [(Flag, &str, &[&str], &str); 5] = [
    (Flag::Memory, "memory.backend", &["in_memory"], "legacy"),
    (Flag::Connections, "memory.backend", &["redis"], "redis_legacy"),
    (Flag::Connections, "pool.backend", &["bounded", "mobc"], "legacy"),
    (Flag::Connections, "http.backend", &["ureq"], "legacy"),
    (Flag::All, "tasks.backend", &["bounded"], "legacy"),
];

/// Keys that follow `pool.connect_timeout` while they are not set themselves.
const CONNECT_TIMEOUTS: [&str; 4] =
    ["http.connect_timeout", "redis.connect_timeout", "milvus.connect_timeout", "mcp.connection_timeout"];

const UNLIMITED: u64 = MOST;
const UNLIMITED_COUNT: usize = MOST as usize;
const UNLIMITED_TIME: Duration = Duration::from_secs(LONGEST_SECONDS);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Memory,
    Connections,
    All,
}

/// What an effective value does not say by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Annotation {
    /// The selected backend does not read it.
    NotUsed,
    /// The legacy pool does not read it; HTTP does.
    HttpOnly,
}

impl Config {
    /// The configuration that a runtime is built from: rollback flags and what follows from other keys are written
    /// into a copy, which remembers why. Applying it twice changes nothing.
    #[must_use]
    pub fn effective(&self) -> Self {
        let mut effective = Effective {
            config: self.clone(),
            sources: KEYS.iter().map(|key| (key.path, self.source_of(key.path))).collect(),
            annotations: BTreeMap::new(),
        };
        effective.select_legacy_backends();
        effective.follow_memory_backend();
        effective.follow_task_backend();
        effective.follow_connection_backends();
        effective.follow_other_keys();
        effective.finish()
    }

    /// Keeps rollback flags from selecting a legacy backend that does not exist, so that they never keep a service
    /// from starting.
    pub(crate) fn without_legacy_backend(&mut self, key: &'static str, name: &'static str) {
        self.origin.missing_backends.insert((key, name));
    }

    fn backend(&mut self, key: &str) -> &mut String {
        match key {
            "memory.backend" => &mut self.memory.backend,
            "tasks.backend" => &mut self.tasks.backend,
            "pool.backend" => &mut self.pool.backend,
            "http.backend" => &mut self.http.backend,
            _ => &mut self.vectors.backend,
        }
    }
}

struct Effective {
    config: Config,
    sources: BTreeMap<&'static str, Source>,
    annotations: BTreeMap<&'static str, Annotation>,
}

impl Effective {
    /// The flag's variable while it is set.
    fn flag(&self, flag: Flag) -> Option<Source> {
        let rollback = self.config.rollback;
        let (is_set, own) = match flag {
            Flag::Memory => (rollback.use_legacy_memory, "ARSHAI_USE_LEGACY_MEMORY"),
            Flag::Connections => (rollback.use_legacy_connections, "ARSHAI_USE_LEGACY_CONNECTIONS"),
            Flag::All => (false, ""),
        };
        if rollback.disable_optimizations {
            return Some(Source::Rollback { flag: "ARSHAI_DISABLE_OPTIMIZATIONS" });
        }
        is_set.then_some(Source::Rollback { flag: own })
    }

    fn set(&mut self, key: &'static str, source: &Source, set: impl FnOnce(&mut Config)) {
        set(&mut self.config);
        self.sources.insert(key, source.clone());
    }

    fn not_used(&mut self, because: &'static str, keys: &[&'static str]) {
        for key in keys {
            self.sources.insert(key, self.cause(because));
            self.annotations.insert(key, Annotation::NotUsed);
        }
    }

    /// Why other keys follow from this backend: the flag that selected it, or its key.
    fn cause(&self, backend: &'static str) -> Source {
        match &self.sources[backend] {
            rollback @ Source::Rollback { .. } => rollback.clone(),
            _ => Source::Key { key: backend },
        }
    }

    fn is_explicit(&self, key: &str) -> bool {
        matches!(self.sources[key], Source::File { .. } | Source::Variable { .. } | Source::Code)
    }

    fn select_legacy_backends(&mut self) {
        for (flag, key, builtin, legacy) in REPLACEMENTS {
            let Some(source) = self.flag(flag) else { continue };
            let exists = !self.config.origin.missing_backends.contains(&(key, legacy));
            if exists && builtin.contains(&self.config.backend(key).as_str()) {
                self.set(key, &source, |config| *config.backend(key) = legacy.into());
            }
        }
    }

    fn follow_memory_backend(&mut self) {
        let cause = self.cause("memory.backend");
        match self.config.memory.backend.as_str() {
            "legacy" => {
                self.set("memory.max_memory_mb", &cause, |config| config.memory.max_memory_mb = UNLIMITED);
                self.set("memory.max_entries", &cause, |config| config.memory.max_entries = UNLIMITED);
                // It sweeps on each operation.
                self.not_used("memory.backend", &["cleanup_interval"]);
            }
            "redis" | "redis_legacy" => self.not_used(
                "memory.backend",
                &["memory.max_memory_mb", "memory.max_entries", "cleanup_interval"],
            ),
            PASSED_BY_VALUE => self.not_used(
                "memory.backend",
                &["memory.max_memory_mb", "memory.max_entries", "memory.ttl", "cleanup_interval"],
            ),
            _ => {}
        }
    }

    fn follow_task_backend(&mut self) {
        let cause = self.cause("tasks.backend");
        match self.config.tasks.backend.as_str() {
            "legacy" => {
                self.set("tasks.max_background_tasks", &cause, |config| {
                    config.tasks.max_background_tasks = UNLIMITED_COUNT;
                });
                self.set("tasks.max_concurrency", &cause, |config| {
                    config.tasks.max_concurrency = UNLIMITED_COUNT;
                });
                self.set("tasks.max_result_bytes", &cause, |config| {
                    config.tasks.max_result_bytes = UNLIMITED_COUNT;
                });
                self.set("tasks.timeout", &cause, |config| config.tasks.timeout = UNLIMITED_TIME);
                self.not_used(
                    "tasks.backend",
                    &["tasks.background_warning_percent", "tasks.max_blocking_threads"],
                );
            }
            PASSED_BY_VALUE => self.not_used(
                "tasks.backend",
                &[
                    "tasks.max_background_tasks",
                    "tasks.background_warning_percent",
                    "tasks.max_concurrency",
                    "tasks.timeout",
                    "tasks.max_result_bytes",
                    "tasks.max_blocking_threads",
                ],
            ),
            _ => {}
        }
    }

    fn follow_connection_backends(&mut self) {
        let (pool, http) = (self.cause("pool.backend"), self.cause("http.backend"));
        let is_rollback = |source: &Source| matches!(source, Source::Rollback { .. });
        // The sizes are shared with other pools; an outside backend keeps what was configured for it.
        if is_rollback(&pool) && is_rollback(&http) {
            self.set("pool.max_connections", &http, |config| config.pool.max_connections = 50);
            self.set("pool.max_idle", &http, |config| config.pool.max_idle = 20);
            self.set("pool.idle_timeout", &http, |config| config.pool.idle_timeout = Duration::from_secs(30));
        }
        if self.config.http.backend == "legacy" {
            self.set("http.max_waiting", &http, |config| config.http.max_waiting = UNLIMITED_COUNT);
            self.set("http.pool_timeout", &http, |config| config.http.pool_timeout = UNLIMITED_TIME);
        }
        if self.config.pool.backend == "legacy" {
            self.set("pool.max_waiting", &pool, |config| config.pool.max_waiting = UNLIMITED_COUNT);
            for key in ["pool.max_connections", "pool.max_idle", "pool.idle_timeout"] {
                self.annotations.insert(key, Annotation::HttpOnly);
            }
        }
        if self.config.http.backend == PASSED_BY_VALUE {
            self.not_used(
                "http.backend",
                &[
                    "http.connect_timeout",
                    "http.read_timeout",
                    "http.write_timeout",
                    "http.pool_timeout",
                    "http.max_body_bytes",
                    "http.insecure_hosts",
                    "http.proxy",
                ],
            );
        }
        if self.config.vectors.backend == PASSED_BY_VALUE {
            self.not_used("vectors.backend", &["vectors.max_memory_mb"]);
        }
    }

    fn follow_other_keys(&mut self) {
        if let Some(all) = self.flag(Flag::All) {
            self.set("milvus.batch_size", &all, |config| config.milvus.batch_size = 50);
            self.set("llm.adaptive_concurrency", &all, |config| config.llm.adaptive_concurrency = false);
        }
        let connections = self.config.pool.max_connections;
        if !self.config.llm.adaptive_concurrency {
            let cause = self.cause("llm.adaptive_concurrency");
            self.set("llm.max_concurrency", &cause, |config| config.llm.max_concurrency = UNLIMITED_COUNT);
        } else if self.config.http.backend != PASSED_BY_VALUE && self.config.llm.max_concurrency > connections
        {
            // More requests would only wait for a connection.
            let cause = Source::Key { key: "pool.max_connections" };
            self.set("llm.max_concurrency", &cause, |config| config.llm.max_concurrency = connections);
        }
        if self.is_explicit("pool.connect_timeout") {
            let cause = Source::Key { key: "pool.connect_timeout" };
            let timeout = self.config.pool.connect_timeout;
            for key in CONNECT_TIMEOUTS.into_iter().filter(|key| !self.is_explicit(key)).collect::<Vec<_>>() {
                self.set(key, &cause, |config| match key {
                    "http.connect_timeout" => config.http.connect_timeout = timeout,
                    "redis.connect_timeout" => config.redis.connect_timeout = timeout,
                    "milvus.connect_timeout" => config.milvus.connect_timeout = timeout,
                    _ => config.mcp.connection_timeout = timeout,
                });
            }
        }
    }

    fn finish(self) -> Config {
        let Self { mut config, sources, annotations } = self;
        let origin = std::mem::take(&mut config.origin);
        config.origin = Origin {
            loaded: Some(Arc::new(config.clone())),
            sources: Arc::new(sources),
            annotations: Arc::new(annotations),
            ..origin
        };
        config
    }
}
