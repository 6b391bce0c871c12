//! A chat service under load, beside async-openai with a semaphore, tools in a `JoinSet` and conversations in a map.
//!
//! `cargo bench --bench service [-- --quick] [chat|turn|streams]`. The model is one server process for all, and each
//! contender runs in a process of its own, so that processor time and peak memory are its own.

mod by_hand;
mod case;
mod child;
mod ours;
mod server;

use std::collections::BTreeMap;

use arshai_benches::{Bench, Better, child_case, in_child_figures, median};
use case::{Case, Work};
use serde_json::{Value, json};
use server::ServerProcess;

const SYSTEM: &str = "You answer briefly, with the tools that you are given.";
const QUESTION: &str = "What is the weather in Paris, and what time is it there?";

const UREQ: &str = "ureq";
const HYPER: &str = "hyper";
const PEER: &str = "async-openai 0.43";
const CONTENDERS: [&str; 3] = [UREQ, HYPER, PEER];

/// What a child prints, and the server's count.
const FIGURES: [(&str, &str, Better); 5] = [
    ("", "turn/s", Better::Higher),
    ("_cpu", "us/turn", Better::Lower),
    ("_p99", "us", Better::Lower),
    ("_rss", "MiB", Better::Lower),
    ("_connections", "peak", Better::Lower),
];

fn main() {
    if std::env::args().any(|argument| argument == server::ARGUMENT) {
        server::run();
    }
    if let Some(case) = child_case() {
        child::run(&case).iter().for_each(|figure| println!("{figure}"));
        return;
    }
    let mut bench = Bench::from_args("service");
    let server = ServerProcess::start();
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for case in cases(&server, bench.is_quick()) {
        if wanted.is_empty() || wanted.iter().any(|wanted| case.name().contains(wanted)) {
            compare(&mut bench, &server, &case);
        }
    }
    bench.finish();
}

fn cases(server: &ServerProcess, quick: bool) -> Vec<Case> {
    let case = |work, callers, delay_ms, each: usize| {
        let each = if quick && each > 1 { each / 2 } else { each };
        Case { work, callers, each, delay_ms, server: server.address.clone() }
    };
    vec![
        case(Work::Chat, 20, 0, 500),
        case(Work::Chat, 500, 0, 20),
        case(Work::Chat, 20, 50, 20),
        case(Work::Chat, 500, 50, 6),
        case(Work::Turn, 20, 0, 200),
        case(Work::Turn, 500, 0, 8),
        case(Work::Turn, 20, 50, 10),
        case(Work::Turn, 500, 50, 4),
        case(Work::Streams, 1_000, 0, 1),
    ]
}

fn compare(bench: &mut Bench, server: &ServerProcess, case: &Case) {
    let mut rounds = vec![vec![Vec::new(); FIGURES.len()]; CONTENDERS.len()];
    let count = if bench.is_quick() { 3 } else { 5 };
    for round in 0..count {
        // Each round starts with another one, so that none always follows the same neighbour.
        for at in (0..CONTENDERS.len()).map(|turn| (round + turn) % CONTENDERS.len()) {
            let _ = server.take_peak();
            let mut figures = in_child_figures(&format!("{} {}", CONTENDERS[at], case.to_argument()));
            figures.push(server.take_peak());
            for (kept, figure) in rounds[at].iter_mut().zip(figures) {
                kept.push(figure);
            }
        }
    }
    let medians = rounds.into_iter().map(|figures| figures.into_iter().map(median).collect::<Vec<_>>());
    let [ureq, hyper, peer] = <[_; 3]>::try_from(medians.collect::<Vec<_>>()).expect("three contenders");
    for (backend, ours) in [(UREQ, ureq), (HYPER, hyper)] {
        for (at, (suffix, unit, better)) in FIGURES.into_iter().enumerate() {
            let mut peers = BTreeMap::from([(PEER.to_owned(), peer[at])]);
            let goal = goal(case.work, backend, suffix);
            if let Some(Goal::AtMost(most)) = goal {
                peers.insert(GOAL.to_owned(), most);
            }
            bench.record(&format!("{}_{backend}{suffix}", case.name()), unit, better, ours[at], peers);
            match goal {
                Some(Goal::AtMost(_)) => bench.target(GOAL, 1.0),
                Some(Goal::TimesPeer(factor)) => bench.target(PEER, factor),
                None => {}
            }
        }
    }
}

const GOAL: &str = "goal";

enum Goal {
    AtMost(f64),
    TimesPeer(f64),
}

fn goal(work: Work, backend: &str, suffix: &str) -> Option<Goal> {
    match (work, backend, suffix) {
        (Work::Turn, _, "_cpu") => Some(Goal::TimesPeer(1.3)),
        (Work::Streams, UREQ, "_rss") => Some(Goal::AtMost(90.0)),
        (Work::Streams, HYPER, "_rss") => Some(Goal::AtMost(60.0)),
        (Work::Streams, HYPER, "_cpu") => Some(Goal::TimesPeer(1.1)),
        _ => None,
    }
}

/// The schema of a tool with one argument.
fn parameters(argument: &str) -> Value {
    json!({"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]})
}
