//! What `explain()` shows is what runs: rollback flags and what follows from other keys.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::memory::InMemoryManager;
use arshai::config::ConfigLoader;
use arshai::memory::MemoryInput;
use arshai::{Arshai, Config, ErrorKind, ManualClock, Registry};
use figment::value::Value;

use super::{explained, file, vars};

const FLAGS: [Option<&str>; 4] = [
    None,
    Some("ARSHAI_USE_LEGACY_MEMORY"),
    Some("ARSHAI_USE_LEGACY_CONNECTIONS"),
    Some("ARSHAI_DISABLE_OPTIMIZATIONS"),
];

/// A value that each key takes: in a variable, and in a file.
fn sample(key: &str) -> Option<(&'static str, &'static str)> {
    const SAMPLES: [(&str, &str); 7] = [
        ("7", "7"),
        ("true", "true"),
        ("https://host.example/1", "\"https://host.example/1\""),
        ("redis://host/1", "\"redis://host/1\""),
        ("text", "\"text\""),
        ("text", "[\"text\"]"),
        ("refuse", "\"refuse\""),
    ];
    if key.ends_with(".backend") {
        // Any other name would have to be registered.
        return Some(match key {
            "vectors.backend" => ("embedded", "\"embedded\""),
            "http.backend" if !cfg!(feature = "ureq") => ("ureq", "\"ureq\""),
            "mcp.backend" => ("rmcp", "\"rmcp\""),
            _ => ("legacy", "\"legacy\""),
        });
    }
    let name = format!("ARSHAI_{}", key.to_uppercase().replace('.', "__"));
    SAMPLES.into_iter().find(|(text, quoted)| {
        let in_file = file("a.toml", &format!("{key} = {quoted}\n"));
        let server = ("MCP_SERVER_URL", "https://mcp.example.com/mcp");
        let loader = ConfigLoader::new().file(&in_file.path).vars(vars([(name.as_str(), text), server]));
        loader.load().is_ok()
    })
}

/// One configuration for each source that a value can have, under one flag.
fn configurations(key: &str, flag: Option<&str>) -> Vec<(&'static str, Config)> {
    let Some((text, quoted)) = sample(key) else { panic!("no value for {key}") };
    let mut common = vec![("MCP_SERVER_URL", "https://mcp.example.com/mcp")];
    common.extend(flag.map(|flag| (flag, "1")));
    let loader = |name: Option<&str>| {
        let list = common.iter().copied().chain(name.map(|name| (name, text)));
        ConfigLoader::new().vars(list.map(|(name, value)| (name.into(), value.into())))
    };
    let in_file = file("a.toml", &format!("{key} = {quoted}\n"));
    let name = format!("ARSHAI_{}", key.to_uppercase().replace('.', "__"));
    let value = match quoted.trim_matches('"') {
        "[\"text\"]" => Value::from(vec!["text"]),
        number if number.parse::<u64>().is_ok() => Value::from(7),
        "true" => Value::from(true),
        text => Value::from(text),
    };
    let load = |loader: ConfigLoader| loader.load().expect(key);
    vec![
        ("default", load(loader(None))),
        ("file", load(loader(None).file(&in_file.path))),
        ("variable", load(loader(Some(&name)))),
        ("code", load(loader(None).set(key, value))),
    ]
}

/// Compares what `explain()` shows with what the runtime's components report.
fn assert_explained_limits_run(what: &str, runtime: &Arshai) {
    let explained = runtime.config().explain();
    for component in &runtime.stats().components {
        for usage in &component.limits {
            let Some(value) = explained.get(usage.key) else { continue };
            let number = value.value.split(' ').next().unwrap_or_default();
            let unit = if value.value.ends_with("MiB") { 1 << 20 } else { 1 };
            let shown = number.parse::<u64>().ok().map(|number| number * unit);
            let is_read = component.name == "http" || !value.value.ends_with("(HTTP only)");
            let shown = shown.filter(|_| is_read);
            assert_eq!(shown, usage.limit, "{what}: {} {} = {}", component.name, usage.key, value.value);
        }
    }
}

#[test]
fn what_explain_shows_is_what_runs_for_every_key_source_and_flag() {
    let keys = Config::default().explain().values.into_iter().map(|value| value.key);
    for key in keys.filter(|key| key != "mcp.servers") {
        for flag in FLAGS {
            for (source, config) in configurations(&key, flag) {
                let what = format!("{key} from {source} under {flag:?}");
                let runtime = Arshai::builder(config.clone()).build().expect(&what);
                assert_eq!(config.explain(), runtime.config().explain(), "{what}");
                assert_eq!(config.effective().explain(), runtime.config().explain(), "{what}");
                assert_explained_limits_run(&what, &runtime);
            }
        }
    }
}

#[cfg(feature = "redis")]
#[test]
fn what_explain_shows_is_what_runs_with_memory_in_redis() {
    for flag in FLAGS {
        let redis = [("ARSHAI_MEMORY_BACKEND", "redis"), ("ARSHAI_MAX_CONNECTIONS", "7")];
        let list = redis.into_iter().chain(flag.map(|flag| (flag, "1")));
        let config = Config::from_vars(list.map(|(name, value)| (name.into(), value.into()))).expect("valid");
        let runtime = Arshai::builder(config).build().expect("it builds without a server");
        assert_eq!(explained(runtime.config(), "memory.max_entries").0, "not used");
        assert_explained_limits_run(&format!("{flag:?}"), &runtime);
        let usage = runtime
            .stats()
            .limits()
            .any(|(name, usage)| name == "redis" && usage.key == "pool.max_connections");
        assert!(usage, "{}", runtime.stats());
    }
}

#[test]
fn a_value_says_which_layer_or_flag_it_came_from() {
    let sources = |flag| {
        let of = |(_, config): (_, Config)| explained(&config, "memory.max_entries");
        configurations("memory.max_entries", flag).into_iter().map(of).collect::<Vec<_>>()
    };
    let values: Vec<_> = sources(None).into_iter().map(|(value, _)| value).collect();
    assert_eq!(values, ["10000", "7", "7", "7"]);
    let rolled_back = ("unlimited".to_owned(), "rollback flag ARSHAI_USE_LEGACY_MEMORY".to_owned());
    assert_eq!(sources(Some("ARSHAI_USE_LEGACY_MEMORY")), vec![rolled_back; 4]);
}

#[test]
fn each_flag_selects_its_own_legacy_backends() {
    let backends = |flag| {
        let config = Config::from_vars(vars([(flag, "1")])).expect("a flag").effective();
        [config.memory.backend, config.tasks.backend, config.http.backend, config.pool.backend]
    };
    assert_eq!(backends("ARSHAI_USE_LEGACY_MEMORY"), ["legacy", "bounded", "ureq", "bounded"]);
    // Without a transport there is nothing to roll back.
    let http = if cfg!(feature = "ureq") { "legacy" } else { "ureq" };
    assert_eq!(backends("ARSHAI_USE_LEGACY_CONNECTIONS"), ["in_memory", "bounded", http, "legacy"]);
    assert_eq!(backends("ARSHAI_DISABLE_OPTIMIZATIONS"), ["legacy", "legacy", http, "legacy"]);
    let redis = vars([("ARSHAI_MEMORY_BACKEND", "redis"), ("ARSHAI_USE_LEGACY_CONNECTIONS", "1")]);
    assert_eq!(Config::from_vars(redis).expect("valid").effective().memory.backend, "redis_legacy");
}

#[cfg(feature = "ureq")]
#[test]
fn legacy_connections_have_the_sizes_of_python_arshai() {
    for backend in ["bounded", "mobc", "legacy"] {
        let list = [("ARSHAI_USE_LEGACY_CONNECTIONS", "1"), ("ARSHAI_POOL__BACKEND", backend)];
        let config = Config::from_vars(vars(list)).expect("a flag");
        let pool = config.effective().pool;
        assert_eq!((pool.max_connections, pool.max_idle), (50, 20));
        assert_eq!(pool.idle_timeout, Duration::from_secs(30));
        assert_eq!(explained(&config, "pool.max_connections").0, "50 (HTTP only)");
    }
}

#[test]
fn a_legacy_backend_chosen_without_a_flag_shows_the_limits_it_does_not_have() {
    let config = Config::from_vars(vars([
        ("ARSHAI_MEMORY_BACKEND", "legacy"),
        ("ARSHAI_TASKS__BACKEND", "legacy"),
        ("ARSHAI_HTTP__BACKEND", "legacy"),
        ("ARSHAI_POOL__BACKEND", "legacy"),
    ]));
    let config = config.expect("valid");
    for (key, value, source) in [
        ("memory.max_entries", "unlimited", "follows memory.backend"),
        ("cleanup_interval", "not used", "follows memory.backend"),
        ("tasks.timeout", "unlimited", "follows tasks.backend"),
        ("http.max_waiting", "unlimited", "follows http.backend"),
        ("pool.max_waiting", "unlimited", "follows pool.backend"),
        ("pool.max_connections", "20 (HTTP only)", "default"),
    ] {
        assert_eq!(explained(&config, key), (value.to_owned(), source.to_owned()), "{key}");
    }
}

#[test]
fn a_flag_leaves_outside_backends_what_was_configured_for_them() {
    let config = Config::from_vars(vars([
        ("ARSHAI_MEMORY_BACKEND", "theirs"),
        ("ARSHAI_TASKS__BACKEND", "theirs"),
        ("ARSHAI_HTTP__BACKEND", "theirs"),
        ("ARSHAI_POOL__BACKEND", "theirs"),
        ("ARSHAI_TASKS__TIMEOUT", "5"),
        ("ARSHAI_MAX_ENTRIES", "7"),
        ("ARSHAI_MAX_CONNECTIONS", "3"),
        ("ARSHAI_HTTP__POOL_TIMEOUT", "9"),
        ("ARSHAI_DISABLE_OPTIMIZATIONS", "true"),
    ]));
    let effective = config.expect("valid").effective();
    assert_eq!((effective.memory.backend.as_str(), effective.memory.max_entries), ("theirs", 7));
    assert_eq!((effective.tasks.backend.as_str(), effective.tasks.timeout.as_secs()), ("theirs", 5));
    assert_eq!((effective.pool.backend.as_str(), effective.pool.max_connections), ("theirs", 3));
    assert_eq!((effective.http.backend.as_str(), effective.http.pool_timeout.as_secs()), ("theirs", 9));
}

#[tokio::test]
async fn a_flag_leaves_a_backend_passed_by_value_alone() {
    let mut config = Config::default();
    config.rollback.disable_optimizations = true;
    let memory = Arc::new(InMemoryManager::new());
    let runtime = Arshai::builder(config).memory(memory).build().expect("it builds");
    assert!(runtime.memory().capabilities().bounded);
    assert_eq!(explained(runtime.config(), "memory.backend"), ("(passed by value)".into(), "code".into()));
    for key in ["memory.max_entries", "memory.ttl", "cleanup_interval"] {
        assert_eq!(explained(runtime.config(), key), ("not used".into(), "follows memory.backend".into()));
    }
    assert_eq!(explained(runtime.config(), "tasks.backend").0, "legacy");
}

#[test]
fn a_flag_never_keeps_a_service_from_starting() {
    let mut config = Config::default();
    config.rollback.disable_optimizations = true;
    // As with default-features = false: no transport at all.
    let mut registry = Registry::builtin();
    registry.http = Registry::empty().http;
    registry.vectors = Registry::empty().vectors;
    let runtime = Arshai::builder(config.clone()).registry(registry).build().expect("it starts");
    assert_eq!(explained(runtime.config(), "http.backend").0, "ureq");
    assert_eq!(runtime.http().expect_err("there is none").kind(), ErrorKind::UnknownBackend);

    // An application that brings all of its backends, under the built-in names.
    let builtin = Registry::builtin();
    let mut registry = Registry::empty();
    let (memory, tasks) = (builtin.memory.clone(), builtin.tasks.clone());
    registry.memory.register("in_memory", move |context| memory.build("in_memory", context));
    registry.tasks.register("bounded", move |context| tasks.build("bounded", context));
    let runtime = Arshai::builder(config).registry(registry).build().expect("it starts");
    assert_eq!(explained(runtime.config(), "memory.max_entries").0, "10000");
    assert_explained_limits_run("without legacy backends", &runtime);
}

#[test]
fn model_concurrency_never_exceeds_the_connections() {
    assert_eq!(
        explained(&Config::default(), "llm.max_concurrency"),
        ("20".into(), "follows pool.max_connections".into())
    );
    let many = Config::from_vars(vars([("ARSHAI_MAX_CONNECTIONS", "100")])).expect("valid");
    assert_eq!(explained(&many, "llm.max_concurrency"), ("64".into(), "default".into()));
    let fixed = Config::from_vars(vars([("ARSHAI_LLM__ADAPTIVE_CONCURRENCY", "false")])).expect("valid");
    assert_eq!(explained(&fixed, "llm.max_concurrency").0, "unlimited");
}

#[test]
fn the_connection_timeout_reaches_every_section_that_sets_none() {
    let keys =
        ["http.connect_timeout", "redis.connect_timeout", "milvus.connect_timeout", "mcp.connection_timeout"];
    let timeouts = |list: &[(&str, &str)]| {
        let list = list.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let config = Config::from_vars(list).expect("valid");
        keys.map(|key| explained(&config, key).0)
    };
    let connection = ("ARSHAI_CONNECTION_TIMEOUT", "7");
    assert_eq!(timeouts(&[]), ["10 s", "30 s", "30 s", "30 s"]);
    assert_eq!(timeouts(&[connection]), ["7 s"; 4]);
    let own = ("ARSHAI_REDIS__CONNECT_TIMEOUT", "3");
    assert_eq!(timeouts(&[connection, own]), ["7 s", "3 s", "7 s", "7 s"]);
}

#[test]
fn values_that_code_wrote_into_fields_are_checked_as_variables_are() {
    for (key, change) in [
        ("memory.max_entries", (|config| config.memory.max_entries = 0) as fn(&mut Config)),
        ("memory.ttl", |config| config.memory.ttl = Duration::ZERO),
        ("pool.max_connections", |config| config.pool.max_connections = 0),
        ("tasks.background_warning_percent", |config| config.tasks.background_warning_percent = 101),
        ("memory.backend", |config| config.memory.backend = String::new()),
        ("redis.url", |config| config.redis.url = "http://host".into()),
        ("llm.openai.base_url", |config| config.llm.openai.base_url = Some("host".into())),
    ] {
        let mut config = Config::default();
        change(&mut config);
        let error = Arshai::builder(config).build().expect_err(key);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(&format!("\n  {key}")), "{error}");
        assert!(error.to_string().contains("(code): expected"), "{error}");
    }
    let mut config = Config::default();
    (config.tasks.max_background_tasks, config.pool.max_idle) = (0, 0);
    config.http.read_timeout = Duration::from_millis(10);
    config.memory.max_entries = u64::MAX;
    Arshai::builder(config).build().expect("valid");
}

#[cfg(feature = "contract")]
#[tokio::test(start_paused = true)]
async fn the_connection_timeout_ends_a_connection_attempt() {
    use arshai::contract::doubles::{ScriptedConnector, ScriptedOutcome};
    use arshai::pool::PoolSettings;

    let config = Config::from_vars(vars([("ARSHAI_CONNECTION_TIMEOUT", "7")])).expect("valid");
    let context = arshai::BuildContext::new(config);
    let connector = Arc::new(ScriptedConnector::new());
    connector.set_connect_outcome(ScriptedOutcome::Hangs);
    let settings = PoolSettings::new("test", &context.config.pool);
    let pool = context.build_pool(connector, settings).expect("the default pool");
    let began = tokio::time::Instant::now();
    let error = pool.acquire(arshai::Deadline::after(Duration::from_secs(60))).await.expect_err("it hangs");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn the_cleanup_interval_is_how_often_expired_entries_are_removed() {
    let config = Config::from_vars(vars([("ARSHAI_CLEANUP_INTERVAL", "5"), ("ARSHAI_MEMORY_TTL", "1")]))
        .expect("valid");
    let clock = Arc::new(ManualClock::new());
    let runtime = Arshai::builder(config).clock(clock.clone()).build().expect("it builds");
    let input = MemoryInput::working_memory("c").with_data("x");
    runtime.memory().store(input).await.expect("stored");
    clock.advance(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(runtime.memory().stats().entries, 1, "expired, and not yet removed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(runtime.memory().stats().entries, 0);
}
