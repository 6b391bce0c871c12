//! What a well-behaved server promises through the manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai::mcp::{McpCall, McpContent, McpServerHealth, functions};
use arshai::tasks::{FunctionCall, FunctionExecutionInput};
use arshai::{Deadline, ErrorKind, Health, Outcome};
use serde_json::json;

use crate::support::{arguments, connected, everything, python, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_both_eras_are_connected_listed_and_called() {
    let (runtime, manager) = connected([everything("npm"), python("python")]).await;
    assert_eq!(manager.connected_servers(), ["npm", "python"], "{:?}", manager.servers());
    let versions: Vec<_> = manager.servers().into_iter().map(|server| server.protocol_version).collect();
    assert_eq!(versions, [Some("2025-11-25".into()), Some("2026-07-28".into())]);

    let tools = manager.get_all_available_tools();
    let add = tools.iter().find(|tool| tool.name == "add").expect("it is listed");
    assert_eq!((add.server_name.as_str(), add.description.as_str()), ("python", "Adds two numbers."));
    assert_eq!(add.input_schema["properties"]["a"]["type"], "integer");

    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 2, "b": 3})));
    let sum = manager.call_tool(call).await.expect("it adds");
    assert_eq!(sum.first_text(), Some("5"));
    let echo = McpCall::new("npm", "echo").with_arguments(arguments(json!({"message": "hello"})));
    assert_eq!(manager.call_tool(echo).await.expect("it echoes").first_text(), Some("Echo: hello"));
    let image = manager.call_tool(McpCall::new("npm", "get-tiny-image")).await.expect("it returns an image");
    assert!(
        image
            .content
            .iter()
            .any(|content| matches!(content, McpContent::Image { data, .. } if data.len() > 100))
    );

    assert!(
        manager.health_check(soon()).await.iter().all(|server| server.health == McpServerHealth::Healthy)
    );
    assert_eq!(runtime.health(soon()).await.get("mcp:npm"), Some(&Health::Healthy));
    assert!(runtime.shutdown(soon()).await.is_clean());
    let closed = manager.call_tool(McpCall::new("npm", "echo")).await.expect_err("closed");
    assert_eq!((closed.kind(), closed.outcome()), (ErrorKind::Closed, Outcome::NotSent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_functions_of_the_executor() {
    let (runtime, manager) = connected([python("python")]).await;
    let calls = vec![
        FunctionCall::new("add", json!({"a": 20, "b": 22})),
        FunctionCall::new("fail", json!({"reason": "out of cheese"})),
    ];
    let input = FunctionExecutionInput::new(calls, functions(&manager));
    let done = runtime.tasks().execute_functions(input).await;
    assert_eq!(done.regular_results.len(), 1, "{done:?}");
    // The SDK does not tell clients what an exception said.
    assert_eq!(done.failed_functions[0].error, "Error executing tool fail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_and_the_connection_stays_usable() {
    let (_runtime, manager) = connected([python("python")]).await;
    let deadline = Deadline::after(Duration::from_millis(300));
    let slow = McpCall::new("python", "slow")
        .with_arguments(arguments(json!({"seconds": 60})))
        .with_deadline(deadline);
    let error = manager.call_tool(slow).await.expect_err("it takes a minute");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    assert!(
        Deadline::after(Duration::ZERO) < Deadline::after(deadline.remaining() + Duration::from_millis(100))
    );
    let call = McpCall::new("python", "add").with_arguments(arguments(json!({"a": 1, "b": 1})));
    assert_eq!(manager.call_tool(call).await.expect("it answers").first_text(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_reaches_the_caller_and_starts_the_idle_timeout_anew() {
    let (_runtime, manager) = connected([python("python")]).await;
    let steps = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&steps);
    let call = McpCall::new("python", "slow")
        .with_arguments(arguments(json!({"seconds": 2})))
        .with_idle_timeout(Duration::from_secs(1))
        .with_progress(move |_, total, _| {
            assert_eq!(total, Some(4.0));
            counter.fetch_add(1, Ordering::SeqCst);
        });
    let result = manager.call_tool(call).await.expect("it is never silent for a second");
    assert_eq!(result.first_text(), Some("done"));
    assert!(steps.load(Ordering::SeqCst) >= 3);
}
