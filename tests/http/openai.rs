//! The OpenAI-compatible client: what it retries, what it tells, over a scripted transport and a real one.

use std::sync::Arc;
use std::time::Duration;

use arshai::config::OpenAiConfig;
use arshai::contract::doubles::ScriptedTransport;
use arshai::http::{HttpTransport, nothing_was_sent};
use arshai::llm::{ChatRequest, LlmClient, Message, OpenAiClient, Usage};
use arshai::{Deadline, Error, ErrorKind};
use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::{Event, Reply, Server};
use crate::support::{LONG, SHORT, connections, everything, transport, until};

const SENTINEL: &str = "sk-sentinel-77a0";

fn openai(base_url: Option<String>) -> OpenAiConfig {
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    config.base_url = base_url;
    config
}

fn client(transport: &Arc<ScriptedTransport>) -> OpenAiClient {
    OpenAiClient::new(&openai(None), "test-model", transport.clone()).expect("a key and a URL")
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
async fn a_question_crosses_a_real_socket_and_comes_back_answered() {
    let server = Server::start(|request| {
        assert!(request.head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{}", request.head);
        assert!(request.head.contains(&format!("\r\nauthorization: bearer {SENTINEL}\r\n")));
        assert!(request.head.contains("\r\nx-tenant: a\r\n"));
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body, json!({"model": "test-model", "messages": [{"role": "user", "content": "hello"}]}));
        Reply::ok(&completion())
    });
    let config = openai(Some(server.url("/v1/")));
    let client = OpenAiClient::new(&config, "test-model", transport(|_| ())).expect("a key and a URL");
    let mut request = hello();
    request.extra_headers.insert("x-tenant".into(), "a".into());
    let response = client.chat(request).await.expect("an answer");
    assert_eq!((response.content.as_deref(), response.usage), (Some("hi"), Usage::new(5, 2)));
}

#[tokio::test]
async fn dropping_the_question_closes_the_exchange() {
    let mut server = Server::start(|_| Reply::Stall(Vec::new()));
    let transport = transport(|_| ());
    let config = openai(Some(server.url("/v1")));
    let client = OpenAiClient::new(&config, "test-model", transport.clone()).expect("a key and a URL");
    tokio::select! {
        _ = client.chat(hello()) => panic!("the server never answers"),
        event = server.event() => assert_eq!(event, Event::Request),
    }
    assert_eq!(server.event().await, Event::Closed);
    until(|| connections(&transport).0 == 0).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let transport =
        Arc::new(ScriptedTransport::new().answering(asking_for(7)).answering(answer(200, completion())));
    let began = Instant::now();
    client(&transport).chat(hello()).await.expect("the second attempt");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(7) && waited < Duration::from_secs(8), "{waited:?}");
    assert_eq!(transport.take_requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_deadline_does_not_allow_is_not_waited_for() {
    let transport = Arc::new(ScriptedTransport::new().answering(asking_for(30)));
    let began = Instant::now();
    let request = hello().with_deadline(Some(Deadline::after(Duration::from_secs(10))));
    let error = client(&transport).chat(request).await.expect_err("no time");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::RateLimited, Duration::ZERO));
    assert!(error.context().any(|(name, value)| name == "retry_after" && value == "30.0s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn all_attempts_spend_one_deadline() {
    let transport =
        ScriptedTransport::new().answering(answer(503, "{}")).answering(answer(503, "{}")).hanging();
    let transport = Arc::new(transport);
    let began = Instant::now();
    let request = hello().with_deadline(Some(Deadline::after(Duration::from_secs(10))));
    let error = client(&transport).chat(request).await.expect_err("the third attempt hangs");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn safe_failures_are_retried_three_times_and_no_more() {
    for status in [408, 409, 429, 500, 503] {
        let transport = (0..5).fold(ScriptedTransport::new(), |it, _| it.answering(answer(status, "{}")));
        let transport = Arc::new(transport);
        client(&transport).chat(hello()).await.expect_err("all fail");
        assert_eq!(transport.take_requests().len(), 4, "{status}");
    }
    let unreachable = || Error::new(ErrorKind::Timeout, "test", "connecting took too long");
    let transport = ScriptedTransport::new().failing(nothing_was_sent(unreachable()));
    let transport = Arc::new(transport.answering(answer(200, completion())));
    client(&transport).chat(hello()).await.expect("the second attempt");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_answered_or_cannot_succeed_is_not_retried() {
    for status in [400, 401, 403, 404, 422] {
        let transport = Arc::new(ScriptedTransport::new().answering(answer(status, "{}")));
        client(&transport).chat(hello()).await.expect_err("refused");
        assert_eq!(transport.take_requests().len(), 1, "{status}");
    }
    for kind in [ErrorKind::Transport, ErrorKind::Timeout, ErrorKind::Capacity] {
        let transport = ScriptedTransport::new().failing(Error::new(kind, "test", "the connection broke"));
        let transport = Arc::new(transport);
        let error = client(&transport).chat(hello()).await.expect_err("it broke");
        assert_eq!((error.kind(), transport.take_requests().len()), (kind, 1));
    }
    let transport = Arc::new(ScriptedTransport::new().answering(answer(200, "{\"choices\": oops")));
    let error = client(&transport).chat(hello()).await.expect_err("malformed");
    assert_eq!((error.kind(), transport.take_requests().len()), (ErrorKind::Protocol, 1));
}

#[tokio::test]
async fn a_missing_key_and_a_bad_url_name_their_variables() {
    let transport: Arc<dyn HttpTransport> = Arc::new(ScriptedTransport::new());
    let refused = |config: &OpenAiConfig| {
        OpenAiClient::new(config, "m", transport.clone()).expect_err("it cannot work").to_string()
    };
    assert!(refused(&OpenAiConfig::default()).contains("OPENAI_API_KEY"));
    assert!(refused(&openai(Some("not a url".into()))).contains("OPENAI_BASE_URL"));
    let mut config = openai(None);
    config.api_key = Some(format!("{SENTINEL}\n").into());
    let message = refused(&config);
    assert!(message.contains("OPENAI_API_KEY") && !message.contains(SENTINEL), "{message}");
}

#[tokio::test]
async fn a_header_with_a_line_break_is_refused_by_its_name() {
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
async fn no_failure_tells_the_key() {
    let echo = json!({"error": {"message": format!("you sent Bearer {SENTINEL}")}}).to_string();
    let server = Server::start(move |request| match request.head.contains("x-stall") {
        true => Reply::Stall(Vec::new()),
        false => Reply::status("400 Bad Request", "", echo.as_bytes()),
    });
    let config = openai(Some(server.url("/v1")));
    let client = OpenAiClient::new(&config, "test-model", transport(|_| ())).expect("a key and a URL");
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
