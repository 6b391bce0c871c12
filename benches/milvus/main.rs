//! Bulk inserts and searches in Milvus, on one server in one run: against the bare SDK by columns, Python arshai and
//! what `ARSHAI_DISABLE_OPTIMIZATIONS` selects.
//!
//! ```text
//! cargo bench --bench milvus -- --quick
//! cargo bench --bench milvus -- bulk_1m
//! ```
//!
//! The second one only measures the client's memory while it inserts a stream of a million entities.

mod contenders;
mod python;
mod rows;

use std::collections::BTreeMap;
use std::rc::Rc;

use arshai_benches::{Bench, Better, Contender, Tails, child_case, in_child_figures, measure};
use arshai_test_support::MilvusServer;
use tokio::runtime::Runtime;

use contenders::{Ours, Sdk};

const SDK: &str = "milvus-sdk-rust 3.0.3 by columns";
const PYTHON: &str = "arshai-python 1.15.0";
const LEGACY: &str = "ARSHAI_DISABLE_OPTIMIZATIONS";
/// How much more memory than the bare SDK the client may hold.
const MORE_MEMORY_MIB: f64 = 20.0;

fn main() {
    if let Some(case) = child_case() {
        return child(&case);
    }
    let server = MilvusServer::full();
    if std::env::args().any(|argument| argument == "bulk_1m") {
        let mut bench = Bench::from_args("milvus_bulk_1m");
        million(&mut bench, server.port());
        return bench.finish();
    }
    let mut bench = Bench::from_args("milvus");
    let rows = if bench.is_quick() { 10_000 } else { 50_000 };
    inserts(&mut bench, server.port(), rows);
    client_costs(&mut bench, server.port(), rows);
    searches(&mut bench, server.port(), rows);
    bench.finish();
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts")
}

/// Rows a second until all are acknowledged, and until they are flushed. Each insert fills a collection of its own.
fn inserts(bench: &mut Bench, port: u16, rows: usize) {
    let runtime = Rc::new(runtime());
    let ours = runtime.block_on(Ours::connect(port, false));
    let legacy = runtime.block_on(Ours::connect(port, true));
    let sdk = runtime.block_on(Sdk::connect(port));
    let fill_ours = |flush| runtime.block_on(ours.in_new_collection(|name| ours.fill(name, rows, flush)));
    let fill_sdk = |flush| runtime.block_on(ours.in_new_collection(|name| sdk.fill(name, rows, flush)));
    let contenders: Vec<Contender<'_>> = vec![
        ("ours", Box::new(|| fill_ours(false))),
        (SDK, Box::new(|| fill_sdk(false))),
        (PYTHON, Box::new(|| python::fill(port, rows).rate_without_flush)),
    ];
    bench.compare("bulk_50kx384", "rows/s", Better::Higher, contenders);
    bench.target(SDK, 0.95);

    // A flush takes seconds, of the server alone: fewer rounds.
    let rounds = if bench.is_quick() { 1 } else { 3 };
    let median = |mut fill: Box<dyn FnMut() -> f64 + '_>| {
        arshai_benches::median((0..rounds).map(|_| fill()).collect())
    };
    let figure = median(Box::new(|| fill_ours(true)));
    let fill_legacy = || runtime.block_on(ours.in_new_collection(|name| legacy.fill(name, rows, true)));
    let peers = BTreeMap::from([
        (SDK.to_owned(), median(Box::new(|| fill_sdk(true)))),
        (PYTHON.to_owned(), median(Box::new(|| python::fill(port, rows).rate))),
        (LEGACY.to_owned(), median(Box::new(fill_legacy))),
    ]);
    bench.record("bulk_50kx384_flushed", "rows/s", Better::Higher, figure, peers);
    bench.target(SDK, 0.95);
}

/// The processor time and memory of the client, each in a process of its own.
fn client_costs(bench: &mut Bench, port: u16, rows: usize) {
    let [ours, sdk] =
        ["ours", "sdk"].map(|contender| in_child_figures(&format!("{contender} {port} {rows}")));
    let python = python::fill(port, rows);
    let peers = |sdk, python| BTreeMap::from([(SDK.to_owned(), sdk), (PYTHON.to_owned(), python)]);
    let case = "bulk_50kx384_client_cpu";
    bench.record(case, "us/row", Better::Lower, ours[0], peers(sdk[0], python.cpu_micros_per_row));
    let case = "bulk_50kx384_client_memory";
    bench.record(case, "MiB", Better::Lower, ours[1], peers(sdk[1], python.peak_mib));
    bench.target(SDK, (sdk[1] + MORE_MEMORY_MIB) / sdk[1]);
}

fn million(bench: &mut Bench, port: u16) {
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
    let (for_ours, for_sdk) = (&runtime(), &runtime());
    let ours = for_ours.block_on(Ours::connect(port, false));
    for_ours.block_on(async {
        ours.create(NAME).await;
        ours.fill(NAME.to_owned(), rows, true).await;
    });
    let collection = for_ours.block_on(ours.open(NAME));
    let sdk = for_sdk.block_on(Sdk::connect(port));
    for callers in [1, 20, 100] {
        let each = if callers == 1 { 200 } else { 2_000 / callers } / if bench.is_quick() { 2 } else { 1 };
        let tails = Tails::default();
        let contenders: Vec<Contender<'_>> = vec![
            ("ours", {
                let (collection, tails) = (&collection, &tails);
                let work = move || {
                    let collection = collection.clone();
                    let search = move |caller| contenders::search_ours(collection.clone(), caller);
                    tails.note("ours", measure(for_ours, callers, each, search))
                };
                Box::new(work)
            }),
            (SDK, {
                let (sdk, tails) = (&sdk, &tails);
                let work = move || {
                    let sdk = sdk.clone();
                    let search = move |caller| sdk.clone().search(NAME, caller);
                    tails.note(SDK, measure(for_sdk, callers, each, search))
                };
                Box::new(work)
            }),
            (PYTHON, Box::new(move || python::search(port, NAME, callers))),
        ];
        let case = format!("search_{callers}callers");
        bench.compare(&case, "1/s", Better::Higher, contenders);
        bench.target(SDK, 0.95);
        tails.record(bench, &case, "ours");
    }
}
