//! The process grows by no more than the byte limit of the in-process store, a tenth and 4 MiB, and keeps no more than a
//! tenth once the store is cleared.
//!
//! Each measurement runs in a separate process: this test binary, started again with the workload in a variable.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arshai::Component;
use arshai::backends::memory::InMemoryManager;
use arshai::memory::{MemoryType, WorkingMemory};

const WORKING: MemoryType = MemoryType::WorkingMemory;
const MIB: u64 = 1 << 20;
const VARIABLE: &str = "ARSHAI_TEST_MEMORY_GROWTH";
/// The workload whose limit is lowered.
const LOWERED: &str = "lowered";

/// Sizes of texts in bytes, from and to, one range after the other.
const WORKLOADS: [(&str, &[(u64, u64)]); 4] = [
    ("texts", &[(200, 12_000)]),
    ("small", &[(0, 300)]),
    ("large", &[(0, MIB)]),
    ("phases", &[(100, 400), (3_000, 9_000), (200, 1_000), (50_000, 200_000), (400, 2_000)]),
];

/// Runs workloads, each in a separate process, all at the same time.
fn run(workloads: impl IntoIterator<Item = String>) {
    let start = |workload| {
        Command::new(std::env::current_exe().expect("it runs"))
            .args(["--exact", "memory_growth::child", "--nocapture", "--include-ignored"])
            .env(VARIABLE, workload)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test can be started again")
    };
    let children: Vec<_> = workloads.into_iter().map(start).collect();
    let mut failed = String::new();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let text = [&*output.stdout, b"\n", &*output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        text.lines().filter(|line| line.contains(" left")).for_each(|line| println!("{line}"));
        if !output.status.success() {
            failed += &text;
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// Every workload with these limits in MiB and numbers of threads.
fn all(limits: &[u64], threads: &[u64], seconds: u64) -> Vec<String> {
    let mut all = Vec::new();
    for (workload, _) in WORKLOADS {
        for limit in limits {
            all.extend(threads.iter().map(|threads| format!("{workload} {limit} {threads} {seconds}")));
        }
    }
    all
}

#[test]
fn the_process_stays_within_the_limit_whatever_the_sizes_of_texts() {
    run(all(&[10], &[2, 4], 4));
    run(["texts 100 2 6", "texts 100 4 6", "phases 100 2 10", LOWERED].map(str::to_owned));
}

#[test]
#[ignore = "ten minutes, and 12 GiB of memory"]
fn the_process_stays_within_the_limit_for_ten_minutes() {
    run(all(&[10, 100, 500], &[1, 2, 4, 8], 600));
}

/// The workload of one process.
#[test]
#[ignore = "started by the tests above"]
fn child() {
    let Ok(settings) = std::env::var(VARIABLE) else { return };
    if settings == LOWERED {
        return lower_the_limit();
    }
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
        "{workload}, {mebibytes} MiB, {threads} threads: grew by {peak:.1} MiB, {left:.1} MiB left after clear"
    );
    // A thread has the text that it reads twice for a moment. Within minutes each is interrupted then, and the heap keeps
    // that memory.
    let largest = phases.iter().map(|(_, to)| to).max().expect("sizes");
    let callers = if seconds < 60 { 0.0 } else { (2 * threads * largest) as f64 / MIB as f64 };
    assert!(peak <= limit * 1.1 + 4.0 + callers, "grew by {peak:.1} MiB");
    assert!(left <= limit * 0.1 + 2.0 + callers, "{left:.1} MiB remain after clear");
}

/// Lowers the limit of a full store in steps.
fn lower_the_limit() {
    let before = resident();
    let memory = InMemoryManager::builder().max_entries(None).max_memory_mb(200).build().expect("valid");
    for n in 0..300_000_usize {
        let text = WorkingMemory::new("x".repeat(100 + n % 900));
        memory.put(WORKING, &n.to_string(), text).expect("it stores");
    }
    for mebibytes in [100, 30, 15, 8, 4, 2, 1] {
        memory.set_limit("memory.max_memory_mb", mebibytes * MIB).expect("a valid limit");
        // A part of the memory returns on another thread.
        let limit = mebibytes * MIB * 11 / 10 + 4 * MIB;
        let until = Instant::now() + Duration::from_secs(5);
        while resident() - before > limit && Instant::now() < until {
            std::thread::yield_now();
        }
        let grown = (resident() - before) / 1024;
        println!("lowered to {mebibytes} MiB: {grown} KiB are left");
        assert!(grown * 1024 <= limit, "{grown} KiB at a limit of {mebibytes} MiB");
    }
}

/// The process's own memory in bytes: the resident set without the pages of files, which grow as code is first run.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: Vec<u64> =
        statm.split(' ').skip(1).take(2).map(|pages| pages.parse().expect("a number")).collect();
    (pages[0] - pages[1]) * 4096
}
