//! The agent that rewrites a conversation's working memory.

use std::sync::Arc;

use arshai::agent::{Agent, AgentInput, WorkingMemoryAgent};
use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{ChatResponse, Message};
use arshai::memory::MemoryInput;
use arshai::{Arshai, Config, ErrorKind};

fn scripted(answers: &[&str]) -> (Arshai, Arc<ScriptedLlm>, WorkingMemoryAgent) {
    let runtime = Arshai::builder(Config::default()).build().expect("the defaults build");
    let model = Arc::new(ScriptedLlm::new(
        answers.iter().map(|text| Ok(ChatResponse::from_text(*text))).collect::<Vec<_>>(),
    ));
    let agent = WorkingMemoryAgent::new(Arc::clone(&model) as _, Arc::clone(runtime.memory()));
    (runtime, model, agent)
}

#[tokio::test]
async fn the_model_reads_the_memory_so_far_and_what_it_writes_is_stored() {
    let (runtime, model, agent) = scripted(&["  first memory \n", "second memory"]);
    for message in ["asked about prices", "asked about delivery"] {
        agent.process(AgentInput::new(message).in_conversation("c")).await.expect("rewritten");
    }
    let stored = runtime.memory().retrieve(&MemoryInput::working_memory("c")).await.expect("retrieved");
    assert_eq!(stored[0].as_str(), "second memory");
    let requests = model.requests();
    let Message::User { content, .. } = &requests[1].messages[1] else { panic!("a question") };
    assert!(content.contains("first memory") && content.contains("asked about delivery"), "{content}");
}

#[tokio::test]
async fn an_empty_answer_leaves_the_memory_as_it_was() {
    let (runtime, _, agent) = scripted(&["kept", "   "]);
    agent.process(AgentInput::new("x").in_conversation("c")).await.expect("rewritten");
    let error =
        agent.process(AgentInput::new("y").in_conversation("c")).await.expect_err("nothing was written");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let stored = runtime.memory().retrieve(&MemoryInput::working_memory("c")).await.expect("retrieved");
    assert_eq!(stored[0].as_str(), "kept");
}

#[tokio::test]
async fn without_a_conversation_there_is_nothing_to_remember() {
    let (_, model, agent) = scripted(&["x"]);
    let error = agent.process(AgentInput::new("x")).await.expect_err("no conversation");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(model.requests().is_empty());
}
