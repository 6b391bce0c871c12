//! arshai, as its guide says.

use std::sync::Arc;

use arshai::agent::{Agent, AgentInput, ChatAgent};
use arshai::llm::{ChatEvent, ChatRequest, LlmClient, Message};
use arshai::tasks::{Function, FunctionError, Functions};
use arshai::{Arshai, Config};
use serde_json::{Value, json};

use crate::case::Case;
use crate::{QUESTION, SYSTEM};

/// A runtime, a client and an agent.
#[derive(Clone)]
pub(crate) struct Ours {
    agent: Arc<ChatAgent>,
    client: Arc<dyn LlmClient>,
    _runtime: Arshai,
}

impl Ours {
    pub(crate) fn new(case: &Case, backend: &str) -> Self {
        let mut config = Config::default();
        config.http.backend = backend.to_owned();
        config.pool.max_connections = case.max_connections();
        config.llm.max_concurrency = case.max_connections();
        config.llm.openai.api_key = Some("key".into());
        config.llm.openai.base_url = Some(case.base_url());
        let runtime = Arshai::builder(config).build().expect("valid settings");
        let client = runtime.openai("m").expect("valid settings");
        let functions = Functions::new()
            .with(function("weather", "The weather of a city", "city", "fine"))
            .with(function("clock", "The time in a zone", "zone", "noon"));
        let agent = runtime.chat_agent(Arc::clone(&client), SYSTEM).with_functions(functions);
        Self { agent: Arc::new(agent), client, _runtime: runtime }
    }

    pub(crate) async fn chat(&self) {
        let response = self.client.chat(request()).await.expect("a response");
        assert!(response.content.is_some());
    }

    pub(crate) async fn turn(&self, conversation: String) {
        let input = AgentInput::new(QUESTION).in_conversation(conversation);
        let output = self.agent.process(input).await.expect("an answer");
        assert_eq!((output.model_calls, output.tool_results.len()), (2, 1));
    }

    pub(crate) async fn stream(&self) -> usize {
        let mut stream = self.client.stream(request()).await.expect("a stream");
        let mut tokens = 0;
        while let Some(event) = stream.next().await.expect("an event") {
            tokens += usize::from(matches!(event, ChatEvent::Text(_)));
        }
        tokens
    }
}

fn request() -> ChatRequest {
    ChatRequest::new(vec![Message::system(SYSTEM), Message::user(QUESTION)])
}

fn function(
    name: &'static str,
    description: &'static str,
    argument: &'static str,
    answer: &'static str,
) -> Function {
    Function::new(name, move |arguments: Value| async move {
        Ok::<_, FunctionError>(json!({argument: arguments[argument], "answer": answer}))
    })
    .with_description(description)
    .with_parameters(crate::parameters(argument))
}
