//! Model clients and agents against a third-party server of models.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arshai::agent::{Agent, AgentEvent, AgentInput};
use arshai::http::HttpRequest;
use arshai::llm::{ChatRequest, EmbedRequest, LlmClient, Message, OpenAiCompatibleClient};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, Config, Deadline, ErrorKind, Result};
use arshai_test_support::ModelServer;
use bytes::Bytes;
use serde_json::{Value, json};

/// A runtime whose four providers are all `server`.
fn runtime(server: &ModelServer) -> Arshai {
    let mut config = Config::default();
    config.llm.openai.api_key = Some("sk-test".into());
    config.llm.openai.base_url = Some(server.url("/v1"));
    config.llm.openrouter.api_key = Some("sk-test".into());
    config.llm.openrouter.base_url = Some(server.url("/api/v1"));
    config.llm.google.api_key = Some("sk-test".into());
    config.llm.google.base_url = Some(server.url("/v1beta/openai"));
    config.llm.azure.api_key = Some("sk-test".into());
    config.llm.azure.endpoint = Some(server.url(""));
    config.llm.azure.deployment = Some("gpt-4o".into());
    config.llm.azure.api_version = Some("2024-10-21".into());
    Arshai::builder(config).build().expect("it builds")
}

fn providers(runtime: &Arshai) -> [Arc<dyn LlmClient>; 4] {
    let clients = [
        runtime.openai("gpt-4o"),
        runtime.azure_openai(),
        runtime.openrouter("openai/gpt-4o"),
        runtime.genai("gemini-2.5-flash"),
    ];
    clients.map(|client| client.expect("it is configured"))
}

fn asking(question: &str) -> ChatRequest {
    let deadline = Deadline::after(Duration::from_secs(20));
    ChatRequest::new(vec![Message::user(question)]).with_deadline(Some(deadline))
}

/// Asks the server itself for something.
async fn control(runtime: &Arshai, request: http::request::Builder, body: Value) -> Result<http::HeaderMap> {
    let request = request.header("content-type", "application/json").body(Bytes::from(body.to_string()));
    let response = runtime.http()?.send(HttpRequest::new(request.expect("a request"))).await?;
    assert!(response.status.is_success(), "{}", response.status);
    let headers = response.headers.clone();
    response.body.bytes().await?;
    Ok(headers)
}

/// Weather that is different in each city, and the cities it was asked for.
fn weather() -> (Functions, Arc<Mutex<BTreeSet<String>>>) {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let cities = Arc::clone(&asked);
    let function = Function::new("get_weather", move |args: Value| {
        let city = args["city"].as_str().unwrap_or_default().to_owned();
        cities.lock().expect("nobody panics").insert(city.clone());
        async move { Ok::<_, std::io::Error>(json!(format!("weather of {city}"))) }
    });
    (Functions::new().with(function), asked)
}

#[tokio::test]
async fn every_provider_answers_complete_and_streamed_alike() {
    let server = ModelServer::start();
    let runtime = runtime(&server);
    for client in providers(&runtime) {
        let whole = client.chat(asking("hello")).await.expect("an answer");
        assert_eq!(whole.content.as_deref(), Some("Hello! How can I help you today?"), "{client:?}");
        assert!(whole.usage.total_tokens > 0);
        let streamed = client.stream(asking("hello")).await.expect("a stream").collect().await;
        let streamed = streamed.expect("an answer");
        assert_eq!((streamed.content, streamed.usage), (whole.content, whole.usage), "{client:?}");

        let whole = client.chat(asking("weather")).await.expect("an answer");
        let streamed = client.stream(asking("weather")).await.expect("a stream").collect().await;
        let streamed = streamed.expect("an answer");
        let calls = |calls: &[arshai::llm::ToolCall]| -> Vec<_> {
            calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
        };
        assert_eq!(calls(&streamed.tool_calls), calls(&whole.tool_calls), "{client:?}");
        assert_eq!((streamed.tool_calls.len(), streamed.finish_reason), (2, whole.finish_reason));
    }
    let http = runtime.http().expect("it is compiled in");
    assert!(http.limits().iter().all(|limit| limit.used == 0), "{:?}", http.limits());
    assert_eq!(http.stats().idle_connections, 1, "sixteen requests, one connection");
}

#[tokio::test]
async fn an_agent_streams_calls_its_tools_and_answers() {
    let server = ModelServer::start();
    let runtime = runtime(&server);
    for client in providers(&runtime) {
        let (functions, asked) = weather();
        let agent = runtime.chat_agent(client, "be helpful").with_functions(functions);
        let mut turn = agent.stream(AgentInput::new("weather").in_conversation("c"));
        let (mut text, mut tools) = (String::new(), Vec::new());
        let output = loop {
            match turn.next().await.expect("all goes well").expect("it ends with its output") {
                AgentEvent::Text(more) => text.push_str(&more),
                AgentEvent::ToolStarted { name, .. } => tools.push(name),
                AgentEvent::Finished(output) => break output,
                _ => {}
            }
        };
        assert_eq!(text, "Let me look.Rain in Bergen, sun in Oslo.");
        assert_eq!((output.text.as_str(), output.model_calls), ("Rain in Bergen, sun in Oslo.", 2));
        assert_eq!(tools, ["get_weather", "get_weather"]);
        let asked: Vec<_> = asked.lock().expect("nobody panics").iter().cloned().collect();
        assert_eq!(asked, ["Bergen", "Oslo"]);
        assert!(output.usage.total_tokens > 0 && output.memory_error.is_none());

        let whole = agent.process(AgentInput::new("weather")).await.expect("an answer");
        let tokens = (whole.usage.output_tokens, output.usage.output_tokens);
        assert_eq!((whole.text, tokens.0), (output.text, tokens.1));
    }
}

#[tokio::test]
async fn inputs_are_embedded() {
    let server = ModelServer::start();
    let client = runtime(&server).openai("text-embedding-3-small").expect("it is configured");
    let response = client.embed(EmbedRequest::new(["hello"])).await.expect("a vector");
    assert_eq!(response.embeddings, [[0.5, -1.0, 0.25]]);
}

#[tokio::test]
async fn faults_injected_by_the_server_are_errors_of_their_kind() {
    let server = ModelServer::start();
    let runtime = runtime(&server);
    let client = OpenAiCompatibleClient::openai(
        &runtime.config().llm.openai,
        "gpt-4o",
        Arc::clone(runtime.http().expect("it is compiled in")),
    );
    let client = client.expect("it is configured");
    for (fault, kind) in [
        ("rateLimitRate", ErrorKind::RateLimited),
        ("dropRate", ErrorKind::Overloaded),
        ("malformedRate", ErrorKind::Protocol),
        ("disconnectRate", ErrorKind::Transport),
    ] {
        let chaos = server.url("/__aimock/chaos");
        control(&runtime, http::Request::post(&chaos), json!({fault: 1})).await.expect("it obeys");
        let whole = client.chat(asking("hello")).await.expect_err(fault);
        let streamed = client.stream(asking("hello")).await;
        let streamed = match streamed {
            Err(error) => error,
            Ok(stream) => stream.collect().await.expect_err(fault),
        };
        assert_eq!((whole.kind(), streamed.kind()), (kind, kind), "{fault}: {whole}, {streamed}");
        assert_eq!(whole.retry_after().is_some(), fault == "rateLimitRate", "{whole}");
        control(&runtime, http::Request::delete(&chaos), json!({})).await.expect("it obeys");
    }
    client.chat(asking("hello")).await.expect("it has recovered");
    // One of each kind was complete and one streamed, one succeeded: none was sent twice.
    let journal = http::Request::get(server.url("/__aimock/journal?path=/v1/chat/completions"));
    let headers = control(&runtime, journal, json!({})).await.expect("it obeys");
    assert_eq!(headers["x-total-count"], "9");
}
