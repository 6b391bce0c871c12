//! When things happen, on a clock that stands still while there is work: no network, no waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai::mcp::{McpCall, McpServerHealth};
use arshai::{Deadline, ErrorKind, Outcome};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::faults::FAULTS;
use crate::in_process::InProcess;
use crate::scripted::{Reply, event, events, initialized, reply, text};
use crate::support::{running_call, soon};

const MINUTE: Duration = Duration::from_secs(60);

fn unavailable() -> Reply {
    Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response())
}

#[tokio::test(start_paused = true)]
async fn whatever_a_server_does_the_error_of_a_call_comes_within_100_ms_of_its_deadline() {
    for (fault, kind, answer) in FAULTS {
        let servers = InProcess::default().with("good", |_, _| Reply::Well);
        let servers = Arc::new(servers.with("faulty", move |request, _| match request.method() {
            "tools/call" => answer(request),
            _ => Reply::Well,
        }));
        let (_runtime, manager) = servers.runtime(|_| {});
        manager.initialize(soon()).await.expect("none is required");
        let began = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(300));
        let call = manager.call_tool(McpCall::new("faulty", "pay").with_deadline(deadline));
        let other = async {
            let called = manager.call_tool(McpCall::new("good", "pay")).await;
            (called, began.elapsed())
        };
        let (error, (other, unaffected)) = tokio::join!(call, other);
        let elapsed = began.elapsed();
        let error = error.expect_err(fault);
        assert!(elapsed <= Duration::from_millis(400), "{fault}: {elapsed:?}");
        assert!(error.to_string().contains("mcp:faulty"), "{fault}: {error}");
        assert!(kind.is_none_or(|kind| error.kind() == kind), "{fault}: {error}");
        assert_eq!(error.outcome(), Outcome::Unknown, "{fault}: {error}");
        assert_eq!(servers.script("faulty").called().len(), 1, "{fault}: never repeated");
        assert_eq!(other.expect("the other is unaffected").first_text(), Some("done"), "{fault}");
        assert!(unaffected <= Duration::from_millis(1), "{fault}: {unaffected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_503_for_a_minute_is_connected_when_it_is_well() {
    let began = Instant::now();
    let servers = Arc::new(InProcess::default().with("server", move |_, _| match began.elapsed() < MINUTE {
        true => unavailable(),
        false => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|config| config.mcp.default_max_retries = 1);
    manager.initialize(soon()).await.expect("none is required");
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::Error);
    assert!(status.error.as_ref().is_some_and(|error| error.contains("503")), "{status:?}");
    assert!(status.next_attempt.is_some_and(|next| next <= Duration::from_secs(1)), "{status:?}");
    while manager.connected_servers().is_empty() {
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("it is down");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
        assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(30)), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let elapsed = began.elapsed();
    assert!((MINUTE..MINUTE + Duration::from_secs(31)).contains(&elapsed), "{elapsed:?}");
    let attempts = manager.servers()[0].attempts;
    assert!((5..=20).contains(&attempts), "{attempts}");
    manager.call_tool(McpCall::new("server", "pay")).await.expect("it works");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_for_a_day_is_tried_slowly_with_jitter_and_without_end() {
    let servers = Arc::new(InProcess::default().with("server", |_, _| unavailable()));
    let (_runtime, manager) = servers.runtime(|config| config.mcp.default_max_retries = 1);
    manager.initialize(soon()).await.expect("none is required");
    tokio::time::sleep(24 * 60 * MINUTE).await;
    let attempts = manager.servers()[0].attempts;
    let day = 24 * 60 * 60;
    assert!((day / 30..=day / 10).contains(&attempts), "{attempts}");
    let seen = servers.script("server").seen("initialize");
    let delays: Vec<_> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).skip(10).collect();
    assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(31)), "{:?}", delays.iter().max());
    assert!(delays.iter().any(|delay| *delay != delays[0]), "no jitter");
}

#[tokio::test(start_paused = true)]
async fn twenty_servers_of_which_ten_hang_leave_the_other_ten_usable_within_the_bound() {
    let names = |kind: &str| -> Vec<_> { (0..10).map(|number| format!("{kind}{number}")).collect() };
    let mut servers = InProcess::default();
    for (good, mute) in names("good").iter().zip(names("mute")) {
        servers = servers.with(good, |_, _| Reply::Well).with(&mute, |_, _| Reply::Never);
    }
    let servers = Arc::new(servers);
    let (_runtime, manager) = servers.runtime(|config| {
        config.mcp.connection_timeout = Duration::from_secs(4);
        config.mcp.default_max_retries = 3;
    });
    let began = Instant::now();
    manager.initialize(Deadline::after(Duration::MAX)).await.expect("none is required");
    let bound = Duration::from_secs(4).mul_f64(1.5) * 3;
    assert!(began.elapsed() <= bound, "{:?}", began.elapsed());
    assert_eq!(manager.connected_servers(), names("good"));
    let calls = names("good").into_iter().map(|name| manager.call_tool(McpCall::new(name, "pay")));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_at_listing_is_down_until_it_lists() {
    let began = Instant::now();
    let servers = InProcess::default().with("server", move |request, _| match request.method() {
        "tools/list" if began.elapsed() < Duration::from_secs(10) => unavailable(),
        _ => Reply::Well,
    });
    let (_runtime, manager) = Arc::new(servers).runtime(|config| config.mcp.default_max_retries = 1);
    manager.initialize(soon()).await.expect("none is required");
    assert_eq!(manager.servers()[0].health, McpServerHealth::Error, "{:?}", manager.servers());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy, "{:?}", manager.servers());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_whose_stream_asks_to_be_resumed_for_ever_leaves_no_task() {
    for retry in ["1", "99999999999"] {
        let resumable = move || {
            let events = format!("retry: {retry}\nid: 1\ndata:\n\n");
            Reply::Now(([("content-type", "text/event-stream")], events).into_response())
        };
        let servers = InProcess::default().with("server", move |request, _| match request.method() {
            "initialize" | "GET" => resumable(),
            _ => Reply::Well,
        });
        let (runtime, manager) = Arc::new(servers).runtime(|config| config.mcp.default_max_retries = 1);
        manager.initialize(Deadline::after(2 * MINUTE)).await.expect("none is required");
        assert_eq!(manager.servers()[0].health, McpServerHealth::Error, "{:?}", manager.servers());
        drop((runtime, manager));
        tokio::time::sleep(MINUTE).await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "retry: {retry}");
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_for_a_reconnect_one_attempt_runs_at_a_time() {
    let running = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&running);
    let servers = Arc::new(InProcess::default().with("server", move |request, _| match request.method() {
        "initialize" => {
            assert_eq!(counter.fetch_add(1, Ordering::SeqCst), 0, "two attempts at a time");
            Reply::After(Duration::from_secs(1), initialized(request, "2025-11-25", Some("s1")))
        }
        "tools/list" => {
            counter.store(0, Ordering::SeqCst);
            Reply::Well
        }
        _ => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    let reconnects = (0..20).map(|_| manager.reconnect("server", soon()));
    for reconnected in join_all(reconnects).await {
        reconnected.expect("it reconnects");
    }
    assert!(servers.script("server").seen("initialize").len() <= 3, "they share attempts");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_server_falls_silent_ends_at_its_idle_timeout() {
    let servers = Arc::new(InProcess::default().with("server", |request, _| match request.method() {
        "tools/call" => {
            let (sender, response) = events();
            let token = request.message["params"]["_meta"]["progressToken"].clone();
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1}});
            tokio::spawn(async move {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_millis(800)).await;
                    let _ = sender.send(event(&progress));
                }
                sender.closed().await;
            });
            Reply::Now(response)
        }
        _ => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    let began = Instant::now();
    let call =
        McpCall::new("server", "pay").with_idle_timeout(Duration::from_secs(1)).with_progress(|_, _, _| {});
    let error = manager.call_tool(call).await.expect_err("it falls silent");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    let expected = Duration::from_secs(5);
    assert!(
        (expected..=expected + Duration::from_millis(100)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_max_concurrency_wait_for_a_permit_within_their_deadlines() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let servers = Arc::new(InProcess::default().with("server", move |request, _| match request.method() {
        "tools/call" => {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let now = Arc::clone(&now);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                now.fetch_sub(1, Ordering::SeqCst);
            });
            Reply::After(Duration::from_secs(1), reply(request, text("done")))
        }
        _ => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|config| config.mcp.servers[0].max_concurrency = 2);
    manager.initialize(soon()).await.expect("none is required");
    let began = Instant::now();
    let call = || McpCall::new("server", "pay").with_deadline(Deadline::after(Duration::from_millis(2_500)));
    let results = join_all((0..6).map(|_| manager.call_tool(call()))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4, "{results:?}");
    assert!(began.elapsed() <= Duration::from_millis(2_600), "{:?}", began.elapsed());
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_a_new_session_waits_no_longer_than_its_deadline() {
    let servers = Arc::new(InProcess::default().with("server", |request, before| match request.method() {
        "server/discover" | "initialize" if before > 0 => Reply::Never,
        "tools/call" => Reply::Now(StatusCode::NOT_FOUND.into_response()),
        _ => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    manager.call_tool(McpCall::new("server", "pay")).await.expect_err("the session has expired");
    let began = Instant::now();
    let call = McpCall::new("server", "pay").with_deadline(Deadline::after(Duration::from_millis(300)));
    let error = manager.call_tool(call).await.expect_err("no session in time");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    assert!(began.elapsed() <= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_throttles_calls_is_not_contacted_before_that_time() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let servers =
            Arc::new(InProcess::default().with("server", move |request, before| match request.method() {
                "tools/call" if before == 0 => Reply::Now((status, [("retry-after", "2")]).into_response()),
                _ => Reply::Well,
            }));
        let (_runtime, manager) = servers.runtime(|_| {});
        manager.initialize(soon()).await.expect("none is required");
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("throttled");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)), "{error}");
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("still throttled");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::RateLimited, Outcome::NotSent), "{error}");
        assert!(error.retry_after().is_some_and(|after| after <= Duration::from_secs(2)), "{error}");
        let own = manager.call_tool(McpCall::new("server", "pay").with_token("alice".to_owned())).await;
        own.expect("a call with a token of its own is another client to the server");
        tokio::time::sleep(Duration::from_secs(2)).await;
        manager.call_tool(McpCall::new("server", "pay")).await.expect("the time has come");
        assert_eq!(servers.script("server").called().len(), 3, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let servers = Arc::new(InProcess::default().with("server", |_, _| Reply::Well));
    let (_runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    for timeout in [Duration::ZERO, Duration::from_millis(1)] {
        let deadline = Deadline::after(timeout);
        tokio::time::sleep(timeout).await;
        let call = McpCall::new("server", "pay").with_deadline(deadline);
        let error = manager.call_tool(call).await.expect_err("it is too late");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent), "{error}");
    }
    assert_eq!(servers.script("server").called().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_replaced_at_once() {
    let servers = Arc::new(InProcess::default().with("server", |request, before| match request.method() {
        "tools/call" if before == 0 => Reply::Now(StatusCode::NOT_FOUND.into_response()),
        _ => Reply::Well,
    }));
    let (_runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    let lost = Instant::now();
    manager.call_tool(McpCall::new("server", "pay")).await.expect_err("the session has expired");
    while manager.servers()[0].connects < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(manager.servers()[0].health, McpServerHealth::Healthy);
    assert!(lost.elapsed() <= Duration::from_millis(10), "{:?}", lost.elapsed());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_a_call_at_its_deadline_and_gives_a_hanging_delete_a_second() {
    let servers = Arc::new(InProcess::default().with("server", |request, _| match request.method() {
        "tools/call" | "DELETE" => Reply::Never,
        _ => Reply::Well,
    }));
    let (runtime, manager) = servers.runtime(|_| {});
    manager.initialize(soon()).await.expect("none is required");
    let call = running_call(&manager, "server", servers.script("server")).await;
    let began = Instant::now();
    let report = runtime.shutdown(Deadline::after(Duration::from_millis(300))).await;
    assert!(began.elapsed() <= Duration::from_millis(1_400), "{:?}", began.elapsed());
    assert!(!report.is_clean(), "{report:?}");
    let error = call.await.expect("no panic").expect_err("aborted");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}
