//! What starting costs: loading the configuration and building a runtime.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use arshai::config::{ConfigLoader, Machine};
use arshai::{Arshai, Config};
use arshai_benches::{Bench, Better, ns_per_op};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

const FILE: &str = "cleanup_interval = 60\n[memory]\nmax_entries = 50000\nmax_memory_mb = 200\n[tasks]\nmax_concurrency = 32\n[http]\npool_timeout = 3\n";

fn variables() -> Vec<(OsString, OsString)> {
    [
        ("ARSHAI_MAX_CONNECTIONS", "16"),
        ("ARSHAI_MEMORY_TTL", "7200"),
        ("ARSHAI_MAX_BACKGROUND_TASKS", "500"),
        ("OPENAI_API_KEY", "sk-test"),
        ("REDIS_URL", "redis://localhost:6379/1"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

/// The same values as a service would declare them for figment alone: one struct of all keys, defaults serialised,
/// file and environment merged, extracted. It checks nothing that serde does not.
#[derive(Serialize, Deserialize)]
struct Plain {
    cleanup_interval: u64,
    sections: BTreeMap<String, BTreeMap<String, u64>>,
    memory: BTreeMap<String, u64>,
    tasks: BTreeMap<String, u64>,
    http: BTreeMap<String, u64>,
    redis_url: String,
    openai_api_key: String,
    arshai_max_connections: u64,
    arshai_memory_ttl: u64,
    arshai_max_background_tasks: u64,
}

fn plain() -> Plain {
    let section = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), 1)).collect::<BTreeMap<_, _>>();
    Plain {
        cleanup_interval: 300,
        sections: ["pool", "milvus", "mcp", "rollback", "vectors"]
            .map(|name| (name.to_owned(), section(&["one", "two", "three", "four"])))
            .into(),
        memory: section(&["max_entries", "max_memory_mb", "ttl"]),
        tasks: section(&["max_concurrency", "timeout", "max_result_bytes", "max_blocking_threads"]),
        http: section(&["pool_timeout", "connect_timeout", "read_timeout", "write_timeout", "max_waiting"]),
        redis_url: "redis://localhost:6379/1".into(),
        openai_api_key: "none".into(),
        arshai_max_connections: 20,
        arshai_memory_ttl: 43_200,
        arshai_max_background_tasks: 1_000,
    }
}

fn bare_figment(file: &Path) -> Plain {
    // The process's environment, given the same variables when this bench starts itself.
    let names = [
        "arshai_max_connections",
        "arshai_memory_ttl",
        "arshai_max_background_tasks",
        "openai_api_key",
        "redis_url",
    ];
    Figment::from(Serialized::defaults(plain()))
        .merge(Toml::file_exact(file))
        .merge(Env::raw().only(&names))
        .extract()
        .expect("the same values load")
}

fn main() {
    if std::env::var_os("ARSHAI_MAX_CONNECTIONS").is_none() {
        // Once more, with the variables in the environment: only a new process can have them.
        let exe = std::env::current_exe().expect("a running program has a path");
        let status =
            std::process::Command::new(exe).args(std::env::args_os().skip(1)).envs(variables()).status();
        assert!(status.expect("the bench can start itself").success());
        return;
    }
    let mut bench = Bench::from_args("startup");
    let file = std::env::temp_dir().join(format!("arshai-bench-{}.toml", std::process::id()));
    std::fs::write(&file, FILE).expect("the temporary folder can be written");
    let loads = if bench.is_quick() { 500 } else { 5_000 };

    bench.compare(
        "config_load",
        "ns/op",
        Better::Lower,
        vec![
            (
                "ours",
                Box::new(|| {
                    ns_per_op(loads, || {
                        for _ in 0..loads {
                            let loader = ConfigLoader::new().file(&file).vars(std::env::vars_os());
                            let config = loader.machine(Machine::new(2)).load().expect("it loads");
                            assert_eq!(config.memory.max_entries, 50_000);
                        }
                    })
                }),
            ),
            (
                "figment 0.10",
                Box::new(|| {
                    ns_per_op(loads, || {
                        for _ in 0..loads {
                            assert_eq!(bare_figment(&file).memory["max_entries"], 50_000);
                        }
                    })
                }),
            ),
        ],
    );
    bench.target("figment 0.10", 1.2);

    bench.compare(
        "runtime_build_defaults",
        "us/op",
        Better::Lower,
        vec![(
            "ours",
            Box::new(|| {
                ns_per_op(100, || {
                    for _ in 0..100 {
                        let runtime = Arshai::builder(Config::default()).build().expect("the defaults build");
                        std::hint::black_box(&runtime);
                    }
                }) / 1e3
            }),
        )],
    );
    std::fs::remove_file(&file).expect("it was written above");
    bench.finish();
}
