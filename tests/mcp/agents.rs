//! A chat agent that uses the tools of servers: offered at each turn, found by search, with all that results hold.

use std::sync::Arc;

use arshai::agent::{Agent, AgentInput, AgentOutput, ChatAgent};
use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{Attachment, ChatRequest, ChatResponse, Message, Modalities, ToolCall};
use arshai::mcp::McpServerManager;
use arshai::tasks::FunctionOutcome;
use arshai::{Arshai, Config};
use serde_json::{Value, json};

use crate::scripted::{Scripted, described, tool};
use crate::support::{connected, connected_with, everything, python, soon};

/// A model that makes these calls, one in each response, and then answers.
fn model(calls: &[(&str, Value)]) -> Arc<ScriptedLlm> {
    let call = |(index, (name, arguments)): (usize, &(&str, Value))| {
        let call = ToolCall::new(format!("call_{index}"), *name, arguments.to_string());
        Ok(ChatResponse::from_tool_calls(vec![call]))
    };
    let calls = calls.iter().enumerate().map(call);
    Arc::new(ScriptedLlm::new(calls.chain([Ok(ChatResponse::from_text("done"))])))
}

fn agent(runtime: &Arshai, manager: &Arc<dyn McpServerManager>, model: &Arc<ScriptedLlm>) -> ChatAgent {
    let agent = ChatAgent::new(Arc::clone(model) as _, Arc::clone(runtime.tasks()), "use tools");
    agent.with_function_provider(Arc::clone(manager))
}

async fn turn(agent: &ChatAgent) -> AgentOutput {
    agent.process(AgentInput::new("go")).await.expect("the model answers")
}

fn offered(request: &ChatRequest) -> Vec<&str> {
    request.tools.iter().map(|tool| tool.name.as_str()).collect()
}

/// The text and the attachments of the last tool message.
fn last_result(request: &ChatRequest) -> (&str, &[Attachment]) {
    match request.messages.last() {
        Some(Message::Tool { content, attachments, .. }) => (content, attachments),
        other => panic!("no result of a tool: {other:?}"),
    }
}

fn small_budget(config: &mut Config) {
    config.mcp.max_offered_bytes = 4 << 10;
    config.mcp.always_offer = vec!["clock".to_owned()];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_tools_are_found_by_search_and_called() {
    let many = (0..300)
        .map(|number| described(&format!("tool.{number}"), "Does one of many things to a row of a table."));
    let rest = [
        described("clock", "Tells the time."),
        described("invoice.total", "Adds up the items of an invoice."),
    ];
    let server = Scripted::with_tools("books", many.chain(rest));
    let mut config = server.config.clone();
    config.description = Some("bookkeeping".to_owned());
    let (runtime, manager) = connected_with([config], small_budget).await;
    let model = model(&[("search_tools", json!({"query": "sum of invoices"})), ("invoice_total", json!({}))]);
    let output = turn(&agent(&runtime, &manager, &model)).await;
    assert_eq!(output.text, "done");

    let requests = model.requests();
    assert_eq!(offered(&requests[0]), ["clock", "search_tools"]);
    let search = requests[0].tools.iter().find(|tool| tool.name == "search_tools").expect("offered");
    assert!(search.description.contains("books (301 tools): bookkeeping"), "{}", search.description);
    let found: Value = serde_json::from_str(last_result(&requests[1]).0).expect("JSON");
    assert_eq!(found["tools"][0]["name"], "invoice_total");
    assert_eq!(found["tools"][0]["parameters"], json!({"type": "object"}));
    assert!(offered(&requests[1]).contains(&"invoice_total"), "{:?}", offered(&requests[1]));
    assert_eq!(last_result(&requests[2]).0, "done");
    assert_eq!(server.called(), ["invoice.total"], "the server sees its own name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_tools_are_offered_without_a_search() {
    let server = Scripted::with_tools("few", [tool("clock"), tool("calendar")]);
    let (runtime, manager) = connected_with([server.config.clone()], small_budget).await;
    let model = model(&[]);
    turn(&agent(&runtime, &manager, &model)).await;
    assert_eq!(offered(&model.requests()[0]), ["calendar", "clock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_changes_or_goes_between_turns_is_seen() {
    let server = Scripted::with_tools("s", [tool("one")]);
    let second = Scripted::with_tools("other", [tool("two")]);
    let [config, other] = [&server, &second].map(|server| server.config.clone());
    let (runtime, manager) = connected([config.clone()]).await;
    let seen = async |expected: &[&str]| {
        let model = model(&[]);
        turn(&agent(&runtime, &manager, &model)).await;
        assert_eq!(offered(&model.requests()[0]), expected);
    };
    seen(&["one"]).await;
    manager.set_servers(vec![config, other.clone()], soon()).await.expect("both are valid");
    seen(&["one", "two"]).await;
    server.set_tools([tool("changed")]);
    manager.reconnect("s", soon()).await.expect("it is up");
    seen(&["changed", "two"]).await;
    manager.set_servers(vec![other], soon()).await.expect("it is valid");
    seen(&["two"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_reach_a_model_that_takes_them_and_a_text_says_so_where_not() {
    let (runtime, manager) = connected([everything("npm")]).await;
    let calls = [("get-tiny-image", json!({}))];
    for (modalities, images) in [(Modalities::IMAGES_AND_FILES, 1), (Modalities::TEXT, 0)] {
        let model = model(&calls);
        let agent = agent(&runtime, &manager, &model).with_modalities(modalities);
        turn(&agent).await;
        let requests = model.requests();
        let (text, attachments) = last_result(&requests[1]);
        assert_eq!(attachments.len(), images, "{text}");
        assert_eq!(text.contains("image/png") && text.contains("not shown"), images == 0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_too_large_for_the_model_is_cut_and_the_whole_can_be_had() {
    let (runtime, manager) = connected([python("python")]).await;
    // Larger than what the executor lets other functions return.
    let bytes = 1_500_000;
    let model = model(&[
        ("large", json!({"bytes": bytes})),
        ("read_tool_result", json!({"call_id": "call_0", "offset": 1_000_000})),
    ]);
    let agent = agent(&runtime, &manager, &model).with_max_result_bytes(10_000);
    let output = turn(&agent).await;
    let requests = model.requests();
    let (cut, _) = last_result(&requests[1]);
    assert!(cut.len() < 10_300 && cut.contains("bytes are not shown here"), "{} bytes", cut.len());
    assert!(!offered(&requests[0]).contains(&"read_tool_result"));
    assert!(offered(&requests[1]).contains(&"read_tool_result"));
    let (part, _) = last_result(&requests[2]);
    assert!(part.starts_with("[bytes 1000000 to 1009900 of "), "{}", &part[..60]);
    assert!(part.len() <= 10_000);
    let FunctionOutcome::Completed(whole) = &output.tool_results[0][0] else { panic!("it returned") };
    assert!(whole.result.to_string().len() > bytes);
}
