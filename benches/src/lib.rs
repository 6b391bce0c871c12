//! What every bench shares: interleaved rounds, medians, one table and one JSON file.

mod callers;
pub mod http_server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use callers::{Measured, Tails, measure};

/// Which way a figure should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Times and bytes.
    Lower,
    /// Rates and ratios of hits.
    Higher,
}

/// One measured case.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    unit: &'static str,
    better: Better,
    ours: f64,
    peers: BTreeMap<String, f64>,
    #[serde(skip)]
    targets: Vec<(String, f64)>,
}

#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    cpu: String,
    memory_gib: u64,
}

/// A bench: its rows so far, and how long it may take.
#[derive(Debug)]
pub struct Bench {
    name: &'static str,
    quick: bool,
    rows: Vec<Row>,
}

/// A named contender: runs once and gives one figure.
pub type Contender<'a> = (&'a str, Box<dyn FnMut() -> f64 + 'a>);

impl Bench {
    /// A bench of that name; `--quick` on the command line shortens it.
    #[must_use]
    pub fn from_args(name: &'static str) -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        println!("bench {name}{}", if quick { " (quick)" } else { "" });
        Self { name, quick, rows: Vec::new() }
    }

    /// Whether to be quick: same rows, smaller work.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// Rounds per contender.
    #[must_use]
    pub fn rounds(&self) -> usize {
        if self.quick { 5 } else { 9 }
    }

    /// Runs the contenders in turn, round by round, and keeps each one's median. The first contender is ours.
    pub fn compare(&mut self, case: &str, unit: &'static str, better: Better, mut all: Vec<Contender<'_>>) {
        let mut figures = vec![Vec::new(); all.len()];
        let contenders = all.len();
        for round in 0..self.rounds() {
            // Each round starts with another one, so that none always follows the same neighbour.
            for at in (0..contenders).map(|turn| (round + turn) % contenders) {
                figures[at].push((all[at].1)());
            }
        }
        let mut medians = figures.into_iter().map(median);
        let ours = medians.next().unwrap_or(f64::NAN);
        let peers = all.iter().skip(1).map(|(name, _)| (*name).to_owned()).zip(medians).collect();
        self.record(case, unit, better, ours, peers);
    }

    /// Keeps a row measured elsewhere.
    pub fn record(
        &mut self,
        case: &str,
        unit: &'static str,
        better: Better,
        ours: f64,
        peers: BTreeMap<String, f64>,
    ) {
        let peers_text: Vec<_> = peers
            .iter()
            .map(|(name, figure)| format!("{name} {} (ours is {:.2} x)", show(*figure), ours / figure))
            .collect();
        println!("  {case:<34} {:>12} {unit:<8} {}", show(ours), peers_text.join("; "));
        self.rows.push(Row { case: case.to_owned(), unit, better, ours, peers, targets: Vec::new() });
    }

    /// Adds a peer to the last row that was measured apart from it: one that takes too long for as many rounds.
    pub fn peer(&mut self, name: &str, figure: f64) {
        if let Some(row) = self.rows.last_mut() {
            println!(
                "  {:<34} {:>12} {name} {} (ours is {:.2} x)",
                row.case,
                "",
                show(figure),
                row.ours / figure
            );
            row.peers.insert(name.to_owned(), figure);
        }
    }

    /// Says what the last row should reach: `ours` at most (or at least) `factor` times `peer`. May be called
    /// once per peer.
    pub fn target(&mut self, peer: &str, factor: f64) {
        if let Some(row) = self.rows.last_mut() {
            row.targets.push((peer.to_owned(), factor));
        }
    }

    /// Prints the targets and writes `target/bench/NAME.json`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn finish(self) {
        let targets = self.rows.iter().flat_map(|row| row.targets.iter().map(move |target| (row, target)));
        for (row, (peer, factor)) in targets {
            let Some(figure) = row.peers.get(peer) else { continue };
            let ratio = row.ours / figure;
            let met = if row.better == Better::Lower { ratio <= *factor } else { ratio >= *factor };
            let verdict = if met { "met" } else { "MISSED" };
            println!("  target {:<27} {ratio:.2} x {peer}, wanted {factor:.2} x: {verdict}", row.case);
        }
        let folder = target_folder().join("bench");
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        let file = folder.join(format!("{}.json", self.name));
        let json = serde_json::json!({"bench": self.name, "machine": machine(), "rows": self.rows});
        let text = serde_json::to_string_pretty(&json).expect("rows are plain JSON");
        std::fs::write(&file, text).expect("the bench file can be written");
        println!("wrote {}", file.display());
    }
}

fn show(figure: f64) -> String {
    match figure.abs() {
        x if x >= 1000.0 => format!("{figure:.0}"),
        x if x >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.3}"),
    }
}

fn target_folder() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn machine() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        text.lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split(':').nth(1))
            .map(|value| value.trim().to_owned())
    };
    let kib: Option<u64> = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|value| value.split(' ').next().and_then(|n| n.parse().ok()));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
        memory_gib: kib.unwrap_or(0) / (1 << 20),
    }
}

/// Waits until the machine has little to do, at most 30 seconds: after an insert, a server builds indexes and frees what
/// was dropped, which the next contender would pay for.
///
/// # Panics
/// Where there is no `/proc/stat`.
pub fn settle() {
    const BUSY: f64 = 0.2;
    let ticks = || {
        let text = std::fs::read_to_string("/proc/stat").expect("a Linux machine");
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        // User, nice, system, idle, waiting for a disk and so on.
        (ticks[3] + ticks[4], ticks.iter().take(8).sum::<f64>())
    };
    for _ in 0..60 {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(500));
        let after = ticks();
        if (after.0 - before.0) / (after.1 - before.1) > 1.0 - BUSY {
            return;
        }
    }
}

/// The middle of `figures`.
#[must_use]
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds per operation of `work`, which runs `operations` of them.
pub fn ns_per_op(operations: usize, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_nanos() as f64 / operations as f64
}

/// Runs `work` on `threads` threads at once, started together; gives the time from the first one's start to
/// the last one's end.
///
/// # Panics
/// When `work` does.
pub fn on_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = std::sync::Barrier::new(threads);
    let run = |thread| {
        barrier.wait();
        let began = Instant::now();
        work(thread);
        (began, Instant::now())
    };
    let spans: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || run(thread))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("the work does not panic")).collect()
    });
    let first = spans.iter().map(|(began, _)| *began).min();
    let last = spans.iter().map(|(_, ended)| *ended).max();
    last.zip(first).map_or(Duration::ZERO, |(last, first)| last - first)
}

/// The resident set of this process, in bytes.
///
/// # Panics
/// Where there is no `/proc/self/statm`.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("a Linux machine");
    let pages: u64 = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("statm has a second field");
    pages * 4096
}

/// Runs one measurement in a fresh process of this very bench and gives the figure it prints: for resident
/// memory, which a process never gets back to where it was. The bench calls [`child_case`] first thing.
///
/// # Panics
/// When the process fails or prints no figure.
#[must_use]
pub fn in_child(case: &str) -> f64 {
    in_child_figures(case)[0]
}

/// As [`in_child`], for a measurement that prints several figures.
///
/// # Panics
/// As [`in_child`].
#[must_use]
pub fn in_child_figures(case: &str) -> Vec<f64> {
    let exe = std::env::current_exe().expect("a running program has a path");
    let output =
        std::process::Command::new(exe).args(["--child", case]).output().expect("the bench can start itself");
    assert!(output.status.success(), "child {case}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<_> = text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
    assert!(!figures.is_empty(), "the child prints a figure");
    figures
}

/// The case this process was started for by [`in_child`], if it was.
#[must_use]
pub fn child_case() -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--child");
    arguments.nth(1)
}
