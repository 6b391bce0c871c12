//! The effective configuration: rollback flags, and what follows from other keys, applied once to a copy.
//!
//! A runtime is built from this copy and [`Config::explain`] shows it. Nothing else in the crate knows the flags.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use super::key::Key;
use super::provenance::{Annotation, Provenance, ValueSource};
use super::sections::KEYS;
use super::spec::Legacy;

/// The backend name of a component that the application passed to the builder by value.
pub(crate) const PASSED_BY_VALUE: &str = "(passed by value)";

/// The legacy backends that rollback flags select instead of built-in ones. Other backends are never replaced.
const REPLACEMENTS: [(Flag, &str, &[&str], &str); 7] = [
    (Flag::Memory, "memory.backend", &["in_memory"], "legacy"),
    (Flag::Connections, "memory.backend", &["redis"], "redis_legacy"),
    (Flag::Connections, "pool.backend", &["bounded", "mobc"], "legacy"),
    (Flag::Connections, "http.backend", &["ureq"], "legacy"),
    (Flag::Connections, "mcp.backend", &["rmcp"], "legacy"),
    (Flag::Optimizations, "tasks.backend", &["bounded"], "legacy"),
    (Flag::Optimizations, "vectors.backend", &["milvus"], "milvus_legacy"),
];

/// Keys that follow `pool.connect_timeout` while they are not set themselves.
const CONNECT_TIMEOUTS: [&str; 4] =
    ["http.connect_timeout", "redis.connect_timeout", "milvus.connect_timeout", "mcp.connection_timeout"];

/// Keys of the HTTP section that model clients read over any transport.
const READ_OVER_ANY_TRANSPORT: [&str; 3] = ["http.total_timeout", "http.max_waiting", "http.max_retries"];

#[derive(Clone, Copy)]
enum Flag {
    Memory,
    Connections,
    Optimizations,
}

impl Config {
    /// The configuration that a runtime is built from: a copy into which rollback flags, and what follows from other
    /// keys, are written. Applying it twice changes nothing.
    ///
    /// ```
    /// let mut config = arshai::Config::default();
    /// config.rollback.use_legacy_memory = true;
    /// assert_eq!(config.effective().memory.backend, "legacy");
    /// ```
    #[must_use]
    pub fn effective(&self) -> Self {
        let mut effective =
            Effective { config: self.clone(), sources: self.sources(), annotations: BTreeMap::new() };
        effective.select_legacy_backends();
        effective.apply_legacy_values();
        effective.mark_unused();
        effective.limit_model_concurrency();
        effective.inherit_connect_timeout();
        effective.finish()
    }

    /// The effective configuration where only some backends exist, by key and name. A flag selects no legacy backend
    /// that is missing, so that it never keeps a service from starting.
    pub(crate) fn effective_with(mut self, exists: impl Fn(&str, &str) -> bool) -> Self {
        let legacy = REPLACEMENTS.into_iter().map(|(_, key, _, name)| (key, name));
        self.provenance.missing_backends = legacy.filter(|(key, name)| !exists(key, name)).collect();
        self.effective()
    }
}

struct Effective {
    config: Config,
    sources: BTreeMap<&'static str, ValueSource>,
    annotations: BTreeMap<&'static str, Annotation>,
}

impl Effective {
    /// The flag that is set, as the source of what it changes.
    fn flag(&self, flag: Flag) -> Option<ValueSource> {
        let rollback = &self.config.rollback;
        let flag = match flag {
            _ if rollback.disable_optimizations => "ARSHAI_DISABLE_OPTIMIZATIONS",
            Flag::Memory if rollback.use_legacy_memory => "ARSHAI_USE_LEGACY_MEMORY",
            Flag::Connections if rollback.use_legacy_connections => "ARSHAI_USE_LEGACY_CONNECTIONS",
            _ => return None,
        };
        Some(ValueSource::Rollback { flag })
    }

    /// The selected backend of `memory.backend` and its like.
    fn backend(&self, key: &str) -> String {
        find(key).map(|key| key.display(&self.config)).unwrap_or_default()
    }

    /// Why other keys follow from this one: the flag that changed it, or the key itself.
    fn cause(&self, key: &'static str) -> ValueSource {
        match &self.sources[key] {
            rollback @ ValueSource::Rollback { .. } => rollback.clone(),
            _ => ValueSource::Key { key },
        }
    }

    fn set(&mut self, key: &'static Key, value: &str, source: ValueSource) {
        let parsed = key.parse(&mut self.config, value);
        debug_assert!(parsed.is_ok(), "{} = {value}", key.path);
        self.sources.insert(key.path, source);
    }

    fn not_used(&mut self, key: &'static Key, source: ValueSource) {
        self.sources.insert(key.path, source);
        self.annotations.insert(key.path, Annotation::NotUsed);
    }

    fn select_legacy_backends(&mut self) {
        for (flag, path, builtin, legacy) in REPLACEMENTS {
            let is_compiled = match path {
                "http.backend" => cfg!(feature = "ureq"),
                "mcp.backend" => cfg!(feature = "mcp"),
                _ => true,
            };
            let exists = is_compiled && !self.config.provenance.missing_backends.contains(&(path, legacy));
            let is_builtin = builtin.contains(&self.backend(path).as_str());
            if let (Some(source), Some(key)) = (self.flag(flag), find(path))
                && exists
                && is_builtin
            {
                self.set(key, legacy, source);
            }
        }
    }

    fn apply_legacy_values(&mut self) {
        // The sizes are shared with other pools: an outside backend keeps what was configured for it.
        let is_legacy = |key: &&str| self.backend(key) == "legacy";
        let are_legacy = ["pool.backend", "http.backend"].iter().all(is_legacy);
        let sizes = self.flag(Flag::Connections).filter(|_| are_legacy);
        for key in KEYS {
            match key.spec.legacy {
                Legacy::Unlimited(backend) if self.backend(backend) == "legacy" => {
                    (key.get_mut)(&mut self.config).set_unlimited();
                    self.sources.insert(key.path, self.cause(backend));
                }
                Legacy::NotUsed(backend) if self.backend(backend) == "legacy" => {
                    self.not_used(key, self.cause(backend));
                }
                Legacy::HttpPool(value) => {
                    if let Some(source) = sizes.clone() {
                        self.set(key, value, source);
                    }
                    if self.backend("pool.backend") == "legacy" {
                        self.annotations.insert(key.path, Annotation::HttpOnly);
                    }
                }
                Legacy::Optimization(value) => {
                    if let Some(source) = self.flag(Flag::Optimizations) {
                        self.set(key, value, source);
                    }
                }
                _ => {}
            }
        }
    }

    /// Marks what a store in Redis, or a component passed by value, does not read.
    fn mark_unused(&mut self) {
        let is_in_redis = matches!(self.config.memory.backend.as_str(), "redis" | "redis_legacy");
        for key in KEYS {
            let section = key.path.split('.').next().unwrap_or_default();
            let backend = match section {
                "cleanup_interval" | "memory" => "memory.backend",
                "tasks" => "tasks.backend",
                "http" => "http.backend",
                "vectors" => "vectors.backend",
                _ => continue,
            };
            let is_read = key.path == backend || READ_OVER_ANY_TRANSPORT.contains(&key.path);
            let is_in_process_only = backend == "memory.backend" && key.path != "memory.ttl";
            let is_unused = self.backend(backend) == PASSED_BY_VALUE || (is_in_redis && is_in_process_only);
            if is_unused && !is_read {
                self.not_used(key, self.cause(backend));
            }
        }
    }

    /// More concurrent model requests than the transport has connections would only wait for one.
    fn limit_model_concurrency(&mut self) {
        let Some(key) = find("llm.max_concurrency") else { return };
        let connections = self.config.pool.max_connections;
        if !self.config.llm.adaptive_concurrency {
            (key.get_mut)(&mut self.config).set_unlimited();
            self.sources.insert(key.path, self.cause("llm.adaptive_concurrency"));
        } else if self.config.llm.max_concurrency > connections && self.config.http.backend != PASSED_BY_VALUE
        {
            self.config.llm.max_concurrency = connections;
            self.sources.insert(key.path, ValueSource::Key { key: "pool.max_connections" });
        }
    }

    fn inherit_connect_timeout(&mut self) {
        if !self.sources["pool.connect_timeout"].is_explicit() {
            return;
        }
        let timeout = self.config.pool.connect_timeout;
        for path in CONNECT_TIMEOUTS {
            if self.sources[path].is_explicit() {
                continue;
            }
            match path {
                "http.connect_timeout" => self.config.http.connect_timeout = timeout,
                "redis.connect_timeout" => self.config.redis.connect_timeout = timeout,
                "milvus.connect_timeout" => self.config.milvus.connect_timeout = timeout,
                _ => self.config.mcp.connection_timeout = timeout,
            }
            self.sources.insert(path, ValueSource::Key { key: "pool.connect_timeout" });
        }
    }

    fn finish(self) -> Config {
        let Self { mut config, sources, annotations } = self;
        let provenance = std::mem::take(&mut config.provenance);
        config.provenance = Provenance {
            loaded: Some(Arc::new(config.clone())),
            sources: Arc::new(sources),
            annotations: Arc::new(annotations),
            ..provenance
        };
        config
    }
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}
