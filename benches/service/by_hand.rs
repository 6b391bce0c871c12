//! What one would write by hand: async-openai behind a semaphore, tools in a `JoinSet`, conversations in a map.

use std::collections::HashMap;
use std::sync::Arc;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls, ChatCompletionRequestAssistantMessageArgs,
    ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage, ChatCompletionRequestToolMessage,
    ChatCompletionRequestUserMessage, ChatCompletionResponseMessage, ChatCompletionTool, ChatCompletionTools,
    CreateChatCompletionRequest, FunctionObject,
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::case::Case;
use crate::{QUESTION, SYSTEM, parameters};

type Messages = Vec<ChatCompletionRequestMessage>;

#[derive(Clone)]
pub(crate) struct ByHand {
    client: Client<OpenAIConfig>,
    permits: Arc<Semaphore>,
    conversations: Arc<Mutex<HashMap<String, Messages>>>,
    tools: Vec<ChatCompletionTools>,
}

impl ByHand {
    pub(crate) fn new(case: &Case) -> Self {
        let config = OpenAIConfig::new().with_api_key("key").with_api_base(case.base_url());
        Self {
            client: Client::with_config(config),
            permits: Arc::new(Semaphore::new(case.max_connections())),
            conversations: Arc::default(),
            tools: vec![
                tool("weather", "The weather of a city", "city"),
                tool("clock", "The time in a zone", "zone"),
            ],
        }
    }

    pub(crate) async fn chat(&self) {
        let message = self.ask(new_conversation(), None).await;
        assert!(message.content.is_some());
    }

    pub(crate) async fn turn(&self, conversation: String) {
        let mut messages =
            self.conversations.lock().get(&conversation).cloned().unwrap_or_else(|| vec![system()]);
        messages.push(user());
        loop {
            let answer = self.ask(messages.clone(), Some(self.tools.clone())).await;
            let calls = answer.tool_calls.clone().unwrap_or_default();
            messages.push(said(answer));
            if calls.is_empty() {
                break;
            }
            messages.extend(run_tools(calls).await);
        }
        self.conversations.lock().insert(conversation, messages);
    }

    pub(crate) async fn stream(&self) -> usize {
        let _permit = self.permits.acquire().await.expect("it is open");
        let request = CreateChatCompletionRequest {
            model: "m".into(),
            messages: new_conversation(),
            ..Default::default()
        };
        let mut stream = self.client.chat().create_stream(request).await.expect("a stream");
        let mut tokens = 0;
        while let Some(event) = stream.next().await {
            let event = event.expect("an event");
            tokens += usize::from(event.choices.iter().any(|choice| choice.delta.content.is_some()));
        }
        tokens
    }

    async fn ask(
        &self,
        messages: Messages,
        tools: Option<Vec<ChatCompletionTools>>,
    ) -> ChatCompletionResponseMessage {
        let _permit = self.permits.acquire().await.expect("it is open");
        let request =
            CreateChatCompletionRequest { model: "m".into(), messages, tools, ..Default::default() };
        let response = self.client.chat().create(request).await.expect("a response");
        response.choices.into_iter().next().expect("a choice").message
    }
}

fn new_conversation() -> Messages {
    vec![system(), user()]
}

fn system() -> ChatCompletionRequestMessage {
    ChatCompletionRequestSystemMessage::from(SYSTEM).into()
}

fn user() -> ChatCompletionRequestMessage {
    ChatCompletionRequestUserMessage::from(QUESTION).into()
}

fn said(message: ChatCompletionResponseMessage) -> ChatCompletionRequestMessage {
    let mut said = ChatCompletionRequestAssistantMessageArgs::default();
    if let Some(text) = message.content {
        said.content(text);
    }
    if let Some(calls) = message.tool_calls {
        said.tool_calls(calls);
    }
    said.build().expect("a message").into()
}

/// The results, in the order of the calls.
async fn run_tools(calls: Vec<ChatCompletionMessageToolCalls>) -> Messages {
    let mut running = JoinSet::new();
    for (at, call) in calls.into_iter().enumerate() {
        running.spawn(async move {
            let ChatCompletionMessageToolCalls::Function(call) = call else { panic!("a function") };
            (at, call.id.clone(), run_tool(call).await)
        });
    }
    let mut results = running.join_all().await;
    results.sort_by_key(|(at, ..)| *at);
    let message = |(_, tool_call_id, result): (usize, String, Value)| {
        ChatCompletionRequestToolMessage { tool_call_id, content: result.to_string().into() }.into()
    };
    results.into_iter().map(message).collect()
}

async fn run_tool(call: ChatCompletionMessageToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.function.arguments).expect("JSON");
    match &*call.function.name {
        "weather" => json!({"city": arguments["city"], "answer": "fine"}),
        "clock" => json!({"zone": arguments["zone"], "answer": "noon"}),
        name => panic!("no tool {name}"),
    }
}

fn tool(name: &str, description: &str, argument: &str) -> ChatCompletionTools {
    ChatCompletionTools::Function(ChatCompletionTool {
        function: FunctionObject {
            name: name.into(),
            description: Some(description.into()),
            parameters: Some(parameters(argument)),
            strict: None,
        },
    })
}
