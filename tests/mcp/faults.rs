//! HTTP servers that misbehave: the others are unaffected, errors are typed, nothing is left. That errors come on time is in
//! `time`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arshai::config::McpServerConfig;
use arshai::mcp::{McpCall, McpServerManager};
use arshai::{Config, Deadline, ErrorKind, Outcome};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::scripted::{Reply, Request, Scripted, event, json_body, reply, text, tool};
use crate::support::{
    arguments, connected, connected_with, python, runtime, runtime_with, sockets_to, soon, until,
};

/// How a server answers a call, and the kind of error where it is always the same one.
type Fault = (&'static str, Option<ErrorKind>, fn(&Request) -> Reply);

pub(crate) const FAULTS: [Fault; 20] = [
    ("never answers", Some(ErrorKind::Timeout), |_| Reply::Never),
    ("answers after the deadline", Some(ErrorKind::Timeout), |_| {
        Reply::After(Duration::from_secs(2), json_body("{}"))
    }),
    ("answers another id", Some(ErrorKind::Timeout), |_| {
        let other = json!({"jsonrpc": "2.0", "id": 999_999, "result": text("not yours")});
        Reply::Now(json_body(other.to_string()))
    }),
    ("accepts it and says no more", Some(ErrorKind::Timeout), |_| {
        Reply::Now(StatusCode::ACCEPTED.into_response())
    }),
    ("ends a stream in order without an answer", None, |_| {
        Reply::Now(([("content-type", "text/event-stream")], ": hello\n\n").into_response())
    }),
    ("cancels the call by itself", None, |request| {
        let id = &request.message["id"];
        let cancelled =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        endless(event(&cancelled))
    }),
    ("reports progress for ever", Some(ErrorKind::Timeout), |request| {
        let token = &request.message["params"]["_meta"]["progressToken"];
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": 1}});
        endless(event(&progress).repeat(1_000))
    }),
    ("closes in the middle of an answer", None, |_| broken("application/json", "{\"jsonrpc\":")),
    ("closes in the middle of a stream", None, |_| broken("text/event-stream", ": hello\n\n")),
    ("closes in the middle of an event", None, |_| broken("text/event-stream", "data: {")),
    ("sends 100 MiB", Some(ErrorKind::TooLarge), |_| huge("application/json")),
    ("sends an event of 100 MiB", None, |_| huge("text/event-stream")),
    ("sends half an object", Some(ErrorKind::Protocol), |_| Reply::Now(json_body("{"))),
    ("sends a word", Some(ErrorKind::Protocol), |_| Reply::Now(json_body("nothing"))),
    ("sends a list", Some(ErrorKind::Protocol), |_| Reply::Now(json_body("[]"))),
    ("sends an empty object", Some(ErrorKind::Protocol), |_| Reply::Now(json_body("{}"))),
    ("sends neither result nor error", Some(ErrorKind::Protocol), |_| {
        Reply::Now(json_body("{\"jsonrpc\":\"2.0\"}"))
    }),
    ("sends a page", Some(ErrorKind::Protocol), |_| Reply::Now(axum::response::Html("<p>").into_response())),
    ("answers 500", Some(ErrorKind::Unavailable), |_| {
        Reply::Now(StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }),
    ("answers 404 for the session", Some(ErrorKind::Unavailable), |_| {
        Reply::Now(StatusCode::NOT_FOUND.into_response())
    }),
];

/// A stream that begins with `events` and stays open.
fn endless(events: String) -> Reply {
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(events))]);
    let body = Body::from_stream(chunks.chain(futures_util::stream::pending()));
    Reply::Now(([("content-type", "text/event-stream")], body).into_response())
}

fn broken(content_type: &'static str, beginning: &'static str) -> Reply {
    let chunks = [Ok(Bytes::from(beginning)), Err(std::io::Error::other("reset"))];
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    Reply::Now(([("content-type", content_type)], body).into_response())
}

fn huge(content_type: &'static str) -> Reply {
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let chunks = futures_util::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    Reply::Now(([("content-type", content_type)], Body::from_stream(chunks)).into_response())
}

/// Tasks of this test's runtime.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_call_leaves_the_others_alone_and_no_task_and_no_socket() {
    for (fault, _, answer) in FAULTS {
        let faulty = Scripted::start("faulty", move |request, before| match request.method() {
            "tools/call" if before == 0 => answer(request),
            _ => Reply::Well,
        });
        let good = Scripted::start("good", |_, _| Reply::Well);
        let (runtime, manager) = connected([faulty.config.clone(), good.config.clone()]).await;
        let before = (tasks(), sockets_to(&faulty.origin));
        let deadline = Deadline::after(Duration::from_millis(300));
        let call = manager.call_tool(McpCall::new("faulty", "pay").with_deadline(deadline));
        let other = manager.call_tool(McpCall::new("good", "pay"));
        let (error, other) = tokio::join!(call, other);
        error.expect_err(fault);
        assert_eq!(other.expect("the other is unaffected").first_text(), Some("done"), "{fault}");
        until(fault, || tasks() <= before.0 && sockets_to(&faulty.origin) <= before.1).await;
        until("it is usable again", || manager.connected_servers().len() == 2).await;
        manager.call_tool(McpCall::new("faulty", "pay")).await.expect("only that call fails");
        drop((runtime, manager));
        until(fault, || tasks() == 0).await;
        until(fault, || sockets_to(&faulty.origin) + sockets_to(&good.origin) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_down_or_does_not_exist_leaves_the_others_usable() {
    let mute = Scripted::start("mute", |_, _| Reply::Never);
    let missing = McpServerConfig::stdio("missing", "/nonexistent/program", []);
    let exits = McpServerConfig::stdio("exits", "true", []);
    let mut refused = McpServerConfig::http("refused", "http://127.0.0.1:9/mcp");
    refused.required = true;
    let runtime = runtime([mute.config.clone(), missing, exits, refused, python("python")]);
    let manager = runtime.mcp().expect("compiled in");
    let began = Instant::now();
    let error =
        manager.initialize(Deadline::after(Duration::from_secs(8))).await.expect_err("one is required");
    assert!(began.elapsed() < Duration::from_millis(8_200), "{:?}", began.elapsed());
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(manager.connected_servers(), ["python"], "{:?}", manager.servers());
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
    assert_eq!(manager.call_tool(call).await.expect("it answers").first_text(), Some("2"));
    for server in ["mute", "missing", "exits", "refused"] {
        let began = Instant::now();
        let error = manager.call_tool(McpCall::new(server, "any")).await.expect_err("it is down");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotSent), "{error}");
        assert!(began.elapsed() < Duration::from_millis(100));
    }
    let unknown = manager.call_tool(McpCall::new("nobody", "any")).await.expect_err("it is not configured");
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_patience_at_connecting_gets_it() {
    for (status, retry_after) in [(StatusCode::TOO_MANY_REQUESTS, 60), (StatusCode::SERVICE_UNAVAILABLE, 90)]
    {
        let server = Scripted::start("server", move |_, _| {
            Reply::Now((status, [("retry-after", retry_after.to_string())]).into_response())
        });
        let mut config = server.config.clone();
        config.max_retries = Some(1);
        let (_runtime, manager) = connected([config]).await;
        let known = &manager.servers()[0];
        let next = known.next_attempt.expect("there is one");
        assert!(next > Duration::from_secs(retry_after - 10), "{known:?}");
        assert_eq!(server.seen("server/discover").len() + server.seen("initialize").len(), 1, "asked once");
        let error = manager.call_tool(McpCall::new("server", "pay")).await.expect_err("down");
        assert!(
            error.retry_after().is_some_and(|after| after > Duration::from_secs(retry_after - 10)),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_attempt_leaves_no_task_and_no_socket() {
    let server = Scripted::start("mute", |_, _| Reply::Never);
    let mut config = server.config.clone();
    config.max_retries = Some(1);
    let runtime = runtime_with([config], |config| config.mcp.connection_timeout = Duration::from_millis(600));
    let manager = Arc::clone(runtime.mcp().expect("compiled in"));
    manager.initialize(soon()).await.expect("it is not required");
    let first = tasks();
    for _ in 0..3 {
        manager.reconnect("mute", soon()).await.expect_err("it is mute");
    }
    until("nothing adds up", || sockets_to(&server.origin) == 0 && tasks() <= first).await;
    drop((manager, runtime));
    until("no task is left", || tasks() == 0).await;
    assert_eq!(sockets_to(&server.origin), 0);
}

fn names(manager: &Arc<dyn McpServerManager>) -> Vec<String> {
    manager.get_all_available_tools().into_iter().map(|tool| tool.original_name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_tools_lose_only_themselves() {
    let recursive = json!({"type": "object", "properties": {"child": {"$ref": "#"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}});
    let server = Scripted::with_tools(
        "server",
        [
            json!({"name": "no schema"}),
            json!({"name": "recursive", "inputSchema": recursive}),
            tool(&"n".repeat(10_000)),
            json!({"description": "no name"}),
            json!(7),
            tool("good"),
            tool("good"),
        ],
    );
    let (_runtime, manager) = connected([server.config.clone()]).await;
    assert_eq!(names(&manager), ["no schema", "recursive", "good"], "{:?}", manager.servers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_100_000_tools_the_first_thousand_are_offered() {
    let server = Scripted::with_tools("server", (0..100_000).map(|n| tool(&format!("tool{n}"))));
    let (_runtime, manager) = connected([server.config.clone()]).await;
    assert_eq!(manager.get_all_available_tools().len(), 1_000, "{:?}", manager.servers());
    manager.call_tool(McpCall::new("server", "tool0")).await.expect("it works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_never_ends_costs_a_hundred_pages_and_one_that_repeats_two() {
    for (repeats, pages) in [(false, 100), (true, 2)] {
        let server = Scripted::start("server", move |request, before| match request.method() {
            "tools/list" => {
                let next = if repeats { "again".to_owned() } else { format!("page{before}") };
                let page = json!({"tools": [tool(&format!("tool{before}"))], "nextCursor": next});
                Reply::Now(reply(request, page))
            }
            _ => Reply::Well,
        });
        let (_runtime, manager) = connected([server.config.clone()]).await;
        assert_eq!(names(&manager).len(), pages, "{:?}", manager.servers());
        assert_eq!(server.seen("tools/list").len(), pages);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_addresses_are_refused_of_all_servers_or_of_one() {
    let server = Scripted::start("server", |_, _| Reply::Well);
    let config = |name: &str, host: &str, deny| {
        let mut config = server.config.clone();
        (config.name, config.max_retries) = (name.to_owned(), Some(1));
        config.url = config.url.map(|url| url.replace("127.0.0.1", host));
        config.deny_private_addresses = deny;
        config
    };
    let inherits = || [config("address", "127.0.0.1", None), config("name", "localhost", None)];
    for backend in ["rmcp", "legacy"] {
        let all = inherits().into_iter().chain([config("own", "127.0.0.1", Some(false))]);
        let deny = |config: &mut Config| {
            config.mcp.deny_private_addresses = true;
            config.mcp.backend = backend.to_owned();
        };
        let (_runtime, manager) = connected_with(all, deny).await;
        assert_eq!(manager.connected_servers(), ["own"], "{:?}", manager.servers());
        for status in manager.failed_servers() {
            assert!(
                status.error.as_ref().is_some_and(|error| error.contains("private address")),
                "{status:?}"
            );
        }
        let all = inherits().into_iter().chain([config("own", "127.0.0.1", Some(true))]);
        let (_runtime, manager) = connected_with(all, |config| config.mcp.backend = backend.to_owned()).await;
        assert_eq!(manager.connected_servers(), ["address", "name"], "{:?}", manager.servers());
    }
}
