//! The era that a server speaks: found out, remembered, found out anew when the server was replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arshai::config::McpProtocol;
use arshai::mcp::{McpCall, McpServerHealth};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::scripted::{Reply, Scripted, initialized, json_body, reply, stateless, tool};
use crate::support::{connected, connected_with, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_earlier_era_is_found_however_it_answers_the_probe() {
    for probe in ["400", "500", "{}", "empty result", "mute", "html", "404", "method not found"] {
        let server = Scripted::start("server", move |request, _| match (request.method(), probe) {
            ("server/discover", "400") => Reply::Now(StatusCode::BAD_REQUEST.into_response()),
            ("server/discover", "404") => Reply::Now(StatusCode::NOT_FOUND.into_response()),
            ("server/discover", "500") => Reply::Now(StatusCode::INTERNAL_SERVER_ERROR.into_response()),
            ("server/discover", "{}") => Reply::Now(json_body("{}")),
            ("server/discover", "empty result") => Reply::Now(reply(request, json!({}))),
            ("server/discover", "html") => Reply::Now("<html>".into_response()),
            ("server/discover", "mute") => Reply::Never,
            ("server/discover", _) => Reply::Now(
                axum::Json(json!({"jsonrpc": "2.0", "id": request.message["id"],
                    "error": {"code": -32601, "message": "Method not found"}}))
                .into_response(),
            ),
            _ => Reply::Well,
        });
        let (_runtime, manager) = connected_with([server.config.clone()], |config| {
            config.mcp.connection_timeout = Duration::from_secs(6);
        })
        .await;
        let status = &manager.servers()[0];
        assert_eq!((status.health, status.attempts), (McpServerHealth::Healthy, 1), "{probe}: {status:?}");
        assert_eq!(status.era, Some(McpProtocol::Initialize), "{probe}");
        manager.reconnect("server", soon()).await.expect("it connects again");
        assert_eq!(server.seen("server/discover").len(), 1, "{probe}: the answer is remembered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_era_is_remembered_through_an_outage_and_found_anew_when_the_server_was_replaced() {
    let (is_down, is_new) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (down, new) = (Arc::clone(&is_down), Arc::clone(&is_new));
    let server = Scripted::start("server", move |request, _| {
        if down.load(Ordering::SeqCst) {
            return Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response());
        }
        match (new.load(Ordering::SeqCst), request.method()) {
            (true, "initialize") => Reply::Now(
                axum::Json(json!({"jsonrpc": "2.0", "id": request.message["id"],
                    "error": {"code": -32601, "message": "Method not found"}}))
                .into_response(),
            ),
            (true, _) => stateless(request).map_or(Reply::Well, Reply::Now),
            (false, _) => Reply::Well,
        }
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    assert_eq!(server.seen("server/discover").len(), 1);
    is_down.store(true, Ordering::SeqCst);
    manager.reconnect("server", soon()).await.expect_err("it is down");
    assert_eq!(manager.servers()[0].era, Some(McpProtocol::Initialize), "still known");
    is_down.store(false, Ordering::SeqCst);
    manager.reconnect("server", soon()).await.expect("it is back");
    assert_eq!(server.seen("server/discover").len(), 1, "not probed again after one failure");

    is_new.store(true, Ordering::SeqCst);
    manager.reconnect("server", soon()).await.expect_err("it wants another handshake now");
    until("it is connected in the other era", || manager.servers()[0].era == Some(McpProtocol::Stateless))
        .await;
    assert_eq!(manager.servers()[0].protocol_version.as_deref(), Some("2026-07-28"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_either_era_that_failed_a_check_is_unhealthy_until_it_answers() {
    for is_stateless in [true, false] {
        let is_down = Arc::new(AtomicBool::new(false));
        let down = Arc::clone(&is_down);
        let server = Scripted::start("server", move |request, _| match request.method() {
            _ if down.load(Ordering::SeqCst) => Reply::Now(StatusCode::SERVICE_UNAVAILABLE.into_response()),
            _ if is_stateless => stateless(request).map_or(Reply::Well, Reply::Now),
            _ => Reply::Well,
        });
        let (_runtime, manager) = connected([server.config.clone()]).await;
        for answers_by_call in [true, false] {
            is_down.store(true, Ordering::SeqCst);
            assert_eq!(manager.health_check(soon()).await[0].health, McpServerHealth::Unhealthy);
            let status = &manager.servers()[0];
            assert_eq!((status.health, status.connects), (McpServerHealth::Unhealthy, 1), "{status:?}");
            assert!(status.error.is_some());
            is_down.store(false, Ordering::SeqCst);
            if answers_by_call {
                manager.call_tool(McpCall::new("server", "pay")).await.expect("it is back");
            } else {
                assert_eq!(manager.health_check(soon()).await[0].health, McpServerHealth::Healthy);
            }
            let status = &manager.servers()[0];
            assert_eq!((status.health, &status.error), (McpServerHealth::Healthy, &None));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonsense_version_is_refused() {
    let server = Scripted::start("server", |request, _| match request.method() {
        "initialize" => Reply::Now(initialized(request, "1999-01-01", None)),
        _ => Reply::Well,
    });
    let mut config = server.config.clone();
    config.max_retries = Some(1);
    let (_runtime, manager) = connected([config]).await;
    let status = &manager.servers()[0];
    assert_eq!(status.health, McpServerHealth::Error);
    assert!(status.error.as_ref().is_some_and(|error| error.contains("1999-01-01")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_era_is_neither_probed_nor_fallen_back_from() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let mut fixed = server.config.clone();
    fixed.protocol = McpProtocol::Initialize;
    let (_runtime, manager) = connected([fixed.clone()]).await;
    assert_eq!(manager.connected_servers(), ["server"]);
    assert!(server.seen("server/discover").is_empty());
    fixed.protocol = McpProtocol::Stateless;
    fixed.max_retries = Some(1);
    let initialized = server.seen("initialize").len();
    let (_runtime, manager) = connected([fixed]).await;
    assert!(manager.connected_servers().is_empty());
    assert_eq!(server.seen("initialize").len(), initialized);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_fetched_again_when_its_lifetime_is_over() {
    let server = Scripted::start("server", |request, before| match request.method() {
        "server/discover" => Reply::Now(reply(
            request,
            json!({"resultType": "complete",
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        )),
        "tools/list" => {
            let name = if before == 0 { "first" } else { "second" };
            Reply::Now(reply(
                request,
                json!({"resultType": "complete", "tools": [tool(name)], "ttlMs": 1_000}),
            ))
        }
        _ => stateless(request).map_or(Reply::Well, Reply::Now),
    });
    let (_runtime, manager) = connected([server.config.clone()]).await;
    let names =
        || manager.get_all_available_tools().into_iter().map(|tool| tool.original_name).collect::<Vec<_>>();
    assert_eq!(names(), ["first"], "{:?}", manager.servers());
    until("the list is fetched again", || names() == ["second"]).await;
    let lists = server.seen("tools/list");
    assert!(lists[1].at - lists[0].at >= Duration::from_secs(1), "not before");
    let done = manager.call_tool(McpCall::new("server", "pay")).await.expect("it answers");
    assert_eq!(done.first_text(), Some("done"));
}
