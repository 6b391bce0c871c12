//! A transport of one's own: it answers without a network.

use arshai::{CloseReport, Component, LimitUsage, ShutdownPhase};
use std::borrow::Cow;
use std::sync::Arc;

use arshai::http::{HttpBody, HttpRequest, HttpResponse, HttpStats, HttpTransport};
use arshai::llm::{ChatRequest, Message};
use arshai::{Arshai, Config, Deadline, Health, Registry, Result};
use async_trait::async_trait;

#[derive(Debug)]
struct Canned;

#[async_trait]
impl Component for Canned {
    fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed("http")
    }

    fn shutdown_phase(&self) -> ShutdownPhase {
        ShutdownPhase::Transports
    }

    fn limits(&self) -> Vec<LimitUsage> {
        Vec::new()
    }

    async fn health(&self, _: Deadline) -> Health {
        Health::Healthy
    }

    async fn close(&self, _: Deadline) -> CloseReport {
        CloseReport::idle()
    }
}

#[async_trait]
impl HttpTransport for Canned {
    async fn send(&self, _: HttpRequest) -> Result<HttpResponse> {
        let body = r#"{"choices": [{"message": {"role": "assistant", "content": "canned"}}]}"#;
        Ok(HttpResponse {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: HttpBody::full(body),
        })
    }

    fn stats(&self) -> HttpStats {
        HttpStats::default()
    }
}

#[tokio::test]
async fn a_transport_written_outside_is_chosen_by_name_and_carries_the_model_clients() {
    let mut registry = Registry::builtin();
    registry.http.register("canned", |_| Ok(Arc::new(Canned)));
    let vars = [("ARSHAI_HTTP__BACKEND", "canned"), ("OPENAI_API_KEY", "sk-test")];
    let config = Config::from_vars(vars.map(|(name, value)| (name.into(), value.into()))).expect("valid");
    let runtime = Arshai::builder(config).registry(registry).build().expect("the name is known");
    let client = runtime.openai("any").expect("there are a transport and a key");
    let answer = client.chat(ChatRequest::new(vec![Message::user("hi")])).await.expect("an answer");
    assert_eq!(answer.content.as_deref(), Some("canned"));
}
