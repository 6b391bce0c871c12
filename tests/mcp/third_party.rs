//! Servers that others wrote: what they offer is listed, and everything that they answer arrives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arshai::config::{McpProtocol, McpServerConfig};
use arshai::mcp::{
    McpCall, McpClientCapabilities, McpClientHandler, McpContent, McpElicitation, McpElicitationResult,
    McpRoot, McpServerManager, McpToolResult,
};
use arshai::{Deadline, ErrorKind, Result};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::http::{HttpServer, command};
use crate::support::{arguments, builder, connected, everything, installed, python, soon};

fn npm(name: &str, package: &str, args: &[&str]) -> McpServerConfig {
    let script = installed(&format!("node/node_modules/@modelcontextprotocol/{package}/dist/index.js"));
    let script = script.to_string_lossy().into_owned();
    McpServerConfig::stdio(name, "node", std::iter::once(script.as_str()).chain(args.iter().copied()))
}

async fn everything_over_http() -> HttpServer {
    HttpServer::start(|port| {
        let mut command = command(&everything("npm"), &["streamableHttp"]);
        command.env("PORT", port.to_string());
        command
    })
    .await
}

async fn call(manager: &dyn McpServerManager, server: &str, tool: &str, args: Value) -> McpToolResult {
    let call = McpCall::new(server, tool).with_arguments(arguments(args));
    manager.call_tool(call).await.unwrap_or_else(|error| panic!("{server}.{tool}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_servers_of_others_are_listed_and_called_under_one_manager() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().canonicalize().expect("it is there");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut memory = npm("memory", "server-memory", &[]);
    memory.env.insert("MEMORY_FILE_PATH".into(), path("memory.jsonl").into());
    let time = installed("mcp-python/bin/python").to_string_lossy().into_owned();
    let servers = [
        everything("everything"),
        npm("files", "server-filesystem", &[&folder.to_string_lossy()]),
        memory,
        McpServerConfig::stdio("time", time, ["-m", "mcp_server_time"]),
        python("python"),
    ];
    let (runtime, manager) = connected(servers).await;
    let status = manager.servers();
    let tools: Vec<_> = status.iter().map(|server| (server.name.as_str(), server.tools)).collect();
    assert_eq!(
        tools,
        [("everything", 13), ("files", 14), ("memory", 9), ("time", 2), ("python", 6)],
        "{status:?}"
    );
    let listed = manager.get_all_available_tools();
    let names: std::collections::HashSet<_> = listed.iter().map(|tool| &tool.name).collect();
    assert_eq!(names.len(), listed.len());

    let note = json!({"path": path("note.txt"), "content": "remember the milk"});
    call(&*manager, "files", "write_file", note).await;
    let read = call(&*manager, "files", "read_text_file", json!({"path": path("note.txt")})).await;
    assert_eq!(read.first_text(), Some("remember the milk"));
    let outside = call(&*manager, "files", "read_text_file", json!({"path": "/etc/hostname"})).await;
    assert!(outside.is_error, "{outside:?}");

    let ada = json!({"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]});
    call(&*manager, "memory", "create_entities", json!({ "entities": [ada] })).await;
    let graph = call(&*manager, "memory", "read_graph", json!({})).await;
    assert_eq!(graph.structured.expect("it has a schema")["entities"][0]["name"], "Ada");

    let now = call(&*manager, "time", "get_current_time", json!({"timezone": "Etc/UTC"})).await;
    assert!(now.text().contains("Etc/UTC"), "{now:?}");
    assert_eq!(call(&*manager, "python", "add", json!({"a": 1, "b": 1})).await.first_text(), Some("2"));
    assert!(runtime.shutdown(soon()).await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_content_arrives_over_both_transports() {
    let server = everything_over_http().await;
    let servers = [everything("stdio"), McpServerConfig::http("http", &server.1)];
    let (_runtime, manager) = connected(servers).await;
    for server in ["stdio", "http"] {
        let text = call(&*manager, server, "echo", json!({"message": "hello"})).await;
        assert_eq!(text.content, [McpContent::Text("Echo: hello".into())]);
        let image = call(&*manager, server, "get-tiny-image", json!({})).await;
        let is_png = |content: &McpContent| {
            matches!(content, McpContent::Image { data, mime_type }
                if mime_type == "image/png" && data.starts_with(b"\x89PNG"))
        };
        assert!(image.content.iter().any(is_png), "{image:?}");
        let resource = json!({"resourceType": "Text", "resourceId": 1});
        let resource = call(&*manager, server, "get-resource-reference", resource).await;
        let is_text = |content: &McpContent| matches!(content, McpContent::Resource { text: Some(_), .. });
        assert!(resource.content.iter().any(is_text), "{resource:?}");
        let resource = json!({"resourceType": "Blob", "resourceId": 2});
        let resource = call(&*manager, server, "get-resource-reference", resource).await;
        let is_blob = |content: &McpContent| matches!(content, McpContent::Resource { blob: Some(_), .. });
        assert!(resource.content.iter().any(is_blob), "{resource:?}");
        let links = call(&*manager, server, "get-resource-links", json!({"count": 3})).await;
        let is_link = |content: &&McpContent| matches!(content, McpContent::ResourceLink { .. });
        assert_eq!(links.content.iter().filter(is_link).count(), 3, "{links:?}");
        let weather = call(&*manager, server, "get-structured-content", json!({"location": "Chicago"})).await;
        assert!(weather.structured.expect("it is structured")["temperature"].is_number());
        let annotated = json!({"messageType": "error", "includeImage": true});
        let annotated = call(&*manager, server, "get-annotated-message", annotated).await;
        assert_eq!(annotated.content.len(), 2, "{annotated:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_arrives() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().canonicalize().expect("it is there");
    let path = folder.join("beep.wav");
    std::fs::write(&path, b"RIFF....WAVE").expect("it is written");
    let (_runtime, manager) =
        connected([npm("files", "server-filesystem", &[&folder.to_string_lossy()])]).await;
    let sound = call(&*manager, "files", "read_media_file", json!({ "path": path })).await;
    let expected = McpContent::Audio { data: b"RIFF....WAVE".to_vec().into(), mime_type: "audio/wav".into() };
    assert_eq!(sound.content, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_arrives_over_both_transports() {
    let server = everything_over_http().await;
    let servers = [everything("stdio"), McpServerConfig::http("http", &server.1)];
    let (_runtime, manager) = connected(servers).await;
    for server in ["stdio", "http"] {
        let steps = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&steps);
        let call = McpCall::new(server, "trigger-long-running-operation")
            .with_arguments(arguments(json!({"duration": 0.4, "steps": 4})))
            .with_progress(move |_, total, _| {
                assert_eq!(total, Some(4.0));
                counter.fetch_add(1, Ordering::SeqCst);
            });
        manager.call_tool(call).await.expect("it ends");
        assert!(steps.load(Ordering::SeqCst) >= 3, "{server}: {steps:?}");
    }
}

/// Waits until the Python server has seen `count` cancellations.
async fn until_cancelled(manager: &dyn McpServerManager, count: usize) {
    let began = Instant::now();
    while call(manager, "python", "cancellations", json!({})).await.text() != count.to_string() {
        assert!(began.elapsed() < Duration::from_secs(20), "{count} cancellations are not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_or_ends_at_its_deadline_is_cancelled_on_the_server() {
    let server = HttpServer::start(|port| command(&python("python"), &["http", &port.to_string()])).await;
    for (transport, protocol, seen) in [
        ("stdio", McpProtocol::Stateless, 0),
        ("stdio", McpProtocol::Initialize, 0),
        // One server, which counts on.
        ("http", McpProtocol::Stateless, 0),
        ("http", McpProtocol::Initialize, 2),
    ] {
        let mut config = match transport {
            "http" => McpServerConfig::http("python", &server.1),
            _ => python("python"),
        };
        config.protocol = protocol;
        let (_runtime, manager) = connected([config]).await;
        let begun = Arc::new(tokio::sync::Notify::new());
        let notify = Arc::clone(&begun);
        let slow = McpCall::new("python", "slow")
            .with_arguments(arguments(json!({"seconds": 600})))
            .with_progress(move |_, _, _| {
                notify.notify_one();
            });
        let running = tokio::spawn({
            let (manager, slow) = (Arc::clone(&manager), slow.clone());
            async move { manager.call_tool(slow).await }
        });
        begun.notified().await;
        running.abort();
        until_cancelled(&*manager, seen + 1).await;
        let slow = slow.with_deadline(Deadline::after(Duration::from_millis(500)));
        let error = manager.call_tool(slow).await.expect_err("it takes ten minutes");
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        until_cancelled(&*manager, seen + 2).await;
    }
}

/// An application that answers everything and notes what it was asked.
#[derive(Default)]
struct Application(Mutex<Vec<String>>);

impl Application {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(what.into());
    }
}

#[async_trait]
impl McpClientHandler for Application {
    fn capabilities(&self) -> McpClientCapabilities {
        McpClientCapabilities::elicitation().with_sampling().with_roots()
    }

    async fn elicit(&self, server: &str, request: McpElicitation) -> Result<McpElicitationResult> {
        match &request {
            McpElicitation::Url { url, .. } => self.note(format!("{server}: open {url}")),
            _ => self.note(format!("{server}: form")),
        }
        let mut values = request.defaults();
        if matches!(request, McpElicitation::Form { .. }) {
            values.insert("name".into(), "Ada".into());
        }
        Ok(McpElicitationResult::Accept(values))
    }

    async fn create_message(&self, server: &str, params: Map<String, Value>) -> Result<Map<String, Value>> {
        self.note(format!("{server}: {}", params["messages"][0]["content"]["text"]));
        let content = json!({"type": "text", "text": "forty-two"});
        Ok(arguments(json!({"role": "assistant", "content": content, "model": "mine"})))
    }

    async fn list_roots(&self, server: &str) -> Result<Vec<McpRoot>> {
        self.note(format!("{server}: roots"));
        Ok(vec![McpRoot::new("file:///srv/data").with_name("data")])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_answers_what_servers_ask_over_both_transports() {
    let server = everything_over_http().await;
    let application = Arc::new(Application::default());
    let handler = Arc::clone(&application) as Arc<dyn McpClientHandler>;
    let servers = [everything("stdio"), McpServerConfig::http("http", &server.1)];
    let runtime = builder(servers, |_| {}).mcp_handler(handler).build().expect("it is valid");
    let manager = runtime.mcp().expect("compiled in");
    manager.initialize(soon()).await.expect("none is required");
    for server in ["stdio", "http"] {
        let form = call(&**manager, server, "trigger-elicitation-request", json!({})).await;
        assert!(form.text().contains("Ada"), "{form:?}");
        let url = json!({"url": "https://example.com/sign-in"});
        call(&**manager, server, "trigger-url-elicitation", url).await;
        let answer = call(&**manager, server, "trigger-sampling-request", json!({"prompt": "Why?"})).await;
        assert!(answer.text().contains("forty-two"), "{answer:?}");
        let roots = call(&**manager, server, "get-roots-list", json!({})).await;
        assert!(roots.text().contains("file:///srv/data"), "{roots:?}");
        let noted = application.0.lock().expect("not poisoned").clone();
        for what in ["form", "open https://example.com/sign-in"] {
            assert!(noted.contains(&format!("{server}: {what}")), "{noted:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_handler_servers_know_that_nobody_answers() {
    let (_runtime, manager) = connected([everything("npm")]).await;
    let tools = manager.get_all_available_tools();
    for asking in ["trigger-elicitation-request", "trigger-sampling-request", "get-roots-list"] {
        assert!(tools.iter().all(|tool| tool.original_name != asking), "{asking}");
    }
}
