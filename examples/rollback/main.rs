//! The same workload under the defaults and under each rollback flag, side by side.
//!
//! ```text
//! cargo run --release --example rollback -- [SVG_FILE]
//! ```
//!
//! Each variant runs in a separate process, configured by the environment variable that an operator would set, so that
//! resident memory can be compared. The chart is printed and written as SVG to `SVG_FILE` (default
//! `target/rollback.svg`).

mod chart;

use std::error::Error;
use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use arshai::memory::MemoryInput;
use arshai::tasks::{Function, FunctionCall, FunctionExecutionInput, Functions};
use arshai::{Arshai, Config, Deadline};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The variants: name and rollback flag.
const VARIANTS: [(&str, Option<&str>); 4] = [
    ("defaults", None),
    ("legacy memory", Some("ARSHAI_USE_LEGACY_MEMORY")),
    ("legacy connections", Some("ARSHAI_USE_LEGACY_CONNECTIONS")),
    ("all optimizations off", Some("ARSHAI_DISABLE_OPTIMIZATIONS")),
];

/// Number of stored conversations; the default limit is 10 000 entries.
const CONVERSATIONS: usize = 30_000;
/// Number of timed operations on the full store; the legacy store scans every entry on each.
const TIMED_OPERATIONS: usize = 300;
/// Number of concurrent background calls; the default limit is 1 000.
const BACKGROUND_CALLS: usize = 5_000;

/// Measurements of one variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Outcome {
    name: String,
    entries: u64,
    bytes: u64,
    resident_bytes: u64,
    background_tasks: usize,
    background_rejected: usize,
    memory_us_per_op: f64,
    http_connections: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--variant"
    {
        println!("{}", serde_json::to_string(&run(name)?)?);
        return Ok(());
    }
    let svg = arguments.first().map_or("target/rollback.svg", String::as_str);
    let mut outcomes = Vec::new();
    for (name, _) in VARIANTS {
        eprintln!("running: {name}");
        let output = Command::new(std::env::current_exe()?).args(["--variant", name]).output()?;
        if !output.status.success() {
            return Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        outcomes.push(serde_json::from_slice::<Outcome>(&output.stdout)?);
    }
    let charts = charts(&outcomes);
    for chart in &charts {
        println!("{}", chart.to_text());
    }
    if let Some(folder) = std::path::Path::new(svg).parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(svg, chart::to_svg(&charts))?;
    println!("The same charts as SVG: {svg}");
    Ok(())
}

fn charts(outcomes: &[Outcome]) -> Vec<chart::Chart> {
    type Figure = fn(&Outcome) -> Option<f64>;
    let figures: [(&str, Figure); 7] = [
        ("conversations held", |o| Some(o.entries as f64)),
        ("memory accounted, MiB", |o| Some(o.bytes as f64 / f64::from(1 << 20))),
        ("resident memory of the process, MiB", |o| Some(o.resident_bytes as f64 / f64::from(1 << 20))),
        ("background tasks at once", |o| Some(o.background_tasks as f64)),
        ("background calls rejected", |o| Some(o.background_rejected as f64)),
        ("HTTP connections allowed", |o| o.http_connections.map(|n| n as f64)),
        ("memory, µs per operation", |o| Some(o.memory_us_per_op)),
    ];
    figures
        .map(|(title, figure)| {
            let bars = outcomes.iter().map(|outcome| (outcome.name.clone(), figure(outcome)));
            chart::Chart::new(title, bars.collect())
        })
        .to_vec()
}

/// Runs the workload under one variant, in this process.
fn run(name: &str) -> Result<Outcome, Box<dyn Error>> {
    let (_, flag) = VARIANTS.iter().find(|(known, _)| *known == name).ok_or("no such variant")?;
    let variables = flag.map(|flag| (OsString::from(flag), OsString::from("true")));
    let runtime = Arshai::builder(Config::from_vars(variables)?).build()?;
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor.block_on(async {
        fill_memory(&runtime).await?;
        let memory_us_per_op = time_memory(&runtime).await?;
        let (background_tasks, background_rejected) = run_background(&runtime).await;
        let stats = runtime.stats();
        let counter = |name: &str| stats.get("memory").and_then(|memory| memory.counters[name].as_u64());
        let connections = stats.get("http").and_then(|http| http.limit("pool.max_connections"));
        Ok(Outcome {
            name: name.to_owned(),
            entries: counter("entries").unwrap_or(0),
            bytes: counter("bytes").unwrap_or(0),
            resident_bytes: resident_bytes(),
            background_tasks,
            background_rejected,
            memory_us_per_op,
            http_connections: connections.and_then(|usage| usage.limit),
        })
    })
}

async fn fill_memory(runtime: &Arshai) -> arshai::Result<()> {
    let text = "what this user likes and what was said ".repeat(25);
    // The legacy store scans all of its entries on every operation: filling it is quadratic.
    for conversation in 0..CONVERSATIONS {
        let input = MemoryInput::working_memory(format!("conversation-{conversation}"));
        runtime.memory().store(input.with_data(text.as_str())).await?;
    }
    Ok(())
}

/// Microseconds per operation of a full store, half of them reads.
async fn time_memory(runtime: &Arshai) -> arshai::Result<f64> {
    let began = Instant::now();
    for operation in 0..TIMED_OPERATIONS {
        let input = MemoryInput::working_memory(format!("conversation-{}", CONVERSATIONS - 1 - operation));
        if operation % 2 == 0 {
            runtime.memory().retrieve(&input).await?;
        } else {
            runtime.memory().store(input.with_data("a shorter text")).await?;
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / TIMED_OPERATIONS as f64)
}

/// Starts many background tasks that all wait; returns how many ran concurrently and how many were rejected.
async fn run_background(runtime: &Arshai) -> (usize, usize) {
    let (release, released) = watch::channel(false);
    let audit = Function::new("audit", move |_: Value| {
        let mut released = released.clone();
        async move {
            // The sender is dropped after all tasks were counted.
            let waited = released.wait_for(|released| *released).await;
            waited.map(|_| Value::Null)
        }
    });
    let calls = (0..BACKGROUND_CALLS).map(|n| FunctionCall::new("audit", json!({"n": n})).in_background());
    let input = FunctionExecutionInput::new(calls.collect(), Functions::new())
        .with_background_tasks(Functions::new().with(audit));
    let result = runtime.tasks().execute_functions(input).await;
    let running = runtime.tasks().active_background_tasks_count();
    // A task that has not been polled yet must see it too.
    release.send_replace(true);
    runtime.tasks().wait_for_background_tasks(Some(Duration::from_secs(10))).await;
    runtime.tasks().close(Deadline::after(Duration::from_secs(1))).await;
    (running, result.failed_functions.len())
}

/// The resident set of this process in bytes; zero where the system does not say.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
