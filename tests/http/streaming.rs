//! Streamed responses over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arshai::config::OpenAiConfig;
use arshai::contract::doubles::ScriptedTransport;
use arshai::llm::{
    ArgumentError, ChatEvent, ChatRequest, ChatStream, LlmClient, Message, OpenAiCompatibleClient, Retry,
    ToolCall, Usage,
};
use arshai::{Deadline, ErrorKind, Result};
use arshai_test_support::Log;
use http::Response;
use serde_json::{Value, json};

use crate::server::{Event, Reply, Server};
use crate::support::{LONG, SHORT, Transport, connections, everything, over_each_transport, until};

const SENTINEL: &str = "sk-sentinel-77a0";
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

fn hello() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")]).with_deadline(Some(Deadline::after(LONG)))
}

fn client(server: &Server, transport: &Transport) -> Retry<OpenAiCompatibleClient> {
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    config.base_url = Some(server.url("/v1"));
    let client = OpenAiCompatibleClient::openai(&config, "test-model", transport.clone());
    Retry::new(client.expect("a key and a URL"), 3)
}

/// The events of a stream, each as `data`.
fn sse(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

/// A whole streamed response with a chunked body, one chunk for each of `parts`.
fn chunked(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("{HEAD}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for part in parts {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes().chain(part.iter().copied()).chain(*b"\r\n"));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The events of a stream of `body`.
async fn reading(body: &str) -> Result<Vec<ChatEvent>> {
    let response = Response::builder().header("content-type", "text/event-stream").body(body.to_owned());
    let transport = ScriptedTransport::new().with_response(response.expect("a response"));
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    let client = OpenAiCompatibleClient::openai(&config, "m", Arc::new(transport)).expect("a key");
    all(client.stream(hello()).await?).await
}

async fn all(mut stream: ChatStream) -> Result<Vec<ChatEvent>> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await? {
        events.push(event);
    }
    Ok(events)
}

over_each_transport! {

#[tokio::test]
async fn a_response_with_text_tools_and_usage_is_read_as_it_arrives() {
    // As OpenAI's documentation shows it: the role first, arguments in pieces, the usage last.
    let stream = sse(&[
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"content": "Hé"})),
        delta(json!({"content": "llo 🦀"})),
        delta(json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
                                     "function": {"name": "get_weather", "arguments": ""}}]})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"location\":"}}]})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": " \"Paris\"}"}}]})),
        finish("tool_calls"),
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}),
    ]);
    let stream = format!(": OPENROUTER PROCESSING\n\n{stream}data: [DONE]\n\n");
    // Chunks of a byte end within characters, fields and line endings.
    let parts: Vec<_> = stream.as_bytes().chunks(1).collect();
    let response = chunked(&parts);
    let mut server = Server::start(move |request| {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&body["stream"], &body["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
        Reply::Bytes(response.clone())
    });
    let transport = transport(|_| ());
    let client = client(&server, &transport);
    for _ in 0..3 {
        let events = all(client.stream(hello()).await.expect("a head")).await.expect("an answer");
        let call = ToolCall::new("call_1", "get_weather", "{\"location\": \"Paris\"}");
        assert_eq!(
            events,
            [
                ChatEvent::Text("Hé".into()),
                ChatEvent::Text("llo 🦀".into()),
                ChatEvent::ToolCallStarted { index: 0, call_id: "call_1".into(), name: "get_weather".into() },
                ChatEvent::ToolCall { index: 0, call },
                ChatEvent::Usage(Usage::new(9, 4)),
                ChatEvent::Finished { reason: "tool_calls".into() },
            ]
        );
        assert_eq!(server.event().await, Event::Request);
    }
    assert_eq!(server.accepted(), 1, "a stream that was read to its end leaves its connection to the next");
    let response = client.stream(hello()).await.expect("a head").collect().await.expect("an answer");
    assert_eq!((response.content.as_deref(), response.tool_calls.len()), (Some("Héllo 🦀"), 1));
}

#[tokio::test]
async fn an_event_is_returned_before_the_next_one_is_sent() {
    let first = format!("{HEAD}connection: close\r\n\r\n{}", sse(&[delta(json!({"content": "now"}))]));
    let mut server = Server::start(move |_| Reply::Stall(first.clone().into_bytes()));
    let transport = transport(|_| ());
    let mut stream = client(&server, &transport).stream(hello()).await.expect("a head");
    assert_eq!(stream.next().await.expect("it came"), Some(ChatEvent::Text("now".into())));
    assert_eq!((server.event().await, connections(&*transport).0), (Event::Request, 1));
    drop(stream);
    assert_eq!(server.event().await, Event::Closed);
    until(|| connections(&*transport).0 == 0).await;
}

#[tokio::test]
async fn a_stream_that_stalls_fails_at_the_deadline_and_closes_its_connection() {
    let first = format!("{HEAD}connection: close\r\n\r\n{}", sse(&[delta(json!({"content": "now"}))]));
    let mut server = Server::start(move |_| Reply::Stall(first.clone().into_bytes()));
    let transport = transport(|_| ());
    let request = hello().with_deadline(Some(Deadline::after(SHORT)));
    let mut stream = client(&server, &transport).stream(request).await.expect("a head");
    assert_eq!(stream.next().await.expect("it came"), Some(ChatEvent::Text("now".into())));
    let error = stream.next().await.expect_err("it stalls");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(stream.next().await.expect("nothing more").is_none());
    assert_eq!((server.event().await, server.event().await), (Event::Request, Event::Closed));
    until(|| connections(&*transport).0 == 0).await;
}

#[tokio::test]
async fn an_endless_stream_ends_at_the_deadline_or_the_size_limit() {
    let head = format!("{HEAD}connection: close\r\n\r\n").into_bytes();
    let again = sse(&[delta(json!({"content": "and on "}))]).into_bytes();
    let server = Server::start(move |_| Reply::Endless(head.clone(), again.clone()));
    let small = transport(|config| config.http.max_body_bytes = 1 << 20);
    let error = all(client(&server, &small).stream(hello()).await.expect("a head")).await;
    assert_eq!(error.expect_err("the cap").kind(), ErrorKind::TooLarge);
    until(|| connections(&*small).0 == 0).await;

    let large = transport(|config| config.http.max_body_bytes = 1 << 40);
    let request = hello().with_deadline(Some(Deadline::after(SHORT)));
    let error = all(client(&server, &large).stream(request).await.expect("a head")).await;
    assert_eq!(error.expect_err("the deadline").kind(), ErrorKind::Timeout);
    until(|| connections(&*large).0 == 0).await;
}

#[tokio::test]
async fn malformed_and_truncated_streams_are_errors_of_their_kind() {
    let text = sse(&[delta(json!({"content": "half of it"}))]);
    let huge = format!("data: {}", "x".repeat(3 << 20));
    for (body, kind, words) in [
        ("", ErrorKind::Transport, "before [DONE]"),
        (&*text, ErrorKind::Transport, "before [DONE]"),
        ("data: [DONE]\n\n", ErrorKind::Protocol, "without a choice"),
        ("data: {\"choices\": oops\n\n", ErrorKind::Protocol, "invalid chunk"),
        ("data: private words\n\n", ErrorKind::Protocol, "invalid chunk"),
        (&*huge, ErrorKind::TooLarge, "exceeds the size limit"),
        (&*sse(&[finish("content_filter")]), ErrorKind::ContentFilter, "content filter"),
        (&*sse(&[delta(json!({"refusal": "I can't"}))]), ErrorKind::ContentFilter, "declined"),
        (&*sse(&[json!({"error": {"code": 502, "message": "gone"}})]), ErrorKind::Overloaded, "502"),
    ] {
        let error = reading(body).await.expect_err(words);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(!everything(&error).contains("private"), "{error:?}");
    }
}

#[tokio::test]
async fn text_before_an_error_event_arrives_before_the_error() {
    let body = sse(&[delta(json!({"content": "half"})), json!({"error": {"code": 502, "message": "gone"}})]);
    let response = Response::builder().header("content-type", "text/event-stream").body(body);
    let transport = ScriptedTransport::new().with_response(response.expect("a response"));
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    let client = OpenAiCompatibleClient::openai(&config, "m", Arc::new(transport)).expect("a key");
    let mut stream = client.stream(hello()).await.expect("a head");
    assert_eq!(stream.next().await.expect("the text"), Some(ChatEvent::Text("half".into())));
    assert_eq!(stream.next().await.expect_err("the error").kind(), ErrorKind::Overloaded);
}

#[tokio::test]
async fn truncated_arguments_are_reported_and_a_thousand_calls_are_too_many() {
    let begun =
        json!({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{\"x\""}}]});
    let events = reading(&format!("{}data: [DONE]\n\n", sse(&[delta(begun), finish("length")]))).await;
    let events = events.expect("an answer");
    let expected = ToolCall::new("1", "f", "{\"x\"");
    assert!(
        matches!(&events[1], ChatEvent::ToolCallFailed { call, error: ArgumentError::Truncated, .. }
                 if *call == expected),
        "{events:?}"
    );
    let calls = (0..1000).map(|n| {
        delta(json!({"tool_calls": [{"index": n, "id": n.to_string(), "function": {"name": "f", "arguments": "{}"}}]}))
    });
    let error = reading(&sse(&calls.collect::<Vec<_>>())).await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_supported() {
    let answer = json!({"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}).to_string();
    let server = Server::start(move |_| {
        Reply::status("200 OK", "content-type: application/json\r\n", answer.as_bytes())
    });
    let events = all(client(&server, &transport(|_| ())).stream(hello()).await.expect("an answer")).await;
    assert_eq!(
        events.expect("an answer"),
        [ChatEvent::Text("whole".into()), ChatEvent::Finished { reason: "stop".into() }]
    );
}

#[tokio::test]
async fn a_rejected_stream_is_retried_before_its_first_byte_and_never_after() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let broken = format!("{HEAD}connection: close\r\n\r\n{}", sse(&[delta(json!({"content": "now"}))]));
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status("429 Too Many Requests", "retry-after-ms: 1\r\n", b"{}"),
        _ => Reply::Last(broken.clone().into_bytes()),
    });
    let client = client(&server, &transport(|_| ()));
    let mut stream = client.stream(hello()).await.expect("the second attempt");
    assert_eq!(stream.next().await.expect("it came"), Some(ChatEvent::Text("now".into())));
    assert_eq!(stream.next().await.expect_err("it broke").kind(), ErrorKind::Transport);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_whose_connection_is_reset_or_closed_after_it_was_sent_reaches_the_server_once() {
    let endings: [fn() -> Reply; 2] = [|| Reply::Reset, || Reply::Last(Vec::new())];
    for ending in endings {
        let server = Server::start(move |_| ending());
        let client = client(&server, &transport(|_| ()));
        let error = client.stream(hello()).await.expect_err("it was reset");
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
        let error = client.chat(hello()).await.expect_err("it was reset");
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
        assert_eq!(server.accepted(), 2, "one for each call");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| Reply::ok("stolen"));
    let location = format!("location: {}\r\n", elsewhere.url("/v1/chat/completions"));
    let server = Server::start(move |_| Reply::status("307 Temporary Redirect", &location, b""));
    let request = hello().with_header("x-api-key", SENTINEL);
    let error = client(&server, &transport(|_| ())).stream(request).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
    assert_eq!(elsewhere.accepted(), 0);
}

#[tokio::test]
async fn no_error_of_a_stream_contains_the_key() {
    let echo = json!({"error": {"message": format!("you sent Bearer {SENTINEL}"), "type": "server_error"}});
    let error = reading(&sse(&[echo])).await.expect_err("an error within the stream");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
    let body = format!("data: Bearer {SENTINEL}\n\n");
    let error = reading(&body).await.expect_err("malformed");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[tokio::test]
async fn no_log_contains_a_key_a_header_or_the_conversation() {
    let log = Log::default();
    let _logging = log.subscribe();
    let requests = AtomicUsize::new(0);
    let done =
        format!("{}data: [DONE]\n\n", sse(&[delta(json!({"content": "private answer"})), finish("stop")]));
    let done = chunked(&[done.as_bytes()]);
    let echo = json!({"error": {"message": format!("you sent {SENTINEL} and tenant-secret")}}).to_string();
    let server = Server::start(move |_| match requests.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status("503 Service Unavailable", "retry-after-ms: 1\r\n", echo.as_bytes()),
        _ => Reply::Bytes(done.clone()),
    });
    let mut request = hello().with_header("x-tenant", "tenant-secret");
    request.messages = Arc::new(vec![Message::user("private question")]);
    let transport = transport(|_| ());
    let client = client(&server, &transport);
    let answer = client.stream(request.clone()).await.expect("the second attempt").collect().await;
    let shown =
        format!("{request:?} {answer:?} {client:?} {:?}", answer.as_ref().expect("an answer").to_message());
    let logged = log.text();
    assert!(logged.contains("retrying"), "{logged}");
    for secret in [SENTINEL, "tenant-secret", "private"] {
        assert!(!logged.contains(secret) && !shown.contains(secret), "{secret}: {logged} {shown}");
    }
}

}
