//! Conversation memory: hits, a Zipf mix, floods, expiry, churn, freed memory, and how cost grows.
//!
//! `cargo bench --bench memory [-- --quick]`. Resident memory is measured in a fresh process per contender.

mod churn;
mod contenders;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arshai_benches::{
    Bench, Better, Contender as Run, child_case, in_child, ns_per_op, on_threads, resident_bytes,
};
use contenders::{
    COPIED, Contender, HASHLINK, LEGACY, Limit, MOKA, Peers, QUICK, exact_lru_hit_ratio, ids, make,
};
use rustix::time::{ClockId, clock_gettime};

const OURS: &str = "arshai";
const MIB: f64 = (1 << 20) as f64;
const BUDGET: u64 = 64 << 20;

fn main() {
    if let Some(case) = child_case() {
        child(&case).iter().for_each(|figure| println!("{figure}"));
        return;
    }
    let mut bench = Bench::from_args("memory");
    hits(&mut bench);
    zipf(&mut bench);
    floods(&mut bench);
    worst_operations(&mut bench);
    scale(&mut bench);
    churn::churn(&mut bench);
    bench.finish();
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn text(bytes: usize) -> Arc<str> {
    "x".repeat(bytes).into()
}

/// Keys read in random order, each there: spread over 10 000 conversations, as in a service.
fn hits(bench: &mut Bench) {
    const LIVE: usize = 10_000;
    let operations = if bench.is_quick() { 200_000 } else { 1_000_000 };
    let ids = ids(LIVE);
    let orders: Vec<Vec<u32>> = (1..=2)
        .map(|seed| {
            let mut random = Random(seed);
            (0..operations).map(|_| random.below(LIVE) as u32).collect()
        })
        .collect();
    for threads in [1, 2] {
        // Twice the entries fit, so that no contender evicts.
        let names = [OURS, QUICK, COPIED, MOKA, HASHLINK];
        let stores = names.map(|name| filled(name, Limit::Entries(2 * LIVE as u64), &ids, 1024));
        let all = names.iter().zip(&stores).map(|(name, store)| -> Run<'_> {
            let (ids, orders) = (&ids, &orders);
            let read = move |thread: usize| {
                for key in &orders[thread] {
                    black_box(store.get(&ids[*key as usize]));
                }
            };
            (name, Box::new(move || on_threads(threads, read).as_nanos() as f64 / operations as f64))
        });
        let case = format!("get_hit_1KiB_{threads}thread{}", if threads == 1 { "" } else { "s" });
        bench.compare(&case, "ns/op", Better::Lower, all.collect());
        bench.target(QUICK, 2.0);
        bench.target(MOKA, 0.35);
    }
    let store = filled(LEGACY, Limit::Entries(0), &ids, 1024);
    let ns = ns_per_op(200, || {
        for key in &orders[0][..200] {
            black_box(store.get(&ids[*key as usize]));
        }
    });
    println!("  (legacy, 10 000 live: {ns:.0} ns per hit)");
}

fn filled(name: &str, limit: Limit, ids: &[String], bytes: usize) -> Box<dyn Contender> {
    let store = make(name, limit, None);
    for id in ids {
        store.set(id, &text(bytes));
    }
    store.settle();
    store
}

/// Keys drawn with probability in proportion to 1 / rank^0.99; one operation in ten writes.
fn zipf_operations(keys: usize, count: usize, seed: u64) -> Vec<(u32, bool)> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += (rank as f64).powf(-0.99);
        sums.push(sum);
    }
    let mut random = Random(seed);
    let draw = |_| {
        let drawn = random.fraction() * sum;
        (sums.partition_point(|sum| *sum < drawn) as u32, random.below(10) == 0)
    };
    (0..count).map(draw).collect()
}

fn replay(store: &dyn Contender, ids: &[String], texts: &[Arc<str>], operations: &[(u32, bool)]) -> f64 {
    let (mut hits, mut reads) = (0_u64, 0_u64);
    for &(key, write) in operations {
        let key = key as usize;
        if write {
            store.set(&ids[key], &texts[key]);
        } else {
            reads += 1;
            hits += u64::from(black_box(store.get(&ids[key])).is_some());
        }
    }
    hits as f64 / reads as f64
}

fn zipf(bench: &mut Bench) {
    const KEYS: usize = 100_000;
    const CAPACITY: u64 = 10_000;
    let count = if bench.is_quick() { 300_000 } else { 1_000_000 };
    let ids = ids(KEYS);
    let texts: Vec<_> = (0..KEYS).map(|_| text(1024)).collect();
    let warm = zipf_operations(KEYS, 1_000_000, 1);
    let orders: Vec<_> = (2..=3).map(|seed| zipf_operations(KEYS, count, seed)).collect();
    let names = [OURS, QUICK, COPIED, MOKA, HASHLINK];

    let stores = names.map(|name| make(name, Limit::Entries(CAPACITY), None));
    let replay_all =
        |store: &dyn Contender, operations: &[(u32, bool)]| replay(store, &ids, &texts, operations);
    let ratios = stores.iter().map(|store| {
        replay_all(&**store, &warm);
        replay_all(&**store, &orders[0])
    });
    let mut ratios: Vec<_> = ratios.collect();
    let both = [warm.as_slice(), orders[0].as_slice()].concat();
    let (warm_reads, all_reads) = (reads(&warm), reads(&both));
    let exact_warm = exact_lru_hit_ratio(CAPACITY, &warm) * warm_reads;
    let exact = (exact_lru_hit_ratio(CAPACITY, &both) * all_reads - exact_warm) / (all_reads - warm_reads);
    let ours = ratios.remove(0);
    let mut peers: Peers = names[1..].iter().map(|name| (*name).to_owned()).zip(ratios).collect();
    peers.insert("exact LRU".into(), exact);
    bench.record("zipf_90_10_hit_ratio", "share", Better::Higher, ours, peers);
    bench.target("exact LRU", 1.0);

    for threads in [1, 2] {
        let all = names.iter().zip(&stores).map(|(name, store)| -> Run<'_> {
            let (replay_all, orders) = (&replay_all, &orders);
            let work = move |thread: usize| {
                black_box(replay_all(&**store, &orders[thread]));
            };
            (name, Box::new(move || on_threads(threads, work).as_nanos() as f64 / count as f64))
        });
        let case = format!("zipf_90_10_1KiB_{threads}thread{}", if threads == 1 { "" } else { "s" });
        bench.compare(&case, "ns/op", Better::Lower, all.collect());
        if threads == 2 {
            bench.target(QUICK, 1.5);
        }
    }
}

fn reads(operations: &[(u32, bool)]) -> f64 {
    operations.iter().filter(|(_, write)| !write).count() as f64
}

/// Resident memory, each figure from a process of its own.
fn floods(bench: &mut Bench) {
    let names = [OURS, QUICK, MOKA, HASHLINK];
    for (case, target) in [("flood_1KiB_rss", true), ("flood_100B_rss", true), ("returns_memory_rss", false)]
    {
        let mut figures: Vec<_> = names.iter().map(|name| in_child(&format!("{case}/{name}"))).collect();
        let ours = figures.remove(0);
        let mut peers: Peers = names[1..].iter().map(|name| (*name).to_owned()).zip(figures).collect();
        if target {
            peers.insert("budget".into(), BUDGET as f64 / MIB);
        }
        bench.record(case, "MiB", Better::Lower, ours, peers);
        bench.target("budget", 1.1 + 4.0 * MIB / BUDGET as f64);
    }
}

/// The figures that a child process measures.
fn child(case: &str) -> Vec<f64> {
    let parts: Vec<_> = case.split('/').collect();
    match parts[..] {
        ["expire_200k_worst_op", name] => vec![worst_after_expiry(name)],
        ["flood_200k_worst_op", name] => vec![worst_under_flood(name)],
        ["clear_rss", name] => vec![churn::child_clear(name)],
        [case, name] => vec![resident_growth(case, name)],
        [case, name, threads, seconds] => {
            let [threads, seconds] = [threads, seconds].map(|n| n.parse::<u64>().expect("a number"));
            churn::child(case, name, threads as usize, seconds)
        }
        _ => panic!("no case {case}"),
    }
}

/// How far the resident set grew, in MiB.
fn resident_growth(case: &str, name: &str) -> f64 {
    let ids = ids(1_000_000);
    let before = resident_bytes();
    let (count, bytes) = match case {
        "flood_1KiB_rss" => (ids.len(), 1024),
        "flood_100B_rss" => (ids.len(), 100),
        // A hundred thousand entries come and go again.
        "returns_memory_rss" => (100_000, 1024),
        other => panic!("no case {other}"),
    };
    let limit = if case == "returns_memory_rss" { Limit::Bytes(1 << 30) } else { Limit::Bytes(BUDGET) };
    let store = make(name, limit, None);
    for id in &ids[..count] {
        store.set(id, &text(bytes));
    }
    store.settle();
    if case == "returns_memory_rss" {
        for id in &ids[..count] {
            store.remove(id);
        }
        store.settle();
    }
    let grown = resident_bytes().saturating_sub(before) as f64 / MIB;
    black_box(&store);
    grown
}

/// The single slowest operation, each figure from a process of its own, so that no contender's garbage is
/// tidied up on another's time.
fn worst_operations(bench: &mut Bench) {
    let mut worst = |case: &'static str, names: &[&'static str]| {
        let run =
            |name: &'static str| -> Run<'_> { (name, Box::new(move || in_child(&format!("{case}/{name}")))) };
        bench.compare(case, "us", Better::Lower, names.iter().copied().map(run).collect());
    };
    worst("expire_200k_worst_op", &[OURS, MOKA]);
    worst("flood_200k_worst_op", &[OURS, QUICK, MOKA, HASHLINK]);
}

/// The slowest of so many operations, in microseconds of this thread's own time: a busy machine takes the
/// processor away for milliseconds, which is not the store's doing.
fn slowest(count: usize, operation: impl Fn(usize)) -> f64 {
    let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("never negative");
    let timed = (0..count).map(|n| {
        let began = spent();
        operation(n);
        spent() - began
    });
    timed.max().unwrap_or_default().as_nanos() as f64 / 1000.0
}

/// Reads and writes after 200 000 entries have expired and none was cleaned up.
fn worst_after_expiry(name: &str) -> f64 {
    const LIVE: usize = 200_000;
    let ids = ids(LIVE);
    let ttl = Duration::from_secs(1);
    let store = make(name, Limit::Entries(2 * LIVE as u64), Some(ttl));
    for id in &ids {
        store.set(id, &text(100));
    }
    std::thread::sleep(ttl + Duration::from_millis(50));
    slowest(LIVE / 2, |n| match n % 2 {
        0 => drop(black_box(store.get(&ids[n]))),
        _ => store.set(&ids[n], &text(100)),
    })
}

/// Writes of values from 100 to 1 000 bytes, most of them into a full store.
fn worst_under_flood(name: &str) -> f64 {
    let ids = ids(200_000);
    let store = make(name, Limit::Bytes(32 << 20), None);
    slowest(ids.len(), |n| store.set(&ids[n], &text(100 + n % 900)))
}

/// The cost of an operation with ever more live conversations of 100 bytes.
fn scale(bench: &mut Bench) {
    for (live, label) in [(1_000, "1k"), (10_000, "10k"), (100_000, "100k"), (1_000_000, "1m")] {
        let ids = ids(live);
        let mut names = vec![OURS, QUICK];
        // The legacy store takes milliseconds per operation beyond that.
        if live <= 10_000 {
            names.push(LEGACY);
        }
        let stores: Vec<_> = names.iter().map(|name| scaled(name, &ids)).collect();
        for (verb, write) in [("get", false), ("store", true)] {
            let all = names.iter().zip(&stores).map(|(name, store)| -> Run<'_> {
                let ids = &ids;
                let count = if *name == LEGACY { 100 } else { 100_000 };
                let text = text(100);
                let run = move || {
                    let mut random = Random(7);
                    ns_per_op(count, || {
                        for _ in 0..count {
                            let id = &ids[random.below(ids.len())];
                            match write {
                                true => store.set(id, &text),
                                false => drop(black_box(store.get(id))),
                            }
                        }
                    })
                };
                (name, Box::new(run))
            });
            bench.compare(&format!("{verb}_100B_{label}_live"), "ns/op", Better::Lower, all.collect());
        }
    }
}

fn scaled(name: &str, ids: &[String]) -> Box<dyn Contender> {
    let store = make(name, Limit::Entries(2 * ids.len() as u64), None);
    // The legacy store sweeps everything on each of these: 10 000 of them are its own benchmark.
    for id in ids {
        store.set(id, &text(100));
    }
    store.settle();
    store
}
