//! Weeks of churn in seconds: a full store under texts of all sizes. How far the process grows, how fast it goes, and
//! what remains after `clear`. Each contender runs in a separate process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arshai_benches::{Bench, Better, in_child, in_child_figures, on_threads, resident_bytes};

use crate::contenders::{Contender, HASHLINK, Limit, MOKA, Peers, QUICK, ids, make};
use crate::{MIB, OURS, Random, text};

const BUDGET: u64 = 100 << 20;
const NAMES: [&str; 4] = [OURS, QUICK, MOKA, HASHLINK];

/// Sizes of texts in bytes, one range after the other.
const MIXED: &[(usize, usize)] = &[(200, 12_000)];
const PHASES: &[(usize, usize)] = &[(100, 400), (3_000, 9_000), (200, 1_000), (20_000, 80_000), (400, 2_000)];

pub(crate) fn churn(bench: &mut Bench) {
    let seconds = if bench.is_quick() { 1 } else { 10 };
    for threads in [2, 4] {
        let run = |name| in_child_figures(&format!("churn_mixed/{name}/{threads}/{seconds}"));
        let figures = NAMES.map(run);
        let column = |at: usize| figures.iter().map(|figures| figures[at]).collect();
        record(bench, &format!("churn_mixed_rss_{threads}threads"), "MiB", column(0));
        record(bench, &format!("churn_mixed_ops_{threads}threads"), "Mops/s", column(1));
    }
    let phases = NAMES.map(|name| in_child_figures(&format!("churn_phases/{name}/2/{}", 2 * seconds))[0]);
    record(bench, "churn_phases_rss", "MiB", phases.into());
    let cleared = NAMES.map(|name| in_child(&format!("clear_rss/{name}")));
    record(bench, "clear_rss", "MiB", cleared.into());
}

fn record(bench: &mut Bench, case: &str, unit: &'static str, mut figures: Vec<f64>) {
    let ours = figures.remove(0);
    let mut peers: Peers = NAMES[1..].iter().map(|name| (*name).to_owned()).zip(figures).collect();
    match unit {
        "MiB" => {
            peers.insert("budget".into(), BUDGET as f64 / MIB);
            bench.record(case, unit, Better::Lower, ours, peers);
            bench.target("budget", if case == "clear_rss" { 0.1 } else { 1.14 });
        }
        _ => {
            bench.record(case, unit, Better::Higher, ours, peers);
            bench.target(QUICK, 1.0);
        }
    }
}

/// Peak growth in MiB and millions of operations a second.
pub(crate) fn child(case: &str, name: &str, threads: usize, seconds: u64) -> Vec<f64> {
    let phases = if case == "churn_phases" { PHASES } else { MIXED };
    // Twice as many conversations as fit, in each phase.
    let ids = ids(400_000);
    let before = resident_bytes();
    let store = make(name, Limit::Bytes(BUDGET), None);
    let (peak, operations) = (AtomicU64::new(0), AtomicU64::new(0));
    let (began, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let took = on_threads(threads, |thread| {
        let mut random = Random(thread as u64);
        while began.elapsed() < lasts {
            let phase = began.elapsed().as_millis() as usize * phases.len() / lasts.as_millis() as usize;
            let (from, to) = phases[phase.min(phases.len() - 1)];
            let conversations = (2 * BUDGET as usize / ((from + to) / 2)).min(ids.len());
            for _ in 0..256 {
                let id = &ids[random.below(conversations)];
                std::hint::black_box(store.get(id));
                store.set(id, &text(from + random.below(to - from)));
            }
            operations.fetch_add(512, Relaxed);
            peak.fetch_max(resident_bytes(), Relaxed);
        }
    });
    let grown = peak.into_inner().saturating_sub(before) as f64 / MIB;
    vec![grown, operations.into_inner() as f64 / took.as_secs_f64() / 1e6]
}

/// MiB that remain after a full store of small and large texts was cleared.
pub(crate) fn child_clear(name: &str) -> f64 {
    let ids = ids(300_000);
    let before = resident_bytes();
    let store: Arc<dyn Contender> = make(name, Limit::Bytes(BUDGET), None).into();
    on_threads(2, |thread| {
        let mut random = Random(thread as u64);
        for id in ids.iter().skip(thread).step_by(2) {
            store.set(id, &text(if random.below(10) == 0 { 5_000 } else { 100 }));
        }
    });
    store.clear();
    store.settle();
    resident_bytes().saturating_sub(before) as f64 / MIB
}
