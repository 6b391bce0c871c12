//! Clients from the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arshai::contract::doubles::ScriptedTransport;
use arshai::llm::{ChatRequest, HttpClientFactory, Message};
use arshai::{Arshai, Config, ErrorKind, Limits, Registry};
use http::Response;
use serde_json::json;

use crate::support::{config, everything, ureq_transport as transport};

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

/// A registry with a scripted transport named `ureq`, and how often it was built.
fn scripted() -> (Registry, Arc<AtomicUsize>) {
    let (mut registry, builds) = (Registry::builtin(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&builds);
    registry.http.register("ureq", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(ScriptedTransport::new()))
    });
    (registry, builds)
}

#[test]
fn all_four_providers_share_one_transport() {
    let (registry, builds) = scripted();
    let factory = HttpClientFactory::new(keyed()).with_registry(registry);
    assert_eq!(builds.load(Ordering::SeqCst), 0, "nothing is built before it is needed");
    assert_eq!(factory.openai("a").expect("configured").model(), "a");
    assert_eq!(factory.openrouter("b").expect("configured").model(), "b");
    assert_eq!(factory.genai("c").expect("configured").model(), "c");
    assert_eq!(factory.clone().azure_openai().expect("configured").model(), "my-gpt-4o");
    assert_eq!(builds.load(Ordering::SeqCst), 1);
    assert!(!format!("{factory:?}").contains(SENTINEL));
}

/// Whoever makes it: the runtime, its context or a factory with other keys.
#[tokio::test]
async fn a_factory_never_goes_past_the_applications_own_transport() {
    let (registry, builds) = scripted();
    let response = json!({"choices": [{"message": {"content": "hi"}}]}).to_string();
    let own =
        (0..4).fold(ScriptedTransport::new(), |own, _| own.with_response(Response::new(response.clone())));
    let own = Arc::new(own);
    let runtime =
        Arshai::builder(keyed()).registry(registry).http(own.clone()).build().expect("valid settings");
    let of_context = HttpClientFactory::from_context(runtime.context().clone());
    let other_keys = of_context.clone().with_settings(keyed().llm);
    let clients = [
        runtime.openai("m"),
        runtime.client_factory().expect("a transport").genai("m"),
        of_context.openrouter("m"),
        other_keys.azure_openai(),
    ];
    for client in clients {
        let request = ChatRequest::new(vec![Message::user("hello")]);
        client.expect("configured").chat(request).await.expect("the scripted response");
    }
    assert_eq!((own.take_requests().len(), builds.load(Ordering::SeqCst)), (4, 0));
}

#[test]
fn a_transport_that_cannot_be_built_is_an_error_that_names_its_setting() {
    let unknown = config(|config| {
        config.http.backend = "carrier-pigeon".into();
        config.llm.openai.api_key = Some(SENTINEL.into());
    });
    let factory = HttpClientFactory::new(unknown);
    assert!(factory.check_compatibility()[0].contains("carrier-pigeon"));
    let error = factory.openai("m").expect_err("no such backend");
    assert_eq!(error.kind(), ErrorKind::UnknownBackend);
    assert!(error.message().contains("http.backend = \"carrier-pigeon\""), "{error}");

    let proxy = config(|config| {
        config.http.proxy = Some(format!("gopher://user:{SENTINEL}@proxy").into());
        config.llm.openai.api_key = Some("sk-other".into());
    });
    let error = HttpClientFactory::new(proxy).openai("m").expect_err("an invalid proxy");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("http.proxy"), "{error}");
    assert!(!everything(&error).contains(SENTINEL), "{error:?}");
}

#[test]
fn a_missing_key_is_an_error_and_explicit_settings_provide_it() {
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
fn compatibility_warnings_are_returned() {
    assert!(HttpClientFactory::new(keyed()).check_compatibility().is_empty());
    let mut old = keyed();
    old.llm.azure.api_version = Some("2023-05-15".into());
    old.rollback.use_legacy_connections = true;
    let warnings = HttpClientFactory::new(old).check_compatibility();
    assert!(warnings.iter().any(|warning| warning.contains("AZURE_API_VERSION")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("rollback")), "{warnings:?}");
}

#[tokio::test]
async fn a_runtimes_limiters_are_components_while_a_client_uses_them() {
    let answer = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).to_string();
    let transport = Arc::new(
        ScriptedTransport::new()
            .with_response(Response::new(answer.clone()))
            .with_response(Response::new(answer)),
    );
    let runtime = Arshai::builder(keyed()).http(transport.clone()).build().expect("it builds");
    let limiters = |runtime: &Arshai| {
        let components = runtime.stats().components;
        let limiters = components.into_iter().filter(|component| component.name.starts_with("llm:"));
        limiters.map(|limiter| (limiter.name, limiter.counters["succeeded"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(limiters(&runtime), []);
    let clients = [runtime.openai("m"), runtime.openrouter("m"), runtime.openai("m")]
        .map(|client| client.expect("a key"));
    for client in &clients[..2] {
        client.chat(ChatRequest::new(vec![Message::user("hello")])).await.expect("a response");
    }
    assert_eq!(transport.take_requests().len(), 2);
    assert_eq!(limiters(&runtime), [("llm:m".to_owned(), json!(1)), ("llm:m#2".to_owned(), json!(1))]);
    assert!(runtime.stats().limits().any(|(_, limit)| limit.key == "llm.max_concurrency"));
    drop(clients);
    assert_eq!(limiters(&runtime), []);

    let off = config(|config| {
        config.llm.adaptive_concurrency = false;
        config.llm.openai.api_key = Some(SENTINEL.into());
    });
    let runtime = Arshai::builder(off).http(Arc::new(ScriptedTransport::new())).build().expect("it builds");
    let _client = runtime.openai("m").expect("a key");
    assert_eq!(limiters(&runtime), []);
}

#[test]
fn the_concurrency_limit_never_exceeds_the_transports_connections() {
    for (connections, concurrency, expected) in [(5, 64, 5), (20, 8, 8)] {
        let few = config(|config| {
            config.pool.max_connections = connections;
            config.llm.max_concurrency = concurrency;
            config.llm.openai.api_key = Some(SENTINEL.into());
        });
        let transport = transport(|config| config.pool.max_connections = connections);
        let runtime = Arshai::builder(few).http(transport).build().expect("it builds");
        let _client = runtime.openai("m").expect("a key");
        let stats = runtime.stats();
        let (_, limit) =
            stats.limits().find(|(_, limit)| limit.key == "llm.max_concurrency").expect("a limiter");
        assert_eq!(limit.limit, Some(expected));
    }
}

#[test]
fn the_upper_bound_of_the_concurrency_limit_can_be_changed_at_run_time() {
    let keyed = config(|config| config.llm.openai.api_key = Some(SENTINEL.into()));
    let runtime = Arshai::builder(keyed).http(transport(|_| ())).build().expect("it builds");
    let _client = runtime.openai("m").expect("a key");
    for max in [7, 12] {
        runtime.set_limits(Limits::unchanged().set("llm.max_concurrency", max)).expect("adjustable");
        let stats = runtime.stats();
        let limiter = stats.get("llm:m").expect("a limiter");
        assert_eq!((limiter.limits[0].limit, &limiter.counters["limit"]), (Some(max), &json!(max)));
    }
}
