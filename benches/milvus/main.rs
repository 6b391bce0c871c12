//! Bulk inserts and searches in Milvus, on one server in one run: against the bare SDK by columns, Python arshai and
//! what `ARSHAI_DISABLE_OPTIMIZATIONS` selects.
//!
//! ```text
//! cargo bench --bench milvus -- --quick
//! cargo bench --bench milvus -- inserts
//! ```
//!
//! Its parts are `inserts`, `flushed`, `costs`, `searches` and `bulk_1m`; all but the last without an argument. The last
//! one only measures the client's memory while it inserts a stream of a million entities.

mod contenders;
mod python;
mod rows;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arshai_benches::{
    Bench, Better, Contender, Tails, child_case, in_child_figures, measure, median, settle,
};
use arshai_test_support::MilvusServer;
use tokio::runtime::Runtime;

use contenders::{Ours, Sdk};

const SDK: &str = "milvus-sdk-rust 3.0.3 by columns";
const PYTHON: &str = "arshai-python 1.15.0";
const LEGACY: &str = "ARSHAI_DISABLE_OPTIMIZATIONS";
/// How much more memory than the bare SDK the client may hold.
const MORE_MEMORY_MIB: f64 = 20.0;

/// A part of the bench, on the server at a port, of so many rows.
type Part = fn(&mut Bench, u16, usize);

fn main() {
    if let Some(case) = child_case() {
        return child(&case);
    }
    let parts: [(&str, Part); 5] = [
        ("inserts", inserts),
        ("flushed", flushed_inserts),
        ("costs", client_costs),
        ("searches", searches),
        ("bulk_1m", million),
    ];
    let chosen: Vec<_> =
        parts.iter().filter(|(name, _)| std::env::args().any(|argument| argument == *name)).collect();
    let (name, chosen) = match chosen[..] {
        [] => ("milvus".to_owned(), parts.iter().take(4).collect()),
        _ => {
            (format!("milvus_{}", chosen.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("_")), chosen)
        }
    };
    let mut bench = Bench::from_args(name.leak());
    let rows = if bench.is_quick() { 10_000 } else { 50_000 };
    let server = MilvusServer::full();
    for (_, part) in chosen {
        part(&mut bench, server.port(), rows);
    }
    bench.finish();
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts")
}

/// Rows a second until all are acknowledged. Each insert fills a collection of its own.
fn inserts(bench: &mut Bench, port: u16, rows: usize) {
    let runtime = Rc::new(runtime());
    let ours = runtime.block_on(Ours::connect(port, false));
    let sdk = runtime.block_on(Sdk::connect(port));
    let contenders: Vec<Contender<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                settle();
                runtime.block_on(ours.in_new_collection(|name| ours.fill(name, rows, false)))
            }),
        ),
        (
            SDK,
            Box::new(|| {
                settle();
                runtime.block_on(ours.in_new_collection(|name| sdk.fill(name, rows, false)))
            }),
        ),
    ];
    bench.compare("bulk_50kx384", "rows/s", Better::Higher, contenders);
    bench.target(SDK, 0.95);
    settle();
    bench.peer(PYTHON, python::fill(port, rows).rate_without_flush);
}

/// Rows a second until all are flushed. A flush takes seconds, of the server alone: fewer rounds.
fn flushed_inserts(bench: &mut Bench, port: u16, rows: usize) {
    let runtime = Rc::new(runtime());
    let ours = runtime.block_on(Ours::connect(port, false));
    let legacy = runtime.block_on(Ours::connect(port, true));
    let sdk = runtime.block_on(Sdk::connect(port));
    let rounds = if bench.is_quick() { 1 } else { 3 };
    // It flushes every 50 rows, so that all of them would take an hour.
    let legacy_rows = rows / 20;
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let fills: [&dyn Fn() -> f64; 4] = [
            &|| runtime.block_on(ours.in_new_collection(|name| ours.fill(name, rows, true))),
            &|| runtime.block_on(ours.in_new_collection(|name| sdk.fill(name, rows, true))),
            &|| python::fill(port, rows).rate,
            &|| runtime.block_on(ours.in_new_collection(|name| legacy.fill(name, legacy_rows, true))),
        ];
        for (figures, fill) in figures.iter_mut().zip(fills) {
            settle();
            figures.push(fill());
        }
    }
    let [ours, sdk, python, legacy] = figures.map(median);
    let peers =
        BTreeMap::from([(SDK.to_owned(), sdk), (PYTHON.to_owned(), python), (LEGACY.to_owned(), legacy)]);
    bench.record("bulk_50kx384_flushed", "rows/s", Better::Higher, ours, peers);
    bench.target(SDK, 0.95);
}

/// The processor time and memory of the client, each in a process of its own.
fn client_costs(bench: &mut Bench, port: u16, rows: usize) {
    let rounds = if bench.is_quick() { 1 } else { 5 };
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (contender, name) in ["ours", "sdk"].into_iter().enumerate() {
            settle();
            let found = in_child_figures(&format!("{name} {port} {rows}"));
            figures[2 * contender].push(found[0]);
            figures[2 * contender + 1].push(found[1]);
        }
    }
    let [our_cpu, our_memory, sdk_cpu, sdk_memory] = figures.map(median);
    settle();
    let python = python::fill(port, rows);
    let peers = |sdk, python| BTreeMap::from([(SDK.to_owned(), sdk), (PYTHON.to_owned(), python)]);
    let case = "bulk_50kx384_client_cpu";
    bench.record(case, "us/row", Better::Lower, our_cpu, peers(sdk_cpu, python.cpu_micros_per_row));
    let case = "bulk_50kx384_client_memory";
    bench.record(case, "MiB", Better::Lower, our_memory, peers(sdk_memory, python.peak_mib));
    bench.target(SDK, (sdk_memory + MORE_MEMORY_MIB) / sdk_memory);
}

fn million(bench: &mut Bench, port: u16, _: usize) {
    let figures = in_child_figures(&format!("ours {port} 1000000"));
    bench.record("bulk_1m_client_cpu", "us/row", Better::Lower, figures[0], BTreeMap::new());
    bench.record("bulk_1m_client_memory", "MiB", Better::Lower, figures[1], BTreeMap::new());
}

/// Prints the processor time and the growth of the memory of one bulk insert.
fn child(case: &str) {
    let words: Vec<_> = case.split(' ').collect();
    let [contender, port, rows] = words[..] else { panic!("three words, not {case:?}") };
    let (port, rows) = (port.parse().expect("a port"), rows.parse().expect("a number"));
    let runtime = runtime();
    let ours = runtime.block_on(Ours::connect(port, false));
    let sdk = runtime.block_on(Sdk::connect(port));
    let before = (rows::cpu_micros(), rows::peak_mib());
    let fill = async |name: String| match contender {
        "ours" => ours.fill(name, rows, false).await,
        _ => sdk.fill(name, rows, false).await,
    };
    runtime.block_on(ours.in_new_collection(fill));
    let cpu = (rows::cpu_micros() - before.0) / rows as f64;
    println!("{cpu} {}", rows::peak_mib() - before.1);
}

/// Searches a second at several numbers of callers, all in one collection.
fn searches(bench: &mut Bench, port: u16, rows: usize) {
    const NAME: &str = "searched";
    let runtime = &runtime();
    let ours = runtime.block_on(Ours::connect(port, false));
    let legacy = runtime.block_on(Ours::connect(port, true));
    runtime.block_on(async {
        ours.create(NAME).await;
        ours.fill(NAME.to_owned(), rows, true).await;
    });
    let collections =
        [("ours", runtime.block_on(ours.open(NAME))), (LEGACY, runtime.block_on(legacy.open(NAME)))];
    let sdk = &runtime.block_on(Sdk::connect(port));
    settle();
    for callers in [1, 20, 100] {
        let each = if callers == 1 { 200 } else { 2_000 / callers } / if bench.is_quick() { 2 } else { 1 };
        let (tails, costs) = (&Tails::default(), &Costs::default());
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for (name, collection) in &collections {
            let work = move || {
                let collection = collection.clone();
                let search = move |caller| contenders::search_ours(collection.clone(), caller);
                tails.note(name, costs.note(name, callers * each, || measure(runtime, callers, each, search)))
            };
            contenders.push((*name, Box::new(work)));
        }
        let work = move || {
            let sdk = sdk.clone();
            let search = move |caller| sdk.clone().search(NAME, caller);
            tails.note(SDK, costs.note(SDK, callers * each, || measure(runtime, callers, each, search)))
        };
        contenders.insert(1, (SDK, Box::new(work)));
        let case = format!("search_{callers}callers");
        bench.compare(&case, "1/s", Better::Higher, contenders);
        bench.target(SDK, 0.95);
        bench.peer(PYTHON, median((0..3).map(|_| python::search(port, NAME, callers)).collect()));
        tails.record(bench, &case, "ours");
        costs.record(bench, &case);
    }
}

/// The client's processor time per search, by contender.
#[derive(Default)]
struct Costs(RefCell<BTreeMap<&'static str, Vec<f64>>>);

impl Costs {
    fn note<T>(&self, contender: &'static str, searches: usize, work: impl FnOnce() -> T) -> T {
        let before = rows::cpu_micros();
        let done = work();
        let cost = (rows::cpu_micros() - before) / searches as f64;
        self.0.borrow_mut().entry(contender).or_default().push(cost);
        done
    }

    fn record(&self, bench: &mut Bench, case: &str) {
        let costs = self.0.take().into_iter().map(|(name, rounds)| (name.to_owned(), median(rounds)));
        let mut peers: BTreeMap<_, _> = costs.collect();
        let ours = peers.remove("ours").expect("ours was measured");
        bench.record(&format!("{case}_client_cpu"), "us", Better::Lower, ours, peers);
    }
}
