//! How long a call keeps the thread that polls it, while a search of sixty query vectors runs.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arshai::backends::vectors::EmbeddedStore;
use arshai::vectors::{Filter, QueryRequest, SearchRequest};
use arshai_benches::{Bench, Better};

use crate::{MAX_BYTES, data, fill, runtime};

/// A future that keeps its longest poll.
struct Timed<'a, F> {
    future: Pin<Box<F>>,
    longest: &'a mut Duration,
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        let result = self.future.as_mut().poll(cx);
        *self.longest = began.elapsed().max(*self.longest);
        result
    }
}

pub(crate) fn measure(bench: &mut Bench, vectors: &[Vec<f32>]) {
    let folder = crate::disk::folder();
    for durable in [false, true] {
        let name = if durable { "durable_" } else { "" };
        let store = EmbeddedStore::new(MAX_BYTES);
        let store = if durable { store.with_path(folder.join("stalls"), true) } else { store };
        for (call, longest) in runtime().block_on(calls(&store, vectors)) {
            let figure = longest.as_secs_f64() * 1e3;
            bench.record(&format!("{name}longest_poll_{call}"), "ms", Better::Lower, figure, BTreeMap::new());
        }
        let began = Instant::now();
        drop(store);
        let figure = began.elapsed().as_secs_f64() * 1e3;
        bench.record(&format!("{name}drop_store"), "ms", Better::Lower, figure, BTreeMap::new());
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

async fn calls(store: &EmbeddedStore, vectors: &[Vec<f32>]) -> Vec<(&'static str, Duration)> {
    let collection = fill(store, vectors).await;
    let sixty = SearchRequest::new(data::vectors(60, 9)).with_limit(100);
    let mut running = Box::pin(collection.search_by_vector(sixty));
    let first = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending());
    let mut all = Vec::new();
    macro_rules! timed {
        ($name:literal, $times:literal, $future:expr) => {
            let mut longest = Duration::ZERO;
            for _ in 0..$times {
                Timed { future: Box::pin($future), longest: &mut longest }.await.expect("it succeeds");
            }
            all.push(($name, longest));
        };
    }
    let filter = |text| Filter::parse(text).expect("valid");
    timed!("insert", 50, collection.insert_entity(data::entity(1, &vectors[1])));
    timed!("search", 5, collection.search_by_vector(SearchRequest::new(vectors[5].clone())));
    timed!("query", 5, collection.query_by_expr(QueryRequest::new(filter("metadata['percent'] > 10"))));
    timed!("delete", 5, collection.delete_entity(&filter("metadata['number'] == 17")));
    timed!("delete_most", 1, collection.delete_entity(&filter("metadata['percent'] > 10")));
    drop(running);
    all
}
