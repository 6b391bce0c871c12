//! The validation script of the document that started the project, ported under the same names, with values other than
//! the defaults. Its Redis part is in `tests/redis/seed.rs`.

use std::sync::Arc;
use std::time::Duration;

use arshai::backends::memory::InMemoryManager;
use arshai::memory::{MemoryInput, MemoryManager, MemoryType};
use arshai::tasks::{FailureKind, Function, FunctionCall, FunctionExecutionInput, Functions, TaskExecutor};
use arshai::{Arshai, Component, Config, ErrorKind, ManualClock};
use futures_util::FutureExt;
use serde_json::{Value, json};

#[tokio::test]
async fn original_usage_of_the_memory_manager_works_as_it_did() {
    let manager = InMemoryManager::new();
    let input_data =
        MemoryInput::new("test").with_memory_type(MemoryType::WorkingMemory).with_data("test data");

    let key = MemoryManager::store(&manager, input_data.clone()).await.expect("stored");
    assert_eq!(key, "memory:WORKING_MEMORY:test");
    let retrieved = MemoryManager::retrieve(&manager, &input_data).await.expect("retrieved");
    assert_eq!(retrieved.len(), 1);
    assert_eq!(&*retrieved[0].working_memory, "test data");
}

#[test]
fn original_constructors_work_with_and_without_settings() {
    let _ = InMemoryManager::new();
    let _ = InMemoryManager::builder().ttl(Duration::from_secs(3600)).build().expect("valid");
    let tuned = InMemoryManager::builder()
        .ttl(Duration::from_secs(7200))
        .max_entries(5000)
        .max_memory_mb(200)
        .build()
        .expect("valid");
    let limits = tuned.limits();
    let limit = |key| limits.iter().find(|usage| usage.key == key).and_then(|usage| usage.limit);
    assert_eq!(limit("memory.max_entries"), Some(5000));
    assert_eq!(limit("memory.max_memory_mb"), Some(200 << 20));
}

#[tokio::test]
async fn the_orchestrator_is_found_under_its_python_name() {
    let orchestrator = arshai::FunctionOrchestrator::default();
    let double =
        |args: Value| async move { Ok::<_, std::io::Error>(json!(args["n"].as_i64().map(|n| 2 * n))) };
    let functions = Functions::new().with(Function::new("double", double));
    let calls = vec![FunctionCall::new("double", json!({"n": 21}))];
    let result = orchestrator.execute_functions(FunctionExecutionInput::new(calls, functions)).await;
    assert_eq!(result.regular_results[0].result, 42);
}

/// A runtime configured by these variables alone.
fn runtime<const N: usize>(variables: [(&str, &str); N]) -> Arshai {
    Arshai::builder(config(variables)).build().expect("it builds")
}

fn config<const N: usize>(variables: [(&str, &str); N]) -> Config {
    Config::from_vars(variables.map(|(name, value)| (name.into(), value.into()))).expect("all are good")
}

#[test]
fn the_memory_variables_bound_what_is_remembered() {
    let runtime = runtime([("ARSHAI_MAX_MEMORY_MB", "3"), ("ARSHAI_MAX_ENTRIES", "2")]);
    let store = |id: &str, bytes: usize| {
        let input = MemoryInput::working_memory(id).with_data("x".repeat(bytes));
        runtime.memory().store(input).now_or_never().expect("it never waits")
    };
    let error = store("large", (3 << 20) + 1).expect_err("more than the budget");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    for id in ["a", "b", "c"] {
        store(id, 2 << 20).expect("less than the budget");
        assert_eq!(runtime.memory().stats().entries, 1, "two would exceed 3 MiB");
    }
    for id in ["d", "e", "f"] {
        store(id, 10).expect("small");
    }
    assert_eq!(runtime.memory().stats().entries, 2);
}

#[tokio::test(start_paused = true)]
async fn the_cleanup_variables_say_when_an_expired_conversation_goes() {
    let clock = Arc::new(ManualClock::new());
    let config = config([("ARSHAI_CLEANUP_INTERVAL", "7"), ("ARSHAI_MEMORY_TTL", "3")]);
    let runtime = Arshai::builder(config).clock(clock.clone()).build().expect("it builds");
    runtime.memory().store(MemoryInput::new("c").with_data("x")).await.expect("stored");
    clock.advance(Duration::from_secs(4));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(runtime.memory().stats().entries, 1, "expired, and not yet removed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(runtime.memory().stats().entries, 0);
}

#[tokio::test]
async fn the_task_variable_bounds_background_tasks() {
    let runtime = runtime([("ARSHAI_MAX_BACKGROUND_TASKS", "3")]);
    let never = |_: Value| std::future::pending::<Result<Value, std::io::Error>>();
    let calls = (0..5).map(|_| FunctionCall::new("never", json!({})).in_background()).collect();
    let input = FunctionExecutionInput::new(calls, Functions::new())
        .with_background_tasks(Functions::new().with(Function::new("never", never)));
    let result = runtime.tasks().execute_functions(input).await;
    assert_eq!(result.background_initiated.len(), 3);
    let rejected: Vec<_> = result.failed_functions.iter().map(|failed| failed.kind).collect();
    assert_eq!(rejected, [FailureKind::NoBackgroundSlot; 2]);
}

/// A model server on loopback that answers `requests` requests, and sends what was asked of it, head and body.
#[cfg(feature = "ureq")]
fn model_server(requests: usize) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, BufReader, Read, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..requests {
            let mut stream = BufReader::new(listener.accept().expect("a client").0);
            let (mut head, mut bytes) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                stream.read_line(&mut head).expect("a head");
                if let Some(length) = head[start..].to_lowercase().strip_prefix("content-length:") {
                    bytes = length.trim().parse().expect("a number");
                }
            }
            stream.read_exact(&mut vec![0; bytes]).expect("a body");
            let body = json!({"choices": [{"message": {"role": "assistant", "content": "hello"},
                                           "finish_reason": "stop"}]})
            .to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            );
            stream.get_mut().write_all(answer.as_bytes()).expect("the client waits");
            sender.send(head).expect("the test waits");
        }
    });
    (url, receiver)
}

#[cfg(feature = "ureq")]
#[tokio::test]
async fn the_model_variables_say_which_server_is_asked_with_which_key() {
    use arshai::llm::{ChatRequest, Message};

    let (url, requests) = model_server(2);
    let runtime = runtime([
        ("OPENAI_API_KEY", "sk-openai"),
        ("OPENAI_BASE_URL", &format!("{url}/v1")),
        ("AZURE_OPENAI_ENDPOINT", &url),
        ("AZURE_OPENAI_API_KEY", "azure-key"),
        ("AZURE_DEPLOYMENT", "deployed"),
        ("AZURE_API_VERSION", "2024-06-01"),
    ]);
    let openai = runtime.openai("gpt-4o").expect("a key is set");
    let azure = runtime.azure_openai().expect("an endpoint is set");
    for (client, path, key) in [
        (openai, "POST /v1/chat/completions ", "authorization: bearer sk-openai"),
        (
            azure,
            "POST /openai/deployments/deployed/chat/completions?api-version=2024-06-01 ",
            "api-key: azure-key",
        ),
    ] {
        let answer = client.chat(ChatRequest::new(vec![Message::user("hi")])).await.expect("an answer");
        assert_eq!(answer.content.as_deref(), Some("hello"));
        let request = requests.recv().expect("asked");
        assert!(request.starts_with(path), "{request}");
        assert!(request.to_lowercase().contains(key), "{request}");
    }
}

#[test]
fn the_connection_variables_reach_every_connecting_part() {
    let runtime = runtime([("ARSHAI_MAX_CONNECTIONS", "7"), ("ARSHAI_CONNECTION_TIMEOUT", "11")]);
    let config = runtime.config();
    let timeouts = [
        config.http.connect_timeout,
        config.redis.connect_timeout,
        config.milvus.connect_timeout,
        config.mcp.connection_timeout,
    ];
    assert_eq!(timeouts, [Duration::from_secs(11); 4]);
    let stats = runtime.stats();
    let limits = stats.limits().filter(|(_, usage)| usage.key == "pool.max_connections");
    let limits: Vec<_> = limits.map(|(_, usage)| usage.limit).collect();
    assert!(!limits.is_empty() && limits.iter().all(|limit| *limit == Some(7)), "{limits:?}");
}

#[test]
fn the_emergency_rollback_configuration_takes_every_bound_away() {
    let variables =
        ["ARSHAI_DISABLE_OPTIMIZATIONS", "ARSHAI_USE_LEGACY_MEMORY", "ARSHAI_USE_LEGACY_CONNECTIONS"];
    let runtime = runtime(variables.map(|name| (name, "true")));
    assert!(!runtime.memory().capabilities().bounded);
    assert!(!runtime.tasks().capabilities().bounded);
}
