//! Odd shapes of answers: what the official client reads is read here, and what it does not check is an error on
//! purpose.

use std::sync::Arc;

use arshai::config::OpenAiConfig;
use arshai::contract::doubles::ScriptedTransport;
use arshai::llm::{ChatRequest, ChatResponse, LlmClient, Message, OpenAiCompatibleClient};
use arshai::{ErrorKind, Result};
use http::Response;
use serde_json::{Value, json};

/// The response to a request, complete or streamed, that a server answers with `body`.
async fn read(body: String, streamed: bool) -> Result<ChatResponse> {
    let content_type = if streamed { "text/event-stream" } else { "application/json" };
    let response = Response::builder().header("content-type", content_type).body(body).expect("a response");
    let mut config = OpenAiConfig::default();
    config.api_key = Some("key".into());
    let transport = Arc::new(ScriptedTransport::new().with_response(response));
    let client = OpenAiCompatibleClient::openai(&config, "m", transport).expect("a key");
    let request = ChatRequest::new(vec![Message::user("hello")]);
    match streamed {
        true => client.stream(request).await?.collect().await,
        false => client.chat(request).await,
    }
}

/// The text, and the name and arguments of each call.
fn shape(response: &ChatResponse) -> (String, Vec<(String, String)>) {
    let calls = response.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone()));
    (response.content.clone().unwrap_or_default(), calls.collect())
}

/// Two calls: one of weather in Paris, one without arguments.
fn assert_calls(response: &ChatResponse, odd: &str) {
    let (text, calls) = shape(response);
    let arguments: Vec<Value> =
        calls.iter().map(|(_, arguments)| serde_json::from_str(arguments).unwrap_or_default()).collect();
    assert_eq!((&*text, calls.len()), ("", 2), "{odd}");
    assert_eq!((&*calls[0].0, &*calls[1].0), ("weather", "clock"), "{odd}");
    assert_eq!(arguments[0], json!({"city": "Paris"}), "{odd}");
    assert!(arguments[1] == json!({}) || arguments[1].is_null(), "{odd}");
    assert_eq!(response.finish_reason.as_deref(), Some("tool_calls"), "{odd}");
    assert_ne!(response.tool_calls[0].call_id, response.tool_calls[1].call_id, "{odd}");
}

/// An answer of `hello` with one odd part.
fn whole(odd: Value) -> Value {
    let mut body = json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
    });
    merge(&mut body, odd);
    body
}

/// Replaces what `odd` names, within objects and the first items of lists; `"<removed>"` removes it.
fn merge(body: &mut Value, odd: Value) {
    match (body, odd) {
        (Value::Object(fields), Value::Object(odd)) => {
            for (name, value) in odd {
                match value {
                    Value::String(text) if text == "<removed>" => drop(fields.remove(&name)),
                    value => merge(fields.entry(name).or_insert(Value::Null), value),
                }
            }
        }
        (Value::Array(items), Value::Array(odd)) if odd.len() == 1 && odd[0].is_object() => {
            merge(&mut items[0], odd.into_iter().next().unwrap_or_default());
        }
        (body, odd) => *body = odd,
    }
}

fn in_choice(odd: Value) -> Value {
    json!({"choices": [odd]})
}

fn in_message(odd: Value) -> Value {
    in_choice(json!({"message": odd}))
}

#[tokio::test]
async fn a_text_is_read_whatever_is_odd_around_it() {
    let hello = json!({"type": "text", "text": "hello"});
    let odd_shapes = [
        in_message(json!({"content": [hello]})),
        in_message(json!({"content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]})),
        in_message(
            json!({"content": [{"type": "output_text", "text": "hello", "annotations": []}, {"type": "image"}]}),
        ),
        in_message(json!({"content": ["hel", "lo"]})),
        in_message(json!({"content": hello})),
        in_message(json!({"role": "<removed>"})),
        in_message(json!({"role": null})),
        in_message(json!({"role": "model"})),
        in_message(json!({"refusal": null})),
        in_message(json!({"refusal": ""})),
        in_message(json!({"tool_calls": null})),
        in_message(json!({"tool_calls": []})),
        in_message(json!({"function_call": null, "audio": null, "annotations": []})),
        in_message(json!({"reasoning_content": null, "reasoning": null, "reasoning_details": [{"x": 1}]})),
        in_choice(json!({"index": "<removed>"})),
        in_choice(json!({"index": null})),
        in_choice(json!({"index": "0"})),
        in_choice(json!({"index": 0.0})),
        in_choice(json!({"finish_reason": "<removed>"})),
        in_choice(json!({"finish_reason": null})),
        in_choice(json!({"finish_reason": ""})),
        in_choice(json!({"finish_reason": 1})),
        in_choice(json!({"finish_reason": "eos"})),
        in_choice(json!({"logprobs": {"content": 7}, "stop_reason": 3, "native_finish_reason": null})),
        in_choice(json!({"delta": null, "text": null})),
        json!({"usage": "<removed>"}),
        json!({"usage": null}),
        json!({"usage": []}),
        json!({"usage": {}}),
        json!({"usage": "none"}),
        json!({"usage": {"prompt_tokens": null}}),
        json!({"usage": {"prompt_tokens": 4.5}}),
        json!({"usage": {"prompt_tokens": "4"}}),
        json!({"usage": {"prompt_tokens": -1}}),
        json!({"usage": {"total_tokens": 1e300}}),
        json!({"usage": {"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX}}),
        json!({"usage": {"prompt_tokens_details": null, "completion_tokens_details": null}}),
        json!({"usage": {"prompt_tokens_details": 7, "completion_tokens_details": []}}),
        json!({"usage": {"prompt_tokens_details": {"cached_tokens": null}}}),
        json!({"id": null, "created": null, "object": null, "model": null}),
        json!({"id": "<removed>", "created": "<removed>", "object": "<removed>", "model": "<removed>"}),
        json!({"id": 1, "created": "now", "object": 2.5, "model": ["m"]}),
        json!({"error": null}),
        json!({"system_fingerprint": null, "service_tier": 1, "provider": {"name": "x"}, "citations": []}),
    ];
    for odd in odd_shapes {
        let text = odd.to_string();
        let response = read(whole(odd).to_string(), false).await.expect(&text);
        assert_eq!(response.content.as_deref(), Some("hello"), "{text}");
        assert!(response.finish_reason.is_some(), "{text}");
    }
}

#[tokio::test]
async fn calls_are_read_whatever_is_odd_around_them() {
    let calls = |first: Value, second: Value| {
        let mut calls = [
            json!({"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}),
            json!({"id": "b", "type": "function", "function": {"name": "clock", "arguments": "{}"}}),
        ];
        merge(&mut calls[0], first);
        merge(&mut calls[1], second);
        let mut body = whole(in_choice(json!({"finish_reason": "tool_calls"})));
        body["choices"][0]["message"] = json!({"role": "assistant", "content": null, "tool_calls": calls});
        body
    };
    let object = json!({"function": {"arguments": {"city": "Paris"}}});
    let nothing = || json!({});
    let odd_shapes = [
        calls(nothing(), nothing()),
        calls(object, nothing()),
        calls(nothing(), json!({"function": {"arguments": null}})),
        calls(nothing(), json!({"function": {"arguments": ""}})),
        calls(nothing(), json!({"function": {"arguments": {}}})),
        calls(nothing(), json!({"function": {"arguments": "<removed>"}})),
        calls(json!({"id": null}), json!({"id": null})),
        calls(json!({"id": ""}), json!({"id": ""})),
        calls(json!({"id": "<removed>"}), json!({"id": "<removed>"})),
        calls(json!({"type": "<removed>"}), json!({"type": null})),
        calls(json!({"index": 0}), json!({"index": 0})),
        calls(json!({"index": "0"}), json!({"index": null})),
        calls(json!({"extra_content": {"google": {"thought_signature": "x"}}}), json!({"cache": null})),
    ];
    for odd in odd_shapes {
        for reason in [json!("tool_calls"), json!(""), Value::Null] {
            let mut body = odd.clone();
            body["choices"][0]["finish_reason"] = reason;
            let text = body.to_string();
            assert_calls(&read(text.clone(), false).await.expect(&text), &text);
        }
        let mut body = odd.clone();
        body["choices"][0]["message"]["content"] = json!("");
        let text = body.to_string();
        assert_calls(&read(text.clone(), false).await.expect(&text), &text);
    }
}

/// A stream of these events.
fn sse(events: &[&str]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

#[tokio::test]
async fn a_streamed_text_is_read_whatever_is_odd_around_it() {
    let [hel, lo] =
        ["hel", "lo"].map(|text| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#));
    let (hel, lo) = (&*hel, &*lo);
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let choice = |odd: &str| format!(r#"{{"choices":[{odd}]}}"#);
    let odd_events = [
        "{}".to_owned(),
        r#"{"choices":null}"#.to_owned(),
        r#"{"choices":[]}"#.to_owned(),
        r#"{"choices":[],"usage":null}"#.to_owned(),
        r#"{"choices":[],"usage":{"prompt_tokens":1.5}}"#.to_owned(),
        r#"{"object":"chat.completion.chunk","prompt_filter_results":[{"prompt_index":0}]}"#.to_owned(),
        r#"{"error":null,"choices":[]}"#.to_owned(),
        choice(r#"{"index":0,"delta":null}"#),
        choice(r#"{"index":0,"delta":null,"finish_reason":null}"#),
        choice(r#"{"index":0}"#),
        choice(r#"{"index":0,"delta":{"role":"assistant","content":null}}"#),
        choice(r#"{"index":0,"delta":{"content":""},"finish_reason":""}"#),
        choice(r#"{"index":0,"delta":{"content":[]}}"#),
        choice(r#"{"index":0,"delta":{"tool_calls":null}}"#),
        choice(r#"{"index":0,"delta":{"tool_calls":[]}}"#),
        choice(r#"{"index":0,"delta":{"refusal":null,"reasoning":null}}"#),
        choice(r#"{"index":0,"delta":{},"content_filter_results":{"hate":{"filtered":false}}}"#),
        choice(r#"{"index":1,"delta":{"content":"another choice"}}"#),
    ];
    for odd in &odd_events {
        for events in [[odd, hel, lo, stop], [hel, odd, lo, stop], [hel, lo, odd, stop], [hel, lo, stop, odd]]
        {
            for end in ["data: [DONE]\n\n", ""] {
                // The first choice of a response is the one that is read.
                if odd.contains("another") && events[0] == odd {
                    continue;
                }
                let response = read(sse(&events) + end, true).await.expect(odd);
                assert_eq!(response.content.as_deref(), Some("hello"), "{events:?}");
                assert_eq!(response.finish_reason.as_deref(), Some("stop"), "{events:?}");
            }
        }
    }
    let done = "data: [DONE]\n\n";
    for body in [
        sse(&[hel, lo]) + done,
        sse(&[hel, lo, stop, stop]) + done,
        sse(&[hel, lo, stop]) + "data:[DONE]\n\n",
        sse(&[hel, lo, stop]) + "data: [DONE] \n\n",
        sse(&[hel, lo, stop]) + "data: [DONE]",
        sse(&[hel, lo, stop]) + done + &sse(&["not JSON"]),
        sse(&[hel, lo, stop]).replace("\n", "\r\n") + done,
        sse(&[hel, lo, stop]).replace("data: ", "data:") + done,
        sse(&[hel, lo, stop]).replace("data: ", "event: message\nid: 7\ndata: ") + done,
        sse(&[hel, lo, stop]).replace("\n\n", "\n\n: keep-alive\n\n") + done,
        sse(&[hel, "", lo, stop]) + done,
        format!("\u{feff}{}{done}", sse(&[hel, lo, stop])),
    ] {
        let response = read(body.clone(), true).await.expect(&body);
        assert_eq!(response.content.as_deref(), Some("hello"), "{body}");
        assert_eq!(response.finish_reason.as_deref(), Some("stop"), "{body}");
    }
}

#[tokio::test]
async fn streamed_calls_are_read_whatever_is_odd_around_them() {
    let call = |odd: Value| json!({"choices": [{"index": 0, "delta": {"tool_calls": [odd]}}]}).to_string();
    let clock = || call(json!({"index": 1, "id": "b", "function": {"name": "clock", "arguments": "{}"}}));
    let paris = "{\"city\": \"Paris\"}";
    let odd_shapes = [
        vec![
            call(json!({"index": 0, "id": "a", "function": {"name": "weather", "arguments": paris}})),
            clock(),
        ],
        vec![
            call(
                json!({"index": 0, "id": "a", "function": {"name": "weather", "arguments": {"city": "Paris"}}}),
            ),
            clock(),
        ],
        vec![
            call(json!({"index": 0, "id": "a", "function": {"name": "weather", "arguments": null}})),
            call(json!({"index": 0, "function": {"arguments": paris}})),
            clock(),
        ],
        vec![
            call(json!({"index": 0, "id": "a", "type": "function"})),
            call(json!({"index": 0, "function": {"name": "weather"}})),
            call(json!({"index": 0, "function": {"name": null, "arguments": paris}})),
            clock(),
        ],
        vec![
            call(json!({"index": 0, "id": "a", "function": {"arguments": "{\"city\": "}})),
            call(json!({"index": 0, "id": null, "function": {"name": "weather", "arguments": "\"Paris\"}"}})),
            clock(),
        ],
        vec![
            call(json!({"id": "a", "function": {"name": "weather", "arguments": paris}})),
            call(json!({"id": "b", "function": {"name": "clock", "arguments": ""}})),
        ],
        vec![
            call(json!({"index": 0, "function": {"name": "weather", "arguments": paris}})),
            call(json!({"index": 0, "function": {"name": "clock", "arguments": "{}"}})),
        ],
        vec![
            call(json!({"index": "0", "id": "a", "function": {"name": "weather", "arguments": paris}})),
            call(json!({"index": "1", "id": "b", "function": {"name": "clock"}})),
        ],
    ];
    for odd in odd_shapes {
        for reason in [r#""tool_calls""#, r#""""#, "null"] {
            let end = format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":{reason}}}]}}"#);
            let mut events: Vec<_> = odd.iter().map(String::as_str).collect();
            events.push(&end);
            let body = sse(&events) + "data: [DONE]\n\n";
            assert_calls(&read(body.clone(), true).await.expect(&body), &body);
        }
    }
}

#[tokio::test]
async fn refusals_filters_and_errors_within_a_success_stay_errors() {
    for (odd, kind) in [
        (in_message(json!({"content": null, "refusal": "I cannot"})), ErrorKind::ContentFilter),
        (in_choice(json!({"finish_reason": "content_filter"})), ErrorKind::ContentFilter),
        (json!({"error": {"code": 429, "message": "slow down"}}), ErrorKind::RateLimited),
        (json!({"error": "overloaded"}), ErrorKind::Overloaded),
        (json!({"choices": null}), ErrorKind::Protocol),
        (json!({"choices": []}), ErrorKind::Protocol),
    ] {
        let text = odd.to_string();
        assert_eq!(read(whole(odd).to_string(), false).await.expect_err(&text).kind(), kind, "{text}");
    }
}

#[tokio::test]
async fn text_split_anywhere_by_utf_16_units_is_read_whole() {
    let text = "a🦀\"é\n🧑‍🚀";
    let units: Vec<u16> = text.encode_utf16().collect();
    for size in 1..=units.len() {
        let events = units.chunks(size).map(|units| {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            format!(r#"data: {{"choices":[{{"index":0,"delta":{{"content":"{escaped}"}}}}]}}"#) + "\n\n"
        });
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let body = events.collect::<String>() + &sse(&[stop]);
        let response = read(body, true).await.expect("text");
        assert_eq!(response.content.as_deref(), Some(text), "pieces of {size}");
    }
}
