//! Streams that stay open: beside calls, without a timeout in total, resumed and refreshed with restraint.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arshai::Outcome;
use arshai::mcp::McpCall;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;

use crate::scripted::{Reply, Scripted, event, events, stateless};
use crate::support::{connected_with, runtime_with, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_takes_no_connection_from_calls_and_outlasts_their_timeout() {
    let open = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&open);
    let server = Scripted::start("server", move |request, _| match request.method() {
        "GET" => {
            let (sender, response) = events();
            senders.lock().expect("no panic").push(sender);
            Reply::Now(response)
        }
        _ => Reply::Well,
    });
    let mut config = server.config.clone();
    config.timeout = Duration::from_secs(1);
    let (runtime, manager) = connected_with([config], |config| {
        config.pool.max_connections = 1;
        config.http.total_timeout = Duration::from_secs(1);
        config.http.read_timeout = Duration::from_secs(1);
    })
    .await;
    until("the stream is open", || !open.lock().expect("no panic").is_empty()).await;
    let opened = server.seen("GET")[0].at;
    let limit = |key: &str| {
        let stats = runtime.stats();
        let limits = stats.components.iter().flat_map(|component| component.limits.clone());
        limits.filter(|limit| limit.key == key).map(|limit| (limit.used, limit.limit)).next()
    };
    assert_eq!(limit("mcp.max_streams"), Some((1, Some(64))), "it is counted by itself");
    while opened.elapsed() < Duration::from_secs(3) {
        let done =
            manager.call_tool(McpCall::new("server", "pay")).await.expect("the one connection is free");
        assert_eq!(done.first_text(), Some("done"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.seen("GET").len(), 1, "not cut by a timeout");
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    open.lock().expect("no panic")[0].send(event(&changed)).expect("it is open");
    until("the list is fetched again", || server.seen("tools/list").len() == 2).await;
    assert!(runtime.shutdown(soon()).await.is_clean());
    until("the stream is closed", || open.lock().expect("no panic")[0].is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_of_the_stateless_era_outlasts_the_timeout_of_calls_and_is_renewed_when_it_ends() {
    let open = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&open);
    let server = Scripted::start("server", move |request, _| match request.method() {
        "subscriptions/listen" => {
            let (sender, response) = events();
            let meta = json!({"io.modelcontextprotocol/subscriptionId": request.message["id"]});
            let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": meta, "notifications": {"toolsListChanged": true}}});
            sender.send(event(&acknowledged)).expect("it is open");
            senders.lock().expect("no panic").push((sender, meta));
            Reply::Now(response)
        }
        _ => stateless(request).map_or(Reply::Well, Reply::Now),
    });
    let mut config = server.config.clone();
    config.timeout = Duration::from_secs(1);
    let (_runtime, _manager) = connected_with([config], |config| config.pool.max_connections = 1).await;
    until("it is subscribed", || !open.lock().expect("no panic").is_empty()).await;
    let opened = server.seen("subscriptions/listen")[0].at;
    until("longer than a call may take", || opened.elapsed() > Duration::from_millis(2_500)).await;
    assert_eq!(server.seen("subscriptions/listen").len(), 1);
    let (lists, changed) = (server.seen("tools/list").len(), |meta: &serde_json::Value| {
        event(
            &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}),
        )
    });
    {
        let open = open.lock().expect("no panic");
        open[0].0.send(changed(&open[0].1)).expect("it is open");
    }
    until("the list is fetched again", || server.seen("tools/list").len() == lists + 1).await;
    open.lock().expect("no panic").clear();
    until("it is subscribed again", || server.seen("subscriptions/listen").len() == 2).await;
    until("what changed in between is seen", || server.seen("tools/list").len() == lists + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_stream_that_is_refused_at_first_is_opened_later() {
    let open = Arc::new(Mutex::new(Vec::new()));
    let senders = Arc::clone(&open);
    let server = Scripted::start("server", move |request, before| match request.method() {
        "GET" if before < 2 => Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        "GET" => {
            let (sender, response) = events();
            senders.lock().expect("no panic").push(sender);
            Reply::Now(response)
        }
        _ => Reply::Well,
    });
    let (_runtime, _manager) = connected_with([server.config.clone()], |_| {}).await;
    until("it is open", || !open.lock().expect("no panic").is_empty()).await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    open.lock().expect("no panic")[0].send(event(&changed)).expect("it is open");
    until("the list is fetched again", || server.seen("tools/list").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_changes_costs_at_most_two_listings_a_second() {
    let server = Scripted::start("server", |request, _| match request.method() {
        "GET" => {
            let (sender, response) = events();
            let changed = event(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
            tokio::spawn(async move {
                while sender.send(changed.clone()).is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            Reply::Now(response)
        }
        _ => Reply::Well,
    });
    let (_runtime, _manager) = connected_with([server.config.clone()], |_| {}).await;
    until("the list is fetched again and again", || server.seen("tools/list").len() >= 6).await;
    let lists = server.seen("tools/list");
    for (number, window) in lists.windows(3).enumerate() {
        assert!(window[2].at - window[0].at >= Duration::from_millis(950), "listing {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_asks_to_be_resumed_after_10_ms_for_ever_is_resumed_with_restraint() {
    let server = Scripted::start("server", |request, before| match request.method() {
        "GET" => {
            let (sender, response) = events();
            let _ = sender.send(format!("id: {before}\nretry: 10\ndata:\n\n"));
            Reply::Now(response)
        }
        _ => Reply::Well,
    });
    let (_runtime, manager) = connected_with([server.config.clone()], |_| {}).await;
    until("it is resumed", || server.seen("GET").len() >= 4).await;
    let gets = server.seen("GET");
    // Once at once, then after at least a second, and ever later while it brings nothing.
    assert!(gets[3].at - gets[0].at >= Duration::from_millis(1_950), "{:?}", gets[3].at - gets[0].at);
    manager.call_tool(McpCall::new("server", "pay")).await.expect("calls are unaffected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_for_connecting_of_the_environment_reaches_the_servers() {
    let config = arshai::config::ConfigLoader::new()
        .vars([("ARSHAI_CONNECTION_TIMEOUT".into(), "2".into())])
        .load()
        .expect("valid");
    assert_eq!(config.effective().mcp.connection_timeout, Duration::from_secs(2));
    let server = Scripted::start("server", |_, _| Reply::Never);
    let mut server_config = server.config.clone();
    server_config.max_retries = Some(1);
    let runtime = runtime_with([server_config], |ours| {
        let mcp = (ours.mcp.enabled, ours.mcp.servers.clone());
        *ours = config;
        (ours.mcp.enabled, ours.mcp.servers) = mcp;
    });
    let manager = runtime.mcp().expect("compiled in");
    let began = std::time::Instant::now();
    manager.initialize(soon()).await.expect("it is not required");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("it is down");
    assert_eq!(error.outcome(), Outcome::NotSent);
}
