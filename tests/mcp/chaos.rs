//! Servers that do anything and callers that do as they like, at random, on a clock that stands still while there is work.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arshai::mcp::{McpCall, McpServerManager};
use arshai::{Deadline, ErrorKind, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::in_process::InProcess;
use crate::scripted::{Reply, Request, initialized, json_body, reply, text, tool};

const SERVERS: [&str; 3] = ["a", "b", "c"];
const CALLERS: u64 = 12;
const CALLS: u64 = 6;

fn millis(random: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

/// What a server that may do anything answers.
fn anything(random: &mut Rng, request: &Request) -> Reply {
    let good = || match request.method() {
        "initialize" => initialized(request, "2025-11-25", Some("s1")),
        "tools/list" => reply(request, json!({"tools": [tool("pay"), tool("see"), 7]})),
        "tools/call" => reply(request, text("done")),
        _ => StatusCode::ACCEPTED.into_response(),
    };
    match random.u8(0..24) {
        0 => Reply::Never,
        1..=3 => Reply::After(millis(random, 0..5_000), good()),
        4 => Reply::Now(StatusCode::NOT_FOUND.into_response()),
        5 => Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        6 => Reply::Now((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")]).into_response()),
        7 => Reply::Now(json_body("{\"jsonrpc\":")),
        8 => Reply::Now(json_body("{}")),
        9 => Reply::Now(
            ([("content-type", "text/event-stream")], "retry: 1\nid: 1\ndata:\n\n").into_response(),
        ),
        10 => Reply::Now(reply(request, json!({"content": 7, "tools": "none", "protocolVersion": []}))),
        11 => Reply::Now(StatusCode::ACCEPTED.into_response()),
        _ => Reply::Well,
    }
}

/// One caller: each call has an id of its own, a deadline, and perhaps a caller who gives up.
async fn call_at_random(manager: &Arc<dyn McpServerManager>, mut random: Rng, caller: u64) {
    for number in 0..CALLS {
        tokio::time::sleep(millis(&mut random, 0..2_000)).await;
        let patience = millis(&mut random, 0..3_000);
        let call = McpCall::new(SERVERS[random.usize(0..3)], "pay")
            .with_meta("id", json!(caller * CALLS + number))
            .with_deadline(Deadline::after(patience));
        let began = Instant::now();
        let gives_up = if random.u8(0..4) == 0 { millis(&mut random, 0..1_000) } else { Duration::MAX };
        let Ok(result) = timeout(gives_up, manager.call_tool(call)).await else { continue };
        assert!(began.elapsed() <= patience + Duration::from_millis(100), "{:?} {result:?}", began.elapsed());
        if let Err(error) = result {
            let is_down =
                [ErrorKind::Unavailable, ErrorKind::RateLimited, ErrorKind::Closed].contains(&error.kind());
            assert!(
                error.outcome() != Outcome::NotSent || is_down || error.kind() == ErrorKind::Timeout,
                "{error}"
            );
        }
    }
}

/// Reconnects, checks and replaces servers now and then.
async fn operate_at_random(manager: &Arc<dyn McpServerManager>, servers: &InProcess, mut random: Rng) {
    for round in 0..8 {
        tokio::time::sleep(millis(&mut random, 0..2_000)).await;
        let soon = Deadline::after(millis(&mut random, 0..3_000));
        match random.u8(0..4) {
            0 => drop(manager.health_check(soon).await),
            1 => drop(timeout(millis(&mut random, 0..500), manager.reconnect("a", soon)).await),
            2 => drop(manager.reconnect("b", soon).await),
            _ => {
                let mut configs = servers.configs();
                configs[2].timeout = Duration::from_secs(20 + round);
                let replaced =
                    timeout(millis(&mut random, 100..4_000), manager.set_servers(configs, soon)).await;
                assert!(replaced.is_err() || replaced.is_ok_and(|replaced| replaced.is_ok()));
            }
        }
    }
}

async fn run(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let mut servers = InProcess::default();
    for name in SERVERS {
        let answers = std::sync::Mutex::new(random.fork());
        servers =
            servers.with(name, move |request, _| anything(&mut answers.lock().expect("no panic"), request));
    }
    let servers = Arc::new(servers);
    let (runtime, manager) = servers.runtime(|config| config.mcp.connection_timeout = Duration::from_secs(2));
    let callers = (0..CALLERS).map(|caller| call_at_random(&manager, random.fork(), caller));
    let callers = join_all(callers);
    let operator = operate_at_random(&manager, &servers, random.fork());
    let initialized = manager.initialize(Deadline::after(Duration::from_secs(5)));
    let (initialized, _, ()) = tokio::join!(initialized, callers, operator);
    initialized.expect("none is required");
    for name in SERVERS {
        let mut seen = HashSet::new();
        for request in servers.script(name).seen("tools/call") {
            let id = request.message["params"]["_meta"]["id"].as_u64();
            assert!(seen.insert(id), "call {id:?} was sent twice");
        }
    }
    let began = Instant::now();
    runtime.shutdown(Deadline::after(Duration::from_secs(1))).await;
    assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
    drop((runtime, manager));
    // A server may have asked for half a minute before a stream is resumed.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "tasks are left");
}

#[tokio::test(start_paused = true)]
#[ignore = "random: for a run by hand after changes of the manager"]
async fn calls_end_in_time_and_are_sent_once_and_nothing_is_left_whatever_happens() {
    for seed in 0..60 {
        println!("seed {seed}");
        run(seed).await;
    }
}
