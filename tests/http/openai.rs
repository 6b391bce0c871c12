//! The OpenAI-compatible client and its retries, over a scripted transport and a real one.

use std::sync::Arc;
use std::time::Duration;

use arshai::config::OpenAiConfig;
use arshai::contract::doubles::ScriptedTransport;
use arshai::http::HttpTransport;
use arshai::llm::{ChatRequest, LlmClient, Message, OpenAiCompatibleClient, Retry, Usage};
use arshai::{Deadline, Error, ErrorKind};
use arshai_test_support::Log;
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::{Event, Reply, Server};
use crate::support::{LONG, SHORT, connections, everything, over_each_transport, until};

const SENTINEL: &str = "sk-sentinel-77a0";

fn openai(base_url: Option<String>) -> OpenAiConfig {
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    config.base_url = base_url;
    config
}

fn client(transport: &Arc<ScriptedTransport>) -> Retry<OpenAiCompatibleClient> {
    let client = OpenAiCompatibleClient::openai(&openai(None), "test-model", transport.clone());
    Retry::new(client.expect("a key and a URL"), 3)
}

fn hello() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")])
}

fn completion() -> String {
    json!({
        "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    })
    .to_string()
}

fn answer(status: u16, body: impl Into<String>) -> Response<String> {
    Response::builder().status(status).body(body.into()).expect("a status")
}

fn asking_for(seconds: u64) -> Response<String> {
    let mut response = answer(429, "{}");
    response.headers_mut().insert("retry-after", seconds.into());
    response
}

#[tokio::test]
async fn a_chat_is_a_span_with_its_model_and_tokens_and_without_the_conversation() {
    let log = Log::default();
    let _subscribed = log.subscribe();
    let transport = Arc::new(ScriptedTransport::new().with_response(answer(200, completion())));
    client(&transport).chat(hello()).await.expect("an answer");
    let log = log.text();
    let closed = log.lines().find(|line| line.contains("close") && line.contains("chat{"));
    let closed = closed.unwrap_or_else(|| panic!("{log}"));
    for attribute in [
        "gen_ai.request.model=test-model",
        "gen_ai.provider.name=\"openai\"",
        "gen_ai.usage.input_tokens=5",
        "gen_ai.usage.output_tokens=2",
    ] {
        assert!(closed.contains(attribute), "{attribute}: {closed}");
    }
    assert!(!log.contains("hello") && !log.contains(SENTINEL), "{log}");
}

over_each_transport! {

#[tokio::test]
async fn a_request_is_answered_over_a_real_socket() {
    let server = Server::start(|request| {
        assert!(request.head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{}", request.head);
        assert!(request.head.contains(&format!("\r\nauthorization: bearer {SENTINEL}\r\n")));
        assert!(request.head.contains("\r\nx-tenant: a\r\n"));
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body, json!({"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}));
        Reply::ok(&completion())
    });
    let config = openai(Some(server.url("/v1/")));
    let client =
        OpenAiCompatibleClient::openai(&config, "test-model", transport(|_| ())).expect("a key and a URL");
    let mut request = hello();
    request.extra_headers.insert("x-tenant".into(), "a".into());
    let response = client.chat(request).await.expect("an answer");
    assert_eq!((response.content.as_deref(), response.usage), (Some("hi"), Usage::new(5, 2)));
}

#[tokio::test]
async fn dropping_the_request_closes_its_connection() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|_| ());
    let config = openai(Some(server.url("/v1")));
    let client =
        OpenAiCompatibleClient::openai(&config, "test-model", transport.clone()).expect("a key and a URL");
    tokio::select! {
        _ = client.chat(hello()) => panic!("the server never answers"),
        event = server.event() => assert_eq!(event, Event::Request),
    }
    assert_eq!(server.event().await, Event::Closed);
    until(|| connections(&*transport).0 == 0).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let transport = Arc::new(
        ScriptedTransport::new().with_response(asking_for(7)).with_response(answer(200, completion())),
    );
    let began = Instant::now();
    client(&transport).chat(hello()).await.expect("the second attempt");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(7) && waited < Duration::from_secs(8), "{waited:?}");
    assert_eq!(transport.take_requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_exceeds_the_deadline_is_not_begun() {
    let transport = Arc::new(ScriptedTransport::new().with_response(asking_for(30)));
    let began = Instant::now();
    let request = hello().with_deadline(Some(Deadline::after(Duration::from_secs(10))));
    let error = client(&transport).chat(request).await.expect_err("no time");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::RateLimited, Duration::ZERO));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_spend_one_deadline() {
    let transport = ScriptedTransport::new()
        .with_response(answer(503, "{}"))
        .with_response(answer(503, "{}"))
        .with_hang();
    let transport = Arc::new(transport);
    let began = Instant::now();
    let request = hello().with_deadline(Some(Deadline::after(Duration::from_secs(10))));
    let error = client(&transport).chat(request).await.expect_err("the third attempt hangs");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn safe_failures_are_retried_three_times_and_no_more() {
    for status in [408, 409, 429, 500, 503] {
        let transport = (0..5).fold(ScriptedTransport::new(), |it, _| it.with_response(answer(status, "{}")));
        let transport = Arc::new(transport);
        client(&transport).chat(hello()).await.expect_err("all fail");
        assert_eq!(transport.take_requests().len(), 4, "{status}");
    }
    let unreachable = || Error::new(ErrorKind::Timeout, "test", "connecting took too long");
    let transport = ScriptedTransport::new().with_error(unreachable().not_sent());
    let transport = Arc::new(transport.with_response(answer(200, completion())));
    client(&transport).chat(hello()).await.expect("the second attempt");
}

#[tokio::test(start_paused = true)]
async fn unknown_outcomes_full_queues_and_permanent_errors_are_not_retried() {
    for status in [400, 401, 403, 404, 422] {
        let transport = Arc::new(ScriptedTransport::new().with_response(answer(status, "{}")));
        client(&transport).chat(hello()).await.expect_err("rejected");
        assert_eq!(transport.take_requests().len(), 1, "{status}");
    }
    let full = Error::new(ErrorKind::Capacity, "test", "the queue is full").not_sent();
    let broken = |kind| Error::new(kind, "test", "the connection broke");
    for error in [broken(ErrorKind::Transport), broken(ErrorKind::Timeout), full] {
        let kind = error.kind();
        let transport = ScriptedTransport::new().with_error(error);
        let transport = Arc::new(transport);
        let error = client(&transport).chat(hello()).await.expect_err("it broke");
        assert_eq!((error.kind(), transport.take_requests().len()), (kind, 1));
    }
    let transport = Arc::new(ScriptedTransport::new().with_response(answer(200, "{\"choices\": oops")));
    let error = client(&transport).chat(hello()).await.expect_err("malformed");
    assert_eq!((error.kind(), transport.take_requests().len()), (ErrorKind::Protocol, 1));
}

#[tokio::test]
async fn a_missing_key_and_a_bad_url_name_their_variables() {
    let transport: Arc<dyn HttpTransport> = Arc::new(ScriptedTransport::new());
    let rejected = |config: &OpenAiConfig| {
        OpenAiCompatibleClient::openai(config, "m", transport.clone())
            .expect_err("it cannot work")
            .to_string()
    };
    assert!(rejected(&OpenAiConfig::default()).contains("OPENAI_API_KEY"));
    assert!(rejected(&openai(Some("not a url".into()))).contains("OPENAI_BASE_URL"));
    let mut config = openai(None);
    config.api_key = Some(format!("{SENTINEL}\n").into());
    let message = rejected(&config);
    assert!(message.contains("OPENAI_API_KEY") && !message.contains(SENTINEL), "{message}");
}

#[tokio::test]
async fn a_header_with_a_line_break_is_rejected_by_its_name() {
    let transport = Arc::new(ScriptedTransport::new());
    let mut request = hello();
    request.extra_headers.insert("x-tenant".into(), format!("a\r\nx-key: {SENTINEL}"));
    assert!(!format!("{request:?}").contains(SENTINEL));
    let error = client(&transport).chat(request).await.expect_err("a line break");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("x-tenant") && !everything(&error).contains(SENTINEL), "{error}");
    assert!(transport.take_requests().is_empty());
}

#[tokio::test]
async fn no_error_contains_the_key() {
    let echo = json!({"error": {"message": format!("you sent Bearer {SENTINEL}")}}).to_string();
    let server = Server::start(move |request| match request.head.contains("x-stall") {
        true => Reply::Stall(Vec::new()),
        false => Reply::status("400 Bad Request", "", echo.as_bytes()),
    });
    let config = openai(Some(server.url("/v1")));
    let client =
        OpenAiCompatibleClient::openai(&config, "test-model", transport(|_| ())).expect("a key and a URL");
    assert!(!format!("{client:?} {config:?}").contains(SENTINEL));
    let error = client.chat(hello().with_deadline(Some(Deadline::after(LONG)))).await.expect_err("400");
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");

    let mut stalling = hello().with_deadline(Some(Deadline::after(SHORT)));
    stalling.extra_headers.insert("x-stall".into(), "1".into());
    let error = client.chat(stalling).await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[tokio::test]
async fn a_local_server_needs_no_key() {
    let mut config = openai(Some("http://127.0.0.1:8000/v1".into()));
    config.api_key = None;
    let transport = Arc::new(ScriptedTransport::new().with_response(answer(200, completion())));
    let client = OpenAiCompatibleClient::openai(&config, "m", transport.clone()).expect("no key needed");
    client.chat(hello()).await.expect("a response");
    assert!(transport.take_requests()[0].request.headers().get("authorization").is_none());
}

#[tokio::test]
async fn a_response_keeps_its_headers_and_body() {
    let mut response = answer(200, completion());
    response.headers_mut().insert("x-request-id", "7".parse().expect("a value"));
    let transport =
        Arc::new(ScriptedTransport::new().with_response(response.clone()).with_response(response));
    let whole = client(&transport).chat(hello()).await.expect("a response");
    assert_eq!(
        (&whole.headers["x-request-id"], whole.body),
        (&"7".parse().expect("a value"), Some(completion().into()))
    );
    let stream = client(&transport).stream(hello()).await;
    assert!(stream.map_or_else(|_| true, |stream| stream.headers().contains_key("x-request-id")));
}

#[tokio::test]
async fn bodies_of_errors_are_read_to_64_kib() {
    let body = json!({"error": {"message": "x".repeat(1 << 20)}}).to_string();
    let transport = Arc::new(ScriptedTransport::new().with_response(answer(400, body)));
    let error = client(&transport).chat(hello()).await.expect_err("rejected");
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(!everything(&error).contains("xxx"), "a truncated body is not JSON");
}

#[tokio::test(start_paused = true)]
async fn a_transport_gets_the_deadline_of_the_request() {
    let transport = Arc::new(ScriptedTransport::new().with_response(answer(200, completion())));
    let deadline = Deadline::after(Duration::from_secs(7));
    client(&transport).chat(hello().with_deadline(Some(deadline))).await.expect("a response");
    assert_eq!(transport.take_requests()[0].deadline, Some(deadline));
}

}
