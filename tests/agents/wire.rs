//! What an agent's settings are on the wire.

use std::sync::Arc;

use arshai::agent::{Agent, AgentEvent, AgentInput, AgentOutput, AgentStream, ChatAgent};
use arshai::config::OpenAiConfig;
use arshai::contract::doubles::ScriptedTransport;
use arshai::llm::{ChatRequest, OpenAiCompatibleClient};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, Config};
use http::{HeaderMap, Response};
use serde_json::{Value, json};

/// The headers and bodies of the two requests of a turn with a tool, without the messages.
async fn turn(model: &str, request: ChatRequest, stream: bool) -> [(HeaderMap, Value); 2] {
    let call = json!({"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}});
    let answer = |message: Value| {
        let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]}).to_string();
        Response::builder().header("content-type", "application/json").body(body).expect("a response")
    };
    let transport = ScriptedTransport::new()
        .with_response(answer(json!({"content": null, "tool_calls": [call]})))
        .with_response(answer(json!({"content": "noon"})));
    let transport = Arc::new(transport);
    let mut config = OpenAiConfig::default();
    config.api_key = Some("key".into());
    let client = OpenAiCompatibleClient::openai(&config, model, transport.clone()).expect("a key");
    let runtime = Arshai::builder(Config::default()).build().expect("the defaults build");
    let clock = Function::new("clock", |_: Value| async { Ok::<_, std::io::Error>("noon".into()) });
    let agent: ChatAgent = runtime
        .chat_agent(Arc::new(client), "be brief")
        .with_functions(Functions::new().with(clock))
        .with_request(request);
    let input = AgentInput::new("what time is it?");
    let output = match stream {
        true => last_output(agent.stream(input)).await,
        false => agent.process(input).await.expect("an answer"),
    };
    assert_eq!(output.text, "noon");
    let sent = transport.take_requests().into_iter().map(|sent| {
        let (parts, body) = sent.request.into_parts();
        let mut body: Value = serde_json::from_slice(&body).expect("JSON");
        let fields = body.as_object_mut().expect("an object");
        let messages = fields.remove("messages").expect("messages");
        assert!(messages.as_array().is_some_and(|messages| messages.len() >= 2), "{messages}");
        fields.remove("tools").expect("tools");
        (parts.headers, body)
    });
    sent.collect::<Vec<_>>().try_into().expect("two requests")
}

async fn last_output(mut stream: AgentStream) -> AgentOutput {
    loop {
        let event = stream.next().await.expect("an answer").expect("an end");
        if let AgentEvent::Finished(output) = event {
            return output;
        }
    }
}

fn settings() -> ChatRequest {
    let mut request = ChatRequest::default()
        .with_header("x-tenant", "a")
        .with_extra("seed", 7)
        .with_extra("service_tier", "flex");
    (request.temperature, request.top_p, request.max_tokens) = (Some(0.5), Some(0.25), Some(100));
    request.reasoning_effort = Some("low".into());
    request
}

#[tokio::test]
async fn sampling_settings_headers_and_extra_fields_are_sent_with_every_request_of_a_turn() {
    for (model, limit) in [
        ("gpt-4o", "max_tokens"),
        ("llama-3.3-70b", "max_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("gpt-5.1", "max_completion_tokens"),
        ("openai/o4-mini", "max_completion_tokens"),
    ] {
        for stream in [false, true] {
            let mut expected = json!({
                "model": model, "temperature": 0.5, "top_p": 0.25, "reasoning_effort": "low",
                "seed": 7, "service_tier": "flex", limit: 100,
            });
            if stream {
                expected["stream"] = true.into();
                expected["stream_options"] = json!({"include_usage": true});
            }
            for (headers, body) in turn(model, settings(), stream).await {
                assert_eq!(body, expected);
                let header = |name: &str| headers[name].to_str().expect("text");
                assert_eq!((header("x-tenant"), header("authorization")), ("a", "Bearer key"));
            }
        }
    }
}

#[tokio::test]
async fn an_extra_field_replaces_the_setting_of_its_name_and_nothing_is_sent_that_was_not_set() {
    let request = settings().with_extra("max_tokens", 5).with_extra("temperature", Value::Null);
    for (_, body) in turn("gpt-4o", request, false).await {
        assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(5), &Value::Null));
    }
    for (_, body) in turn("o3", ChatRequest::default(), false).await {
        assert_eq!(body, json!({"model": "o3"}));
    }
}
