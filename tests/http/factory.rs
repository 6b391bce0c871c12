//! Clients from the configuration, at the best level that can be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arshai::contract::doubles::ScriptedTransport;
use arshai::llm::{ChatRequest, ClientLevel, HttpClientFactory, Message};
use arshai::{Arshai, Config, Error, ErrorKind, Registry};
use http::Response;
use serde_json::json;

use crate::support::{config, everything};

const SENTINEL: &str = "sk-sentinel-77a0";

fn keyed() -> Config {
    config(|config| {
        config.llm.openai.api_key = Some(SENTINEL.into());
        config.llm.openrouter.api_key = Some(SENTINEL.into());
        config.llm.google.api_key = Some(SENTINEL.into());
        config.llm.azure.api_key = Some(SENTINEL.into());
        config.llm.azure.endpoint = Some("https://my-resource.openai.azure.com".into());
        config.llm.azure.deployment = Some("my-gpt-4o".into());
        config.llm.azure.api_version = Some("2024-10-21".into());
    })
}

/// A registry whose ureq transport fails the first `failures` times it is built.
fn failing(failures: usize) -> (Registry, Arc<AtomicUsize>) {
    let (mut registry, builds) = (Registry::builtin(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&builds);
    registry.http.register("ureq", move |_| match count.fetch_add(1, Ordering::SeqCst) {
        n if n < failures => Err(Error::new(ErrorKind::Unsupported, "test", "not on this machine")),
        _ => Ok(Arc::new(ScriptedTransport::new())),
    });
    (registry, builds)
}

#[test]
fn all_four_providers_share_one_transport() {
    let (registry, builds) = failing(0);
    let factory = HttpClientFactory::new(keyed()).with_registry(registry);
    assert_eq!(builds.load(Ordering::SeqCst), 0, "nothing is built before it is needed");
    assert_eq!(factory.openai("a").expect("configured").model(), "a");
    assert_eq!(factory.openrouter("b").expect("configured").model(), "b");
    assert_eq!(factory.genai("c").expect("configured").model(), "c");
    assert_eq!(factory.clone().azure_openai().expect("configured").model(), "my-gpt-4o");
    assert_eq!(builds.load(Ordering::SeqCst), 1);
    assert!(!format!("{factory:?}").contains(SENTINEL));
}

#[test]
fn a_transport_that_cannot_be_built_falls_back_level_by_level() {
    for (failures, level) in
        [(0, ClientLevel::Optimized), (1, ClientLevel::Standard), (2, ClientLevel::Minimal)]
    {
        let factory = HttpClientFactory::new(keyed()).with_registry(failing(failures).0);
        factory.openai("m").expect("at some level");
        assert_eq!(factory.level().expect("built"), level);
    }
    let error = HttpClientFactory::new(keyed()).with_registry(failing(3).0).openai("m").expect_err("at none");
    assert!(error.message().contains("not on this machine"), "{error}");
    let unknown = config(|config| {
        config.http.backend = "carrier-pigeon".into();
        config.llm.openai.api_key = Some(SENTINEL.into());
    });
    let factory = HttpClientFactory::new(unknown);
    assert!(factory.check_compatibility()[0].contains("carrier-pigeon"));
    assert_eq!(factory.level().expect("the built-in one"), ClientLevel::Standard);
}

#[test]
fn no_level_goes_around_a_proxy() {
    let config = config(|config| {
        config.http.proxy = Some(format!("gopher://user:{SENTINEL}@proxy").into());
        config.llm.openai.api_key = Some("sk-other".into());
    });
    let error = HttpClientFactory::new(config).openai("m").expect_err("the proxy is no proxy");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[test]
fn a_missing_key_is_an_error_at_once_and_explicit_settings_mend_it() {
    let factory = HttpClientFactory::new(Config::default());
    assert!(factory.openai("m").expect_err("no key").message().contains("OPENAI_API_KEY"));
    let mut settings = Config::default().llm;
    settings.openai.api_key = Some(SENTINEL.into());
    factory.with_settings(settings).openai("m").expect("a key");
}

#[test]
fn validation_reports_every_problem_and_only_of_what_is_configured() {
    HttpClientFactory::new(Config::default()).validate_configuration().expect("nothing is configured");
    HttpClientFactory::new(keyed()).validate_configuration().expect("all is well");
    let mut wrong = keyed();
    wrong.llm.azure.deployment = None;
    wrong.llm.openai.base_url = Some("no url".into());
    let error = HttpClientFactory::new(wrong).validate_configuration().expect_err("two problems");
    assert!(error.message().contains("AZURE_DEPLOYMENT"), "{error}");
    assert!(error.message().contains("OPENAI_BASE_URL"), "{error}");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[test]
fn doubts_about_compatibility_are_told() {
    assert!(HttpClientFactory::new(keyed()).check_compatibility().is_empty());
    let mut old = keyed();
    old.llm.azure.api_version = Some("2023-05-15".into());
    old.rollback.use_legacy_connections = true;
    let doubts = HttpClientFactory::new(old).check_compatibility();
    assert!(doubts.iter().any(|doubt| doubt.contains("AZURE_API_VERSION")), "{doubts:?}");
    assert!(doubts.iter().any(|doubt| doubt.contains("rollback")), "{doubts:?}");
}

#[tokio::test]
async fn the_runtimes_clients_speak_through_its_transport_and_appear_in_its_statistics() {
    let answer = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).to_string();
    let transport = Arc::new(
        ScriptedTransport::new().answering(Response::new(answer.clone())).answering(Response::new(answer)),
    );
    let runtime = Arshai::builder(keyed()).http(transport.clone()).build().expect("it builds");
    assert!(runtime.stats().llm.is_empty());
    for client in [runtime.openai("m"), runtime.openrouter("m")] {
        client.expect("a key").chat(ChatRequest::new(vec![Message::user("hello")])).await.expect("an answer");
    }
    assert_eq!(transport.take_requests().len(), 2);
    let stats = runtime.stats();
    let names: Vec<_> = stats.llm.iter().map(|llm| (llm.name.as_str(), llm.answered)).collect();
    assert_eq!(names, [("openai/m", 1), ("openrouter/m", 1)]);
    assert!(stats.limits().any(|bound| bound.name == "llm.concurrency" && bound.limit == Some(64)));
    assert!(!format!("{stats:?} {stats}").contains(SENTINEL));

    let off = config(|config| {
        config.llm.adaptive_concurrency = false;
        config.llm.openai.api_key = Some(SENTINEL.into());
    });
    let runtime = Arshai::builder(off).http(Arc::new(ScriptedTransport::new())).build().expect("it builds");
    runtime.openai("m").expect("a key");
    assert!(runtime.stats().llm.is_empty());
}
