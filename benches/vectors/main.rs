//! The embedded vector store: beside a scan with SIMD, a plain one, and a graph index.
//!
//! ```text
//! cargo bench --bench vectors -- --quick
//! cargo bench --bench vectors -- disk
//! ```
//!
//! With a word, only cases whose names contain it run.

mod data;
mod disk;
mod peers;
mod stalls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arshai::backends::vectors::EmbeddedStore;
use arshai::vectors::{Collection, CollectionConfig, Filter, SearchRequest, VectorStore};
use arshai_benches::{Bench, Better, Contender, child_case, in_child, ns_per_op, resident_bytes};
use tokio::runtime::Runtime;

use data::{DIM, FILTERS, LIMIT};
use peers::{Graph, HNSW, LOOP, SIMSIMD, brute_force, plain_dot, recall, simsimd_dot};

const MAX_BYTES: u64 = 4 << 30;

/// What a program would do instead of a filter.
type ByHand = fn(&serde_json::Map<String, serde_json::Value>) -> bool;

fn main() {
    if let Some(case) = child_case() {
        return memory_child(&case);
    }
    let mut bench = Bench::from_args("vectors");
    let word = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let wanted = |case: &str| word.as_ref().is_none_or(|word| case.contains(word.as_str()));
    let rows = if bench.is_quick() { 20_000 } else { 100_000 };
    if wanted("filters") {
        filters(&mut bench);
    }
    if wanted("memory") {
        memory(&mut bench);
    }
    if wanted("search") || wanted("stalls") || wanted("insert") {
        let vectors = data::vectors(rows, 2);
        if wanted("insert") {
            inserts(&mut bench, &vectors);
        }
        if wanted("search") {
            searches(&mut bench, &vectors);
        }
        if wanted("stalls") {
            stalls::measure(&mut bench, &vectors);
        }
    }
    if wanted("disk") {
        let rows = if bench.is_quick() { 5_000 } else { 50_000 };
        disk::measure(&mut bench, rows);
    }
    bench.finish();
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A collection of these vectors.
pub(crate) async fn fill(store: &EmbeddedStore, vectors: &[Vec<f32>]) -> Arc<dyn Collection> {
    let config = CollectionConfig::new("searched", DIM);
    let collection = store.get_or_create_collection(&config).await.expect("created");
    for (n, batch) in vectors.chunks(1_000).enumerate() {
        let entity = |(i, vector): (usize, &Vec<f32>)| data::entity(n * 1_000 + i, vector);
        collection.insert_entities(batch.iter().enumerate().map(entity).collect()).await.expect("inserted");
    }
    collection
}

/// The numbers of the rows that ours finds.
async fn search(collection: &dyn Collection, query: &[f32], filter: Option<&Filter>) -> Vec<usize> {
    let mut request = SearchRequest::new(query.to_vec()).with_limit(LIMIT);
    request.filter = filter.cloned();
    let hits = collection.search_by_vector(request).await.expect("found");
    let number =
        |hit: &arshai::vectors::Hit| hit.fields["metadata"]["number"].as_u64().expect("a number") as usize;
    hits[0].iter().map(number).collect()
}

/// Searches by one caller: on one core, on all, and with a filter.
fn searches(bench: &mut Bench, vectors: &[Vec<f32>]) {
    let runtime = runtime();
    let (one, all) = (EmbeddedStore::with_threads(MAX_BYTES, 1, 1), EmbeddedStore::new(MAX_BYTES));
    let queries = data::vectors(if bench.is_quick() { 20 } else { 50 }, 3);
    let began = Instant::now();
    let graph = Graph::new(vectors, 100);
    println!("  the graph was built in {:.1} s on all cores", began.elapsed().as_secs_f64());
    let collections = [("flat", &one), ("partitioned", &all)];
    for (case, store) in collections {
        let collection = runtime.block_on(fill(store, vectors));
        for (case, filter) in [
            (format!("{case}_100kx384"), None),
            (format!("{case}_filter_1pct_100kx384"), Some(data::one_percent())),
        ] {
            let is_match = |number| filter.is_none() || data::is_one_percent(number);
            let ours = |query: &Vec<f32>| runtime.block_on(search(&*collection, query, filter.as_ref()));
            let simsimd = |query: &Vec<f32>| brute_force(vectors, query, simsimd_dot, is_match);
            let plain = |query: &Vec<f32>| brute_force(vectors, query, plain_dot, is_match);
            let by_graph = |query: &Vec<f32>| graph.search(query, is_match);
            let micros = |search: &dyn Fn(&Vec<f32>) -> Vec<usize>| {
                let work = || queries.iter().for_each(|query| drop(std::hint::black_box(search(query))));
                ns_per_op(queries.len(), work) / 1_000.0
            };
            let contenders: Vec<Contender<'_>> = vec![
                ("ours", Box::new(|| micros(&ours))),
                (SIMSIMD, Box::new(|| micros(&simsimd))),
                (LOOP, Box::new(|| micros(&plain))),
                (HNSW, Box::new(|| micros(&by_graph))),
            ];
            bench.compare(&case, "us", Better::Lower, contenders);
            bench.target(SIMSIMD, 1.0);
            let truth: Vec<_> = queries.iter().map(plain).collect();
            let found = |search: &dyn Fn(&Vec<f32>) -> Vec<usize>| {
                recall(&queries.iter().map(search).collect::<Vec<_>>(), &truth)
            };
            let peers = BTreeMap::from([(HNSW.to_owned(), found(&by_graph))]);
            bench.record(&format!("{case}_recall"), "", Better::Higher, found(&ours), peers);
        }
    }
}

/// Rows a second into memory, beside copying the vectors and building a graph of them.
fn inserts(bench: &mut Bench, vectors: &[Vec<f32>]) {
    let runtime = runtime();
    let vectors = &vectors[..vectors.len().min(20_000)];
    let rate = |work: &dyn Fn()| 1e9 / ns_per_op(vectors.len(), work);
    let contenders: Vec<Contender<'_>> = vec![
        (
            "ours",
            Box::new(|| rate(&|| drop(runtime.block_on(fill(&EmbeddedStore::new(MAX_BYTES), vectors))))),
        ),
        (
            "Vec of vectors and JSON maps",
            Box::new(|| {
                let row = |(n, vector): (usize, &Vec<f32>)| (data::fields(n), vector.clone());
                rate(&|| drop(std::hint::black_box(vectors.iter().enumerate().map(row).collect::<Vec<_>>())))
            }),
        ),
    ];
    bench.compare("bulk_insert_20kx384", "rows/s", Better::Higher, contenders);
    let began = Instant::now();
    drop(std::hint::black_box(Graph::new(vectors, 100)));
    println!(
        "  (a graph of the same rows: {:.0} rows/s on all cores)",
        vectors.len() as f64 / began.elapsed().as_secs_f64()
    );
}

/// Bytes of the process per row with a text and metadata.
fn memory(bench: &mut Bench) {
    let peers = BTreeMap::from([
        ("Vec of vectors and JSON maps".to_owned(), in_child("memory vec")),
        (HNSW.to_owned() + ", vectors alone", in_child("memory graph")),
        ("the floats".to_owned(), (DIM * 4) as f64),
    ]);
    bench.record("memory_per_row_50kx384", "bytes", Better::Lower, in_child("memory ours"), peers);
    let counted = in_child("memory counted");
    bench.record("memory_counted_per_row", "bytes", Better::Lower, counted, BTreeMap::new());
}

fn memory_child(case: &str) {
    const ROWS: usize = 50_000;
    let before = resident_bytes();
    // One vector at a time, so that nothing but the rows stays.
    let batches = || (0..ROWS / 1_000).map(|n| (n * 1_000, data::vectors(1_000, n as u64)));
    let figure = match case {
        "memory vec" => {
            let rows: Vec<_> = batches()
                .flat_map(|(first, vectors)| {
                    vectors.into_iter().enumerate().map(move |(i, vector)| (data::fields(first + i), vector))
                })
                .collect();
            let after = resident_bytes();
            drop(std::hint::black_box(rows));
            after - before
        }
        "memory graph" => {
            let vectors: Vec<_> = batches().flat_map(|(_, vectors)| vectors).collect();
            let graph = Graph::new(&vectors, 100);
            drop(vectors);
            let after = resident_bytes();
            drop(std::hint::black_box(graph));
            after - before
        }
        _ => {
            let (runtime, store) = (runtime(), EmbeddedStore::new(MAX_BYTES));
            runtime.block_on(async {
                let config = CollectionConfig::new("c", DIM);
                let collection = store.get_or_create_collection(&config).await.expect("created");
                for (first, vectors) in batches() {
                    let entity = |(i, vector): (usize, &Vec<f32>)| data::entity(first + i, vector);
                    let entities = vectors.iter().enumerate().map(entity).collect();
                    collection.insert_entities(entities).await.expect("inserted");
                }
            });
            if case == "memory counted" { store.stats().bytes } else { resident_bytes() - before }
        }
    };
    println!("{}", figure as f64 / ROWS as f64);
}

/// Parsing a filter, and rows a second that it is evaluated on.
fn filters(bench: &mut Bench) {
    let rows: Vec<_> = (0..50_000).map(data::fields).collect();
    for (name, text) in FILTERS {
        let parse = || {
            let work = || (0..1_000).for_each(|_| drop(std::hint::black_box(Filter::parse(text))));
            ns_per_op(1_000, work)
        };
        bench.compare(&format!("filter_parse_{name}"), "ns", Better::Lower, vec![("ours", Box::new(parse))]);
        let filter = Filter::parse(text).expect("valid");
        let evaluate = || {
            let work = || {
                std::hint::black_box(rows.iter().filter(|row| filter.matches(*row)).count());
            };
            1e9 / ns_per_op(rows.len(), work)
        };
        // The same in Rust, for the two that are one line of it.
        let by_hand: Option<ByHand> = match name {
            "compare" => Some(|row| row["metadata"]["percent"].as_i64() == Some(7)),
            "like" => Some(|row| {
                row["content"].as_str().is_some_and(|text| text.contains("sentence that was lost"))
            }),
            _ => None,
        };
        let mut contenders: Vec<Contender<'_>> = vec![("ours", Box::new(evaluate))];
        if let Some(by_hand) = by_hand {
            let rows = &rows;
            let work = move || {
                let work = || {
                    std::hint::black_box(rows.iter().filter(|row| by_hand(row)).count());
                };
                1e9 / ns_per_op(rows.len(), work)
            };
            contenders.push(("the same in Rust", Box::new(work)));
        }
        bench.compare(&format!("filter_evaluate_{name}"), "rows/s", Better::Higher, contenders);
    }
}
