//! One contender at work, in a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai_benches::{Measured, measure};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::PEER;
use crate::by_hand::ByHand;
use crate::case::{Case, Work};
use crate::ours::Ours;
use crate::server::TOKENS;

/// Turns of one conversation before the next one begins.
const TURNS_OF_A_CONVERSATION: usize = 5;

#[derive(Clone)]
enum Contender {
    Ours(Ours),
    ByHand(Arc<ByHand>),
}

impl Contender {
    async fn work(&self, work: Work, conversation: String) {
        match (self, work) {
            (Self::Ours(ours), Work::Chat) => ours.chat().await,
            (Self::Ours(ours), Work::Turn) => ours.turn(conversation).await,
            (Self::Ours(ours), Work::Streams) => assert_eq!(ours.stream().await, TOKENS),
            (Self::ByHand(by_hand), Work::Chat) => by_hand.chat().await,
            (Self::ByHand(by_hand), Work::Turn) => by_hand.turn(conversation).await,
            (Self::ByHand(by_hand), Work::Streams) => assert_eq!(by_hand.stream().await, TOKENS),
        }
    }
}

/// Turns per second, microseconds of processor time each, the tail in microseconds, and the peak of memory in MiB.
pub(crate) fn run(argument: &str) -> Vec<f64> {
    let (contender, case) = split_contender(argument);
    let case: Case = case.parse().expect("a case");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let contender = {
        let _inside = runtime.enter();
        match contender {
            PEER => Contender::ByHand(Arc::new(ByHand::new(&case))),
            backend => Contender::Ours(Ours::new(&case, backend)),
        }
    };
    if case.work != Work::Streams {
        // Opens the connections.
        let _ = measure_work(&runtime, &contender, &case, 1);
    }
    let before = processor_time();
    let measured = measure_work(&runtime, &contender, &case, case.each);
    let spent = processor_time() - before;
    let micros = spent.as_secs_f64() * 1e6 / (case.callers * case.each) as f64;
    vec![measured.rate, micros, measured.p99_micros, peak_resident_mib()]
}

/// The name of a contender may hold spaces; the case has five words.
fn split_contender(argument: &str) -> (&str, &str) {
    let at = argument.rmatch_indices(' ').nth(4).map_or(0, |(at, _)| at);
    (&argument[..at], &argument[at + 1..])
}

fn measure_work(runtime: &Runtime, contender: &Contender, case: &Case, each: usize) -> Measured {
    let turns: Arc<[AtomicUsize]> = (0..case.callers).map(|_| AtomicUsize::new(0)).collect();
    let (contender, work) = (contender.clone(), case.work);
    measure(runtime, case.callers, each, move |caller| {
        let (contender, turn) = (contender.clone(), turns[caller].fetch_add(1, Ordering::Relaxed));
        let conversation = format!("{each}-{caller}-{}", turn / TURNS_OF_A_CONVERSATION);
        async move { contender.work(work, conversation).await }
    })
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it only grows")
}

fn peak_resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib / 1024.0
}
