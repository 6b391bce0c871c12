//! The requests to each provider, and the responses and errors in its documentation.

use std::sync::Arc;

use arshai::config::{AzureConfig, GoogleConfig, OpenAiConfig, OpenRouterConfig};
use arshai::contract::doubles::ScriptedTransport;
use arshai::http::HttpTransport;
use arshai::llm::{ChatRequest, EmbedRequest, LlmClient, Message, OpenAiCompatibleClient, Usage};
use arshai::{Error, ErrorKind, Result};
use http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};

use crate::support::everything;

const SENTINEL: &str = "sk-sentinel-77a0";

/// Builds a client over a transport.
type Build = fn(Arc<dyn HttpTransport>) -> Result<Box<dyn LlmClient>>;

fn openai(transport: Arc<dyn HttpTransport>) -> Result<Box<dyn LlmClient>> {
    let mut config = OpenAiConfig::default();
    config.api_key = Some(SENTINEL.into());
    Ok(Box::new(OpenAiCompatibleClient::openai(&config, "gpt-4o", transport)?))
}

fn azure(transport: Arc<dyn HttpTransport>) -> Result<Box<dyn LlmClient>> {
    Ok(Box::new(OpenAiCompatibleClient::azure_openai(&azure_config(), transport)?))
}

fn azure_config() -> AzureConfig {
    let mut config = AzureConfig::default();
    config.endpoint = Some("https://my-resource.openai.azure.com/".into());
    config.api_key = Some(SENTINEL.into());
    config.deployment = Some("my-gpt-4o".into());
    config.api_version = Some("2024-10-21".into());
    config
}

fn openrouter(transport: Arc<dyn HttpTransport>) -> Result<Box<dyn LlmClient>> {
    let mut config = OpenRouterConfig::default();
    config.api_key = Some(SENTINEL.into());
    config.site_url = Some("https://example.com".into());
    config.app_name = Some("my service".into());
    Ok(Box::new(OpenAiCompatibleClient::openrouter(&config, "openai/gpt-4o", transport)?))
}

fn gemini(transport: Arc<dyn HttpTransport>) -> Result<Box<dyn LlmClient>> {
    let mut config = GoogleConfig::default();
    config.api_key = Some(SENTINEL.into());
    Ok(Box::new(OpenAiCompatibleClient::genai(&config, "gemini-2.5-flash", transport)?))
}

fn completion() -> Value {
    json!({"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]})
}

fn request() -> ChatRequest {
    ChatRequest::new(vec![Message::user("hello")])
}

/// The address, headers and body of a request.
async fn sent(build: Build) -> (Uri, HeaderMap, Value) {
    let answer = Response::new(completion().to_string());
    let transport = Arc::new(ScriptedTransport::new().with_response(answer));
    let client = build(transport.clone()).expect("a good configuration");
    assert!(!format!("{client:?}").contains(SENTINEL), "{client:?}");
    client.chat(request()).await.expect("an answer");
    let sent = transport.take_requests().remove(0).request;
    let body = serde_json::from_slice(sent.body()).expect("JSON");
    (sent.uri().clone(), sent.headers().clone(), body)
}

async fn failing(build: Build, status: u16, body: &Value) -> Error {
    let answer = Response::builder().status(status).body(body.to_string()).expect("a response");
    let client =
        build(Arc::new(ScriptedTransport::new().with_response(answer))).expect("a good configuration");
    client.chat(request()).await.expect_err("rejected")
}

#[tokio::test]
async fn each_provider_gets_its_address_and_headers() {
    let bearer = format!("Bearer {SENTINEL}");
    let (url, headers, body) = sent(openai).await;
    assert_eq!(url, "https://api.openai.com/v1/chat/completions");
    assert_eq!(headers["authorization"], bearer);
    assert_eq!(body["model"], "gpt-4o");

    let (url, headers, body) = sent(azure).await;
    assert_eq!(
        url,
        "https://my-resource.openai.azure.com/openai/deployments/my-gpt-4o/chat/completions?api-version=2024-10-21"
    );
    assert_eq!(headers["api-key"], SENTINEL);
    assert_eq!(body["messages"][0]["role"], "user");
    assert!(headers.get("authorization").is_none());

    let (url, headers, _) = sent(openrouter).await;
    assert_eq!(url, "https://openrouter.ai/api/v1/chat/completions");
    assert_eq!(headers["authorization"], bearer);
    assert_eq!(headers["http-referer"], "https://example.com");
    assert_eq!(headers["x-title"], "my service");

    let (url, headers, body) = sent(gemini).await;
    assert_eq!(url, "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions");
    assert_eq!(headers["authorization"], bearer);
    assert_eq!(body["model"], "gemini-2.5-flash");
    for build in [openai, azure, openrouter, gemini] {
        let (_, headers, _) = sent(build).await;
        assert!(!format!("{headers:?}").contains(SENTINEL), "the key's header is sensitive");
    }
}

#[tokio::test]
async fn the_providers_documented_responses_are_decoded() {
    let published = [
        (
            openai as Build,
            json!({
                "id": "chatcmpl-abc123", "object": "chat.completion", "created": 1_699_896_916, "model": "gpt-4o-mini",
                "choices": [{"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message": {
                    "role": "assistant", "content": null, "tool_calls": [{"id": "call_abc123", "type": "function",
                    "function": {"name": "get_current_weather", "arguments": "{\n\"location\": \"Boston, MA\"\n}"}}]}}],
                "usage": {"prompt_tokens": 82, "completion_tokens": 17, "total_tokens": 99,
                    "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0}},
            }),
            99,
            1,
        ),
        (
            azure,
            json!({
                "id": "chatcmpl-6v7mkQj980V1yBec6ETrKPRqFjNw9", "object": "chat.completion", "created": 1_679_072_642,
                "model": "gpt-35-turbo", "prompt_filter_results": [{"prompt_index": 0, "content_filter_results":
                    {"hate": {"filtered": false, "severity": "safe"}}}],
                "usage": {"prompt_tokens": 58, "completion_tokens": 68, "total_tokens": 126},
                "choices": [{"message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop", "index": 0,
                    "content_filter_results": {"hate": {"filtered": false, "severity": "safe"}}}],
            }),
            126,
            0,
        ),
        (
            openrouter,
            json!({
                "id": "gen-xxxxxxxxxxxxxx", "provider": "OpenAI", "model": "openai/gpt-3.5-turbo",
                "choices": [{"finish_reason": "stop", "native_finish_reason": "stop",
                    "message": {"role": "assistant", "content": "Hello there!", "refusal": null, "reasoning": null}}],
                "usage": {"prompt_tokens": 0, "completion_tokens": 4, "total_tokens": 4},
            }),
            4,
            0,
        ),
        (
            gemini,
            json!({
                "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "tool_calls": [
                    {"function": {"arguments": "{\"location\":\"Chicago\"}", "name": "get_weather"}, "id": "",
                     "type": "function"}]}}],
                "created": 1_741_371_234, "id": "x", "model": "gemini-2.5-flash", "object": "chat.completion",
                "usage": {"completion_tokens": 5, "prompt_tokens": 7, "total_tokens": 20},
            }),
            20,
            1,
        ),
    ];
    for (build, answer, tokens, calls) in published {
        let transport = Arc::new(ScriptedTransport::new().with_response(Response::new(answer.to_string())));
        let response = build(transport).expect("configured").chat(request()).await.expect("an answer");
        assert_eq!((response.usage.total_tokens, response.tool_calls.len()), (tokens, calls));
        assert!(
            response.tool_calls.iter().all(|call| !call.call_id.is_empty()),
            "an id is made where none is"
        );
        assert!(response.tool_calls.iter().all(|call| call.to_function_call().is_some()));
    }
}

#[tokio::test]
async fn gemini_streams_that_share_an_index_and_count_up_are_decoded() {
    let chunk = |name: &str, tokens: u64| {
        let call =
            json!({"index": 0, "id": "", "type": "function", "function": {"name": name, "arguments": "{}"}});
        json!({"choices": [{"delta": {"role": "assistant", "tool_calls": [call]}, "index": 0}],
               "usage": {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}})
    };
    let end = json!({"choices": [{"delta": {"role": "assistant"}, "finish_reason": "stop", "index": 0}]});
    let body =
        format!("data: {}\n\ndata: {}\n\ndata: {end}\n\ndata: [DONE]\n\n", chunk("f", 3), chunk("g", 6));
    let transport = Arc::new(ScriptedTransport::new().with_response(Response::new(body)));
    let stream = gemini(transport).expect("configured").stream(request()).await.expect("a stream");
    let response = stream.collect().await.expect("an answer");
    assert_eq!(response.usage, Usage::new(9, 6));
    let names: Vec<_> = response.tool_calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["f", "g"]);
}

#[tokio::test]
async fn embeddings_are_requested_at_each_providers_address() {
    let answer = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
                        "model": "text-embedding-3-small", "usage": {"prompt_tokens": 5, "total_tokens": 5}});
    for (build, path) in [
        (openai as Build, "/v1/embeddings"),
        (azure, "/openai/deployments/my-gpt-4o/embeddings"),
        (openrouter, "/api/v1/embeddings"),
        (gemini, "/v1beta/openai/embeddings"),
    ] {
        let transport = Arc::new(ScriptedTransport::new().with_response(Response::new(answer.to_string())));
        let client = build(transport.clone()).expect("configured");
        let response = client.embed(EmbedRequest::new(["hello"])).await.expect("a vector");
        assert_eq!((response.embeddings, response.usage), (vec![vec![0.5, -1.0]], Usage::new(5, 0)));
        let sent = transport.take_requests().remove(0).request;
        assert_eq!(sent.uri().path(), path);
        let none = client.embed(EmbedRequest::new([] as [&str; 0])).await.expect("nothing to ask");
        assert!(none.embeddings.is_empty());
    }
}

#[tokio::test]
async fn missing_and_invalid_settings_name_their_variable_and_no_secret() {
    let transport: Arc<dyn HttpTransport> = Arc::new(ScriptedTransport::new());
    let rejected = |change: fn(&mut AzureConfig)| {
        let mut config = azure_config();
        change(&mut config);
        let error =
            OpenAiCompatibleClient::azure_openai(&config, transport.clone()).expect_err("it cannot work");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!everything(&error).contains(SENTINEL), "{error:?}");
        error.to_string()
    };
    assert!(rejected(|config| config.endpoint = None).contains("AZURE_OPENAI_ENDPOINT"));
    assert!(rejected(|config| config.endpoint = Some("no url".into())).contains("AZURE_OPENAI_ENDPOINT"));
    assert!(rejected(|config| config.api_key = None).contains("AZURE_OPENAI_API_KEY"));
    assert!(
        rejected(|config| config.api_key = Some(format!("{SENTINEL}\n").into()))
            .contains("AZURE_OPENAI_API_KEY")
    );
    assert!(rejected(|config| config.deployment = None).contains("AZURE_DEPLOYMENT"));
    assert!(rejected(|config| config.deployment = Some("../x?y".into())).contains("AZURE_DEPLOYMENT"));
    assert!(rejected(|config| config.api_version = Some("1&x=2".into())).contains("AZURE_API_VERSION"));
    let openrouter = OpenAiCompatibleClient::openrouter(&OpenRouterConfig::default(), "m", transport.clone());
    assert!(openrouter.expect_err("no key").to_string().contains("OPENROUTER_API_KEY"));
    let gemini = OpenAiCompatibleClient::genai(&GoogleConfig::default(), "m", transport.clone());
    assert!(gemini.expect_err("no key").to_string().contains("GOOGLE_API_KEY"));
}

#[tokio::test]
async fn the_providers_documented_errors_are_classified() {
    let error = failing(
        azure,
        400,
        &json!({"error": {"code": "content_filter", "message":
        "The response was filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::ContentFilter);
    let error =
        failing(openrouter, 402, &json!({"error": {"code": 402, "message": "Insufficient credits"}})).await;
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RateLimited, false));
    let error = failing(
        gemini,
        400,
        &json!([{"error": {"code": 400, "message": "API key not valid.",
        "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]),
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let error = failing(
        openai,
        400,
        &json!({"error": {"message": "too long",
        "type": "invalid_request_error", "code": "context_length_exceeded"}}),
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::ContextLength);
    let error = failing(openrouter, 200, &json!({"error": {"code": 503, "message": "no provider"}})).await;
    assert_eq!(error.kind(), ErrorKind::Overloaded);
}
