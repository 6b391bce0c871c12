//! The process grows by no more than the byte limit of the in-process store, a tenth and 4 MiB, and keeps no more than a
//! tenth once the store is cleared.
//!
//! Each measurement runs in a separate process: this test binary, started again with the workload in a variable.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arshai::backends::memory::InMemoryManager;
use arshai::memory::{MemoryType, WorkingMemory};

const WORKING: MemoryType = MemoryType::WorkingMemory;
const MIB: u64 = 1 << 20;
const VARIABLE: &str = "ARSHAI_TEST_MEMORY_GROWTH";

/// Sizes of texts in bytes, from and to, one range after the other.
const WORKLOADS: [(&str, &[(u64, u64)]); 4] = [
    ("texts", &[(200, 12_000)]),
    ("small", &[(0, 300)]),
    ("large", &[(0, MIB)]),
    ("phases", &[(100, 400), (3_000, 9_000), (200, 1_000), (50_000, 200_000), (400, 2_000)]),
];

/// Runs a workload in a separate process.
fn run(workload: &str, mebibytes: u64, threads: usize, seconds: u64) {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "memory_growth::child", "--nocapture", "--include-ignored"])
        .env(VARIABLE, format!("{workload} {mebibytes} {threads} {seconds}"))
        .output()
        .expect("this test can be started again");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{workload} {mebibytes} MiB {threads} threads: {text}");
    text.lines().filter(|line| line.contains("grew")).for_each(|line| println!("{line}"));
}

fn run_all(budgets: &[u64], threads: &[usize], seconds: u64) {
    for (workload, _) in WORKLOADS {
        for mebibytes in budgets {
            for threads in threads {
                run(workload, *mebibytes, *threads, seconds);
            }
        }
    }
}

#[test]
fn the_process_stays_within_the_limit_whatever_the_sizes_of_texts() {
    run_all(&[10], &[2, 4], 1);
    run("texts", 100, 2, 3);
    run("texts", 100, 4, 3);
    run("phases", 100, 2, 5);
}

#[test]
#[ignore = "hours: ten minutes for each of 48 workloads"]
fn the_process_stays_within_the_limit_for_ten_minutes() {
    run_all(&[10, 100, 500], &[1, 2, 4, 8], 600);
}

/// The workload of one process.
#[test]
#[ignore = "started by the tests above"]
fn child() {
    let Ok(settings) = std::env::var(VARIABLE) else { return };
    let mut settings = settings.split(' ');
    let mut next = || settings.next().expect("four settings");
    let workload = next();
    let [mebibytes, threads, seconds] = [(); 3].map(|()| next().parse::<u64>().expect("a number"));
    let (_, phases) = WORKLOADS.iter().find(|(name, _)| *name == workload).expect("a workload");
    // Texts exist before the measurement begins: what the application holds does not count.
    let text = |bytes: u64| WorkingMemory::new("x".repeat(bytes as usize));
    let texts: Vec<Vec<_>> = phases
        .iter()
        .map(|(from, to)| (0..64).map(|n| text(from + (to - from) * n / 63)).collect())
        .collect();

    let before = resident();
    let memory =
        InMemoryManager::builder().max_entries(None).max_memory_mb(mebibytes).build().expect("valid");
    let (began, ends) = (Instant::now(), Duration::from_secs(seconds));
    let peak = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (memory, texts, peak) = (&memory, &texts, &peak);
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut below = |n: u64| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> 33) % n
                };
                let ids = mebibytes * 2_000;
                while began.elapsed() < ends {
                    let phase =
                        began.elapsed().as_millis() as usize * phases.len() / ends.as_millis() as usize;
                    let texts = &texts[phase.min(phases.len() - 1)];
                    for _ in 0..64 {
                        let id = below(ids).to_string();
                        std::hint::black_box(memory.get(WORKING, &id));
                        memory.put(WORKING, &id, texts[below(64) as usize].clone()).expect("it stores");
                    }
                    peak.fetch_max(resident(), Relaxed);
                }
            });
        }
    });
    let grown = |resident: u64| resident.saturating_sub(before) as f64 / MIB as f64;
    let (peak, limit) = (grown(peak.into_inner()), mebibytes as f64);
    memory.clear();
    let left = grown(resident());
    println!(
        "{workload}, {mebibytes} MiB, {threads} threads: grew by {peak:.1} MiB, {left:.1} MiB after clear"
    );
    assert!(peak <= limit * 1.1 + 4.0, "grew by {peak:.1} MiB");
    // The threads of this test leave up to a mebibyte.
    assert!(left <= limit * 0.1 + 1.0, "{left:.1} MiB remain after clear");
}

/// The process's own memory in bytes: the resident set without the pages of files, which grow as code is first run.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: Vec<u64> =
        statm.split(' ').skip(1).take(2).map(|pages| pages.parse().expect("a number")).collect();
    (pages[0] - pages[1]) * 4096
}
