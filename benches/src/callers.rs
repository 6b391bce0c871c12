//! Many callers at once, each doing one thing after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::{Bench, Better, median};

/// How it went for all callers together.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Rounds per second.
    pub rate: f64,
    /// How long all rounds but the slowest hundredth took at most, in microseconds.
    pub p99_micros: f64,
}

/// Lets each of `callers` do `work`, which is given the caller's number, `each` times.
///
/// # Panics
/// When `work` does.
pub fn measure<F, Fut>(runtime: &Runtime, callers: usize, each: usize, work: F) -> Measured
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let began = Instant::now();
    let mut times = runtime.block_on(async {
        let callers: Vec<_> = (0..callers)
            .map(|caller| {
                let work = work.clone();
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(each);
                    for _ in 0..each {
                        let began = Instant::now();
                        work(caller).await;
                        times.push(began.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for caller in callers {
            times.extend(caller.await.expect("no caller panics"));
        }
        times
    });
    let took = began.elapsed().max(Duration::from_nanos(1));
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Measured { rate: times.len() as f64 / took.as_secs_f64(), p99_micros: p99.as_nanos() as f64 / 1_000.0 }
}

/// The tails of a case's contenders, for a row of their own.
#[derive(Debug, Default)]
pub struct Tails(RefCell<BTreeMap<&'static str, Vec<f64>>>);

impl Tails {
    /// Keeps the tail of a round of `contender` and gives its rate.
    pub fn note(&self, contender: &'static str, measured: Measured) -> f64 {
        self.0.borrow_mut().entry(contender).or_default().push(measured.p99_micros);
        measured.rate
    }

    /// Adds the row, `ours` against the rest.
    ///
    /// # Panics
    /// When `ours` was never measured.
    pub fn record(&self, bench: &mut Bench, case: &str, ours: &str) {
        let tails = self.0.take().into_iter();
        let mut peers: BTreeMap<_, _> =
            tails.map(|(name, rounds)| (name.to_owned(), median(rounds))).collect();
        let ours = peers.remove(ours).expect("ours was measured");
        bench.record(&format!("{case}_p99"), "us", Better::Lower, ours, peers);
    }
}
