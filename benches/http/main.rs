//! HTTP and streamed answers, beside what one would use otherwise, against one server on loopback.
//!
//! `cargo bench --bench http [-- --quick] [requests|streams]`.

mod server;
mod streams;

use std::sync::Arc;

use arshai::backends::http::{HyperTransport, UreqTransport};
use arshai::http::{HttpRequest, HttpTransport};
use arshai::{BuildContext, Config};
use arshai_benches::{Bench, Better, Tails, measure};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Connection limit of every contender that has one.
const LIMIT: usize = 20;

const OURS: &str = "arshai";
const REQWEST: &str = "reqwest 0.12, semaphore";
const UREQ: &str = "ureq 3, spawn_blocking";

fn main() {
    let mut bench = Bench::from_args("http");
    let wants = |what: &str| {
        let mut wanted = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
        wanted.peek().is_none() || wanted.any(|wanted| wanted == what)
    };
    for (path, name) in [("/", "get"), ("/slow", "get_20ms_reply")].into_iter().filter(|_| wants("requests"))
    {
        for callers in [1, LIMIT, 200] {
            requests(&mut bench, path, name, callers, ureq);
            requests(&mut bench, path, &format!("hyper_{name}"), callers, hyper);
        }
    }
    if wants("streams") {
        streams::measure(&mut bench, &server::start());
    }
    bench.finish();
}

pub(crate) fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts")
}

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.pool.max_connections = LIMIT;
    config
}

type Transport = Arc<dyn HttpTransport>;

fn ureq(context: &BuildContext) -> Transport {
    Arc::new(UreqTransport::from_context(context).expect("it is valid"))
}

fn hyper(context: &BuildContext) -> Transport {
    Arc::new(HyperTransport::from_context(context).expect("it is valid"))
}

fn requests(
    bench: &mut Bench,
    path: &'static str,
    name: &str,
    callers: usize,
    ours: fn(&BuildContext) -> Transport,
) {
    let all = match (path, callers) {
        ("/slow", 1) => 50,
        ("/slow", _) => 2_000,
        (_, 1) => 4_000,
        _ => 40_000,
    } / if bench.is_quick() { 4 } else { 1 };
    // One each, so that the connections of each are counted apart.
    let servers = [(); 3].map(|()| server::start());
    let [for_ours, for_reqwest, for_ureq] = [(); 3].map(|()| runtime());
    let ours = ours(&BuildContext::new(config()));
    let reqwest = {
        let _inside = for_reqwest.enter();
        reqwest::Client::builder().pool_max_idle_per_host(LIMIT).build().expect("it is valid")
    };
    let permits = Arc::new(Semaphore::new(LIMIT));
    let ureq = ureq::Agent::new_with_defaults();
    let [ours_url, reqwest_url, ureq_url] =
        servers.each_ref().map(|server| Arc::<str>::from(server.url(path)));
    let (tails, each) = (Tails::default(), (all / callers).max(1));
    let case = format!("{name}_{callers}callers");
    bench.compare(
        &case,
        "req/s",
        Better::Higher,
        vec![
            (
                OURS,
                Box::new(|| {
                    let (transport, url) = (Arc::clone(&ours), Arc::clone(&ours_url));
                    tails.note(
                        OURS,
                        measure(&for_ours, callers, each, move |_| {
                            let (transport, url) = (Arc::clone(&transport), Arc::clone(&url));
                            async move {
                                let request =
                                    http::Request::get(&*url).body(bytes::Bytes::new()).expect("it is valid");
                                let response =
                                    transport.send(HttpRequest::new(request)).await.expect("an answer");
                                assert!(!response.body.bytes().await.expect("a body").is_empty());
                            }
                        }),
                    )
                }),
            ),
            (
                REQWEST,
                Box::new(|| {
                    let (client, permits, url) =
                        (reqwest.clone(), Arc::clone(&permits), Arc::clone(&reqwest_url));
                    tails.note(
                        REQWEST,
                        measure(&for_reqwest, callers, each, move |_| {
                            let (client, permits, url) =
                                (client.clone(), Arc::clone(&permits), Arc::clone(&url));
                            async move {
                                let _permit = permits.acquire_owned().await.expect("it is open");
                                let response = client.get(&*url).send().await.expect("an answer");
                                assert!(!response.bytes().await.expect("a body").is_empty());
                            }
                        }),
                    )
                }),
            ),
            (
                UREQ,
                Box::new(|| {
                    let (agent, url) = (ureq.clone(), Arc::clone(&ureq_url));
                    tails.note(
                        UREQ,
                        measure(&for_ureq, callers, each, move |_| {
                            let (agent, url) = (agent.clone(), Arc::clone(&url));
                            async move {
                                let body = tokio::task::spawn_blocking(move || {
                                    agent
                                        .get(&*url)
                                        .call()
                                        .expect("an answer")
                                        .body_mut()
                                        .read_to_vec()
                                        .expect("a body")
                                });
                                assert!(!body.await.expect("no panic").is_empty());
                            }
                        }),
                    )
                }),
            ),
        ],
    );
    let wanted = if path == "/slow" {
        1.0
    } else if callers == 200 {
        if name.starts_with("hyper") { 0.95 } else { 0.9 }
    } else {
        0.75
    };
    bench.target(REQWEST, wanted);
    tails.record(bench, &case, OURS);
    let [of_ours, of_reqwest, of_ureq] = servers.each_ref().map(|server| server.connections.peak());
    println!("  connections as the servers count them: {of_ours}; {REQWEST} {of_reqwest}; {UREQ} {of_ureq}");
    assert!(of_ours <= LIMIT, "{of_ours} connections");
}
