//! MCP servers over HTTP: connecting, calls, listing and what idle ones cost, beside bare rmcp and the official Python
//! client. `cargo bench --bench mcp -- calls` measures one group: `connecting`, `calls`, `listing` or `idle`.

mod clients;
mod idle;
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::Deadline;
use arshai::mcp::McpCall;
use arshai_benches::{Bench, Better, Contender, Measured, Tails, child_case, measure};
use rmcp::model::CallToolRequestParams;
use tokio::runtime::Runtime;

use clients::{
    OURS, OURS_HYPER, PYTHON, RMCP, RMCP_DEFAULT, Rmcp, connected, keeping_client, python, rmcp_all,
    rmcp_connected, runtime,
};
use server::Servers;

fn main() {
    if std::env::args().any(|argument| argument == server::ARGUMENT) {
        return server::serve();
    }
    if let Some(case) = child_case() {
        return idle::child(&case);
    }
    let groups = ["connecting", "calls", "listing", "idle"];
    let asked: Vec<_> = std::env::args().filter(|argument| groups.contains(&argument.as_str())).collect();
    let is_asked = |group: &str| asked.is_empty() || asked.iter().any(|asked| asked == group);
    let mut bench = Bench::from_args("mcp");
    if is_asked("connecting") {
        [1, 10, 50].into_iter().for_each(|servers| connecting(&mut bench, servers));
    }
    if is_asked("calls") {
        let servers = Servers::start(1);
        [1, 20, 100].into_iter().for_each(|callers| calls(&mut bench, &servers.urls[0], callers));
    }
    if is_asked("listing") {
        listing(&mut bench);
    }
    if is_asked("idle") {
        idle::measure(&mut bench);
    }
    bench.finish();
}

/// Until the tools of all servers are listed.
fn connecting(bench: &mut Bench, count: usize) {
    let (servers, runtime) = (Servers::start(count), runtime());
    let millis = |began: Instant| began.elapsed().as_secs_f64() * 1_000.0;
    let (urls, runtime) = (&servers.urls, &runtime);
    let ours = |backend: &'static str| {
        move || {
            let began = Instant::now();
            let (ours, _) = runtime.block_on(connected(backend, urls));
            let took = millis(began);
            runtime.block_on(ours.shutdown(Deadline::after(Duration::from_secs(5))));
            took
        }
    };
    let theirs = || {
        let began = Instant::now();
        let all = runtime.block_on(rmcp_all(urls));
        let took = millis(began);
        runtime.block_on(async {
            for service in all {
                let _ = service.cancel().await;
            }
        });
        took
    };
    let contenders: Vec<Contender<'_>> =
        vec![(OURS, Box::new(ours("ureq"))), (OURS_HYPER, Box::new(ours("hyper"))), (RMCP, Box::new(theirs))];
    bench.compare(&format!("connect_{count}servers"), "ms", Better::Lower, contenders);
}

fn calls(bench: &mut Bench, url: &str, callers: usize) {
    let total = if callers == 1 { 4_000 } else { 20_000 } / if bench.is_quick() { 4 } else { 1 };
    let (tails, each) = (&Tails::default(), total / callers);
    let ours = |name: &'static str, backend: &'static str| {
        let runtime = runtime();
        let (arshai, manager) = runtime.block_on(connected(backend, &[url.to_owned()]));
        move || {
            let _connected = &arshai;
            let manager = Arc::clone(&manager);
            let work = move |_| {
                let manager = Arc::clone(&manager);
                async move {
                    let call = McpCall::new("s0", "pay").with_arguments(arguments());
                    manager.call_tool(call).await.expect("it pays");
                }
            };
            tails.note(name, measure(&runtime, callers, each, work))
        }
    };
    let theirs = |name: &'static str, client| {
        let runtime = runtime();
        let service = Arc::new(runtime.block_on(rmcp_connected(url, client)));
        move || tails.note(name, rmcp_calls(&runtime, &service, callers, each))
    };
    let contenders: Vec<Contender<'_>> = vec![
        (OURS, Box::new(ours(OURS, "ureq"))),
        (OURS_HYPER, Box::new(ours(OURS_HYPER, "hyper"))),
        (RMCP, Box::new(theirs(RMCP, Some(keeping_client())))),
        (RMCP_DEFAULT, Box::new(theirs(RMCP_DEFAULT, None))),
        (PYTHON, Box::new(|| python(url, callers, total / 20))),
    ];
    let case = format!("call_tool_{callers}callers");
    bench.compare(&case, "calls/s", Better::Higher, contenders);
    bench.target(RMCP, 0.9);
    tails.record(bench, &case, OURS);
}

fn rmcp_calls(runtime: &Runtime, service: &Arc<Rmcp>, callers: usize, each: usize) -> Measured {
    let service = Arc::clone(service);
    measure(runtime, callers, each, move |_| {
        let service = Arc::clone(&service);
        async move {
            let call = CallToolRequestParams::new("pay").with_arguments(arguments());
            service.call_tool(call).await.expect("it pays");
        }
    })
}

fn arguments() -> serde_json::Map<String, serde_json::Value> {
    serde_json::Map::from_iter([("amount".to_owned(), 1.into())])
}

/// All tools of ten servers: from our copy, and asked for again.
fn listing(bench: &mut Bench) {
    let (servers, runtime) = (Servers::start(10), runtime());
    let (_arshai, manager) = runtime.block_on(connected("ureq", &servers.urls));
    let all = runtime.block_on(rmcp_all(&servers.urls));
    let micros = |began: Instant, times: u32| began.elapsed().as_secs_f64() * 1e6 / f64::from(times);
    let ours = || {
        let began = Instant::now();
        for _ in 0..2_000 {
            assert_eq!(manager.get_all_available_tools().len(), 10);
        }
        micros(began, 2_000)
    };
    let theirs = || {
        let began = Instant::now();
        runtime.block_on(async {
            for _ in 0..10 {
                for service in &all {
                    assert_eq!(service.list_all_tools().await.expect("listed").len(), 1);
                }
            }
        });
        micros(began, 10)
    };
    let contenders: Vec<Contender<'_>> = vec![(OURS, Box::new(ours)), (RMCP, Box::new(theirs))];
    bench.compare("list_tools_10servers", "us", Better::Lower, contenders);
}
