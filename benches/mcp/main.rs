//! MCP servers over HTTP: connecting, calls, listing and what idle ones cost, beside bare rmcp and the official Python
//! client.

mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerManager};
use arshai::{Arshai, Config};
use arshai_benches::{Bench, Better, Measured, Tails, measure};
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use server::Servers;
use tokio::runtime::Runtime;

const RMCP: &str = "rmcp 3.11, idle connections kept";
const RMCP_DEFAULT: &str = "rmcp 3.11, as it comes";
const PYTHON: &str = "mcp-python 2.3.0";

fn main() {
    if std::env::args().any(|argument| argument == server::ARGUMENT) {
        return server::serve();
    }
    let mut bench = Bench::from_args("mcp");
    for servers in [1, 10, 50] {
        connecting(&mut bench, servers);
    }
    let servers = Servers::start(1);
    for callers in [1, 20, 100] {
        calls(&mut bench, &servers.urls[0], callers);
    }
    listing(&mut bench);
    idle(&mut bench);
    bench.finish();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A runtime of ours that is connected to all `urls`.
async fn connected(urls: &[String]) -> (Arshai, Arc<dyn McpServerManager>) {
    let mut config = Config::default();
    config.mcp.enabled = true;
    config.pool.max_connections = 128;
    let server = |(n, url): (usize, &String)| {
        let mut server = McpServerConfig::http(format!("s{n}"), url.clone());
        server.max_concurrency = 128;
        server
    };
    config.mcp.servers = urls.iter().enumerate().map(server).collect();
    let runtime = Arshai::builder(config).build().expect("the configuration is valid");
    let manager = Arc::clone(runtime.mcp().expect("it is compiled in"));
    let deadline = arshai::Deadline::after(Duration::from_secs(30));
    manager.initialize(deadline).await.expect("nothing is required");
    assert_eq!(manager.connected_servers().len(), urls.len());
    (runtime, manager)
}

type Rmcp = RunningService<RoleClient, ()>;

fn keeping_client() -> reqwest13::Client {
    reqwest13::Client::builder().pool_max_idle_per_host(128).tcp_nodelay(true).build().expect("a client")
}

async fn rmcp_connected(url: &str, client: Option<reqwest13::Client>) -> Rmcp {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned());
    let transport = match client {
        Some(client) => StreamableHttpClientTransport::with_client(client, config),
        None => StreamableHttpClientTransport::from_config(config),
    };
    let service = ().serve(transport).await.expect("it connects");
    // As our manager does on every connection.
    assert_eq!(service.list_all_tools().await.expect("listed").len(), 1);
    service
}

async fn rmcp_all(urls: &[String]) -> Vec<Rmcp> {
    let client = keeping_client();
    futures_util::future::join_all(urls.iter().map(|url| rmcp_connected(url, Some(client.clone())))).await
}

fn connecting(bench: &mut Bench, count: usize) {
    let (servers, runtime) = (Servers::start(count), runtime());
    let millis = |began: Instant| began.elapsed().as_secs_f64() * 1_000.0;
    bench.compare(
        &format!("connect_{count}servers"),
        "ms",
        Better::Lower,
        vec![
            (
                "arshai",
                Box::new(|| {
                    let began = Instant::now();
                    let (ours, _) = runtime.block_on(connected(&servers.urls));
                    let took = millis(began);
                    runtime.block_on(ours.shutdown(arshai::Deadline::after(Duration::from_secs(5))));
                    took
                }),
            ),
            (
                RMCP,
                Box::new(|| {
                    let began = Instant::now();
                    let all = runtime.block_on(rmcp_all(&servers.urls));
                    let took = millis(began);
                    runtime.block_on(async {
                        for service in all {
                            let _ = service.cancel().await;
                        }
                    });
                    took
                }),
            ),
        ],
    );
}

fn calls(bench: &mut Bench, url: &str, callers: usize) {
    let total = if callers == 1 { 4_000 } else { 20_000 } / if bench.is_quick() { 4 } else { 1 };
    let [ours, keeping, plain] = [(); 3].map(|()| runtime());
    let (_arshai, manager) = ours.block_on(connected(&[url.to_owned()]));
    let kept = Arc::new(keeping.block_on(rmcp_connected(url, Some(keeping_client()))));
    let default = Arc::new(plain.block_on(rmcp_connected(url, None)));
    let (tails, each) = (Tails::default(), total / callers);
    bench.compare(
        &format!("call_tool_{callers}callers"),
        "calls/s",
        Better::Higher,
        vec![
            (
                "arshai",
                Box::new(|| {
                    let manager = Arc::clone(&manager);
                    let work = move |_| {
                        let manager = Arc::clone(&manager);
                        async move {
                            let call = McpCall::new("s0", "pay").with_arguments(arguments());
                            manager.call_tool(call).await.expect("it pays");
                        }
                    };
                    tails.note("arshai", measure(&ours, callers, each, work))
                }),
            ),
            (RMCP, Box::new(|| tails.note(RMCP, rmcp_calls(&keeping, &kept, callers, each)))),
            (
                RMCP_DEFAULT,
                Box::new(|| tails.note(RMCP_DEFAULT, rmcp_calls(&plain, &default, callers, each))),
            ),
            (PYTHON, Box::new(|| python(url, callers, total / 20))),
        ],
    );
    bench.target(RMCP, 0.9);
    tails.record(bench, &format!("call_tool_{callers}callers"), "arshai");
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

fn python(url: &str, callers: usize, calls: usize) -> f64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = root.join("../target/mcp-python/bin/python");
    let output = Command::new(interpreter)
        .arg(root.join("python/mcp_client.py"))
        .args([url, &callers.to_string(), &calls.to_string()])
        .output()
        .expect("tests/all.sh installs MCP's Python SDK");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// All tools of ten servers, from our copy and asked for again.
fn listing(bench: &mut Bench) {
    let (servers, runtime) = (Servers::start(10), runtime());
    let (_arshai, manager) = runtime.block_on(connected(&servers.urls));
    let all = runtime.block_on(rmcp_all(&servers.urls));
    let times = 200;
    bench.compare(
        "list_tools_10servers",
        "us",
        Better::Lower,
        vec![
            (
                "arshai",
                Box::new(|| {
                    let began = Instant::now();
                    runtime.block_on(async {
                        for _ in 0..times {
                            assert_eq!(manager.get_all_available_tools().len(), 10);
                        }
                    });
                    began.elapsed().as_secs_f64() * 1e6 / f64::from(times)
                }),
            ),
            (
                RMCP,
                Box::new(|| {
                    let began = Instant::now();
                    runtime.block_on(async {
                        for _ in 0..times / 20 {
                            for service in &all {
                                assert_eq!(service.list_all_tools().await.expect("listed").len(), 1);
                            }
                        }
                    });
                    began.elapsed().as_secs_f64() * 1e6 / f64::from(times / 20)
                }),
            ),
        ],
    );
}

/// Memory of an idle server, and processor time of fifty. Each contender has the process to itself in turn; what the
/// first connections leave for later ones is warmed up before.
fn idle(bench: &mut Bench) {
    let (servers, runtime) = (Servers::start(50), runtime());
    let warm =
        runtime.block_on(async { (connected(&servers.urls[..2]).await, rmcp_all(&servers.urls[..2]).await) });
    let pause = Duration::from_secs(if bench.is_quick() { 3 } else { 20 });

    let before = resident_kib();
    let ours = runtime.block_on(connected(&servers.urls));
    let our_memory = (resident_kib() - before) / 50.0;
    let our_time = processor_millis_during(pause);
    runtime.block_on(ours.0.shutdown(arshai::Deadline::after(Duration::from_secs(5))));
    drop(ours);

    let before = resident_kib();
    let theirs = runtime.block_on(rmcp_all(&servers.urls));
    let their_memory = (resident_kib() - before) / 50.0;
    let their_time = processor_millis_during(pause);
    drop((theirs, warm));
    let peer = |figure: f64| BTreeMap::from([(RMCP.to_owned(), figure)]);
    bench.record("idle_server_rss", "KiB", Better::Lower, our_memory, peer(their_memory));
    bench.target(RMCP, 1.2);
    bench.record("idle_50servers_cpu", "ms/s", Better::Lower, our_time, peer(their_time));
}

fn resident_kib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm.split_whitespace().nth(1).expect("resident pages").parse().expect("a number");
    pages * rustix::param::page_size() as f64 / 1_024.0
}

/// Milliseconds of processor time per second.
fn processor_millis_during(pause: Duration) -> f64 {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1_000.0 + time.tv_nsec as f64 / 1e6
    };
    let before = used();
    std::thread::sleep(pause);
    (used() - before) / pause.as_secs_f64()
}
