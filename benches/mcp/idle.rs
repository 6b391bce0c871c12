//! Memory and processor time of idle servers, each contender in a process of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use arshai_benches::{Bench, Better, in_child_figures, median, resident_bytes};

use crate::clients::{OURS_HYPER, RMCP, connected, rmcp_all, runtime};
use crate::server::Servers;

const SERVERS: usize = 50;
/// Connected before the measurement: what the first connection brings (the runtime, clients, code) is not counted.
const WARM: usize = 2;
/// Connections that were only needed for connecting have gone by then: ours are kept for 15 s at most.
const SETTLE: Duration = Duration::from_secs(17);

pub(crate) fn measure(bench: &mut Bench) {
    let pause = if bench.is_quick() { 3 } else { 20 };
    let rounds = if bench.is_quick() { 1 } else { 3 };
    let figures = |contender: &str| {
        let runs: Vec<_> = (0..rounds).map(|_| in_child_figures(&format!("{contender}:{pause}"))).collect();
        [0, 1].map(|figure| median(runs.iter().map(|run| run[figure]).collect()))
    };
    let [ours, hyper, theirs] = ["ureq", "hyper", "rmcp"].map(figures);
    let peers = |figure: usize| {
        BTreeMap::from([(OURS_HYPER.to_owned(), hyper[figure]), (RMCP.to_owned(), theirs[figure])])
    };
    bench.record("idle_server_rss", "KiB", Better::Lower, ours[0], peers(0));
    bench.target(RMCP, 1.2);
    bench.record("idle_50servers_cpu", "ms/s", Better::Lower, ours[1], peers(1));
}

/// Prints the resident memory of one idle server, in KiB, and the processor time of all of them, in milliseconds a second.
pub(crate) fn child(case: &str) {
    let (contender, pause) = case.split_once(':').expect("a contender and a time");
    let pause = Duration::from_secs(pause.parse().expect("seconds"));
    let (servers, runtime) = (Servers::start(SERVERS + WARM), runtime());
    let (warm, rest) = servers.urls.split_at(WARM);
    let connect = |urls: &[String]| -> Box<dyn std::any::Any> {
        match contender {
            "rmcp" => Box::new(runtime.block_on(rmcp_all(urls))),
            transport => Box::new(runtime.block_on(connected(transport, urls))),
        }
    };
    let _warm = connect(warm);
    let before = resident_bytes() as f64;
    let _idle = connect(rest);
    std::thread::sleep(SETTLE);
    let each = (resident_bytes() as f64 - before) / 1_024.0 / SERVERS as f64;
    println!("{each} {}", processor_millis_during(pause));
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
