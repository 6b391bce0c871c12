//! A custom agent, which sorts messages: cargo run --example custom_agent -- "My invoice is wrong"

use std::sync::Arc;

use arshai::agent::{Agent, AgentInput};
use arshai::async_trait;
use arshai::llm::{ChatRequest, LlmClient, Message};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Ticket {
    /// Which team should answer: billing, technical or sales.
    team: String,
    urgent: bool,
}

struct Triage(Arc<dyn LlmClient>);

#[async_trait]
impl Agent for Triage {
    type Output = Ticket;

    async fn process(&self, input: AgentInput) -> arshai::Result<Ticket> {
        let messages = vec![Message::system("Sort the customer's message."), Message::user(input.message)];
        self.0.chat(ChatRequest::new(messages).with_structure::<Ticket>()).await?.parse()
    }
}

#[tokio::main]
async fn main() -> arshai::Result<()> {
    let triage = Triage(arshai::Arshai::from_env()?.openai("gpt-4o-mini")?);
    let message = std::env::args().nth(1).unwrap_or_else(|| "My invoice is wrong".to_owned());
    let Ticket { team, urgent } = triage.process(AgentInput::new(message)).await?;
    println!("for {team}{}", if urgent { ", urgent" } else { "" });
    Ok(())
}
