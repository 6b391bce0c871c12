//! What starting costs: loading the configuration and building a runtime.

mod plain;

use std::ffi::OsString;

use arshai::config::{ConfigLoader, HostResources};
use arshai::{Arshai, Config};
use arshai_benches::{Bench, Better, ns_per_op};

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

    let ours = |host: fn() -> HostResources| {
        let file = &file;
        let load = move || {
            let loader = ConfigLoader::new().file(file).vars(std::env::vars_os()).host_resources(host());
            assert_eq!(loader.load().expect("it loads").memory.max_entries, 50_000);
        };
        move || ns_per_op(loads, || (0..loads).for_each(|_| load()))
    };
    let figment = || {
        ns_per_op(loads, || {
            (0..loads).for_each(|_| assert_eq!(plain::load(&file).memory.max_entries, 50_000))
        })
    };
    let mut compare = |case, host: fn() -> HostResources| {
        let contenders = vec![("ours", Box::new(ours(host)) as _), ("figment 0.10", Box::new(figment) as _)];
        bench.compare(case, "ns/op", Better::Lower, contenders);
    };
    // This also asks the system for its cores and limits, in which figment has no part: it has no target.
    compare("config_load_detecting", HostResources::detect);
    compare("config_load", || HostResources::new(2));
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
