//! The chat agent's loop.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arshai::agent::{Agent, AgentInput, ChatAgent};
use arshai::contract::doubles::{FailingMemory, ScriptedLlm};
use arshai::llm::{ChatRequest, ChatResponse, Message, ToolCall};
use arshai::tasks::{Function, Functions};
use arshai::{Arshai, Config, Error, ErrorKind};
use serde_json::{Value, json};

fn runtime() -> Arshai {
    Arshai::builder(Config::default()).build().expect("the defaults build")
}

fn agent(runtime: &Arshai, model: &Arc<ScriptedLlm>) -> ChatAgent {
    runtime.chat_agent(Arc::clone(model) as _, "be helpful")
}

fn echo() -> Function {
    Function::new("echo", |args: Value| async move { Ok::<_, std::io::Error>(args["say"].clone()) })
}

fn tool_messages(request: &ChatRequest) -> Vec<(&str, &str)> {
    fn tool(message: &Message) -> Option<(&str, &str)> {
        match message {
            Message::Tool { call_id, content, .. } => Some((call_id, content)),
            _ => None,
        }
    }
    request.messages.iter().filter_map(tool).collect()
}

#[tokio::test]
async fn every_tool_call_gets_exactly_one_answer_in_order() {
    let model = Arc::new(ScriptedLlm::new([
        Ok(ChatResponse::from_tool_calls(vec![
            ToolCall::new("1", "echo", r#"{"say": "one"}"#),
            ToolCall::new("2", "missing", "{}"),
            ToolCall::new("3", "echo", "not json"),
            ToolCall::new("4", "log", "{}"),
            ToolCall::new("1", "echo", r#"{"say": "again"}"#),
            ToolCall::new("5", "echo", ""),
        ])),
        Ok(ChatResponse::from_text("done")),
    ]));
    let runtime = runtime();
    let log = Function::new("log", |_: Value| async { Ok::<_, std::io::Error>(json!(null)) });
    let agent = agent(&runtime, &model)
        .with_functions(Functions::new().with(echo()))
        .with_background_tasks(Functions::new().with(log));
    let output = agent.process(AgentInput::new("hello")).await.expect("an answer");
    assert_eq!((output.text.as_str(), output.model_calls), ("done", 2));

    let requests = model.requests();
    let answers = tool_messages(&requests[1]);
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["1", "2", "3", "4", "1", "5"]);
    let texts: Vec<_> = answers.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts[0], "one");
    assert_eq!(texts[1], "Error: Function 'missing' not found in available functions");
    assert!(texts[2].contains("not a JSON object"), "{texts:?}");
    assert!(texts[3].contains("Background task 'log' initiated"), "{texts:?}");
    assert!(texts[4].starts_with("Error"), "a call id is run once: {texts:?}");
    assert_eq!(texts[5], "null");
}

#[tokio::test]
async fn the_model_is_offered_functions_and_background_tasks() {
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_text("hi"))]));
    let runtime = runtime();
    let both = Functions::new().with(echo());
    let agent = agent(&runtime, &model).with_functions(both.clone()).with_background_tasks(both);
    agent.process(AgentInput::new("hello")).await.expect("an answer");
    assert_eq!(model.requests()[0].tools.len(), 1, "one name is offered once");
}

#[tokio::test]
async fn a_conversation_is_remembered_from_turn_to_turn_and_apart_from_others() {
    let model = Arc::new(ScriptedLlm::new(
        ["Hello Ada", "You are Ada", "Who?"].map(|text| Ok(ChatResponse::from_text(text))),
    ));
    let runtime = runtime();
    let agent = agent(&runtime, &model);
    for (message, conversation) in [("I am Ada", "a"), ("who am I?", "a"), ("who am I?", "b")] {
        let input = AgentInput::new(message).in_conversation(conversation);
        assert_eq!(agent.process(input).await.expect("an answer").memory_error, None);
    }
    let requests = model.requests();
    let seen: Vec<_> = requests.iter().map(|request| &request.messages[1..]).collect();
    let [ada, hello, who] =
        [Message::user("I am Ada"), Message::assistant("Hello Ada"), Message::user("who am I?")];
    assert_eq!(seen, [&[ada.clone()][..], &[ada, hello, who.clone()], &[who]]);
}

#[tokio::test]
async fn a_model_that_never_stops_asking_for_tools_is_stopped() {
    let ask = || Ok(ChatResponse::from_tool_calls(vec![ToolCall::new("1", "echo", "{}")]));
    let model = Arc::new(ScriptedLlm::new((0..10).map(|_| ask())));
    let runtime = runtime();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let count = Function::new("echo", move |_: Value| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, std::io::Error>(Value::Null) }
    });
    let agent = agent(&runtime, &model).with_functions(Functions::new().with(count)).with_max_turns(3);
    let error = agent.process(AgentInput::new("hello")).await.expect_err("it never answers");
    assert!(error.message().contains("max_turns reached"), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(
        (model.requests().len(), calls.load(Ordering::SeqCst)),
        (3, 2),
        "the last results would not be read"
    );
}

#[tokio::test]
async fn memory_that_fails_does_not_lose_the_answer() {
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_text("still here"))]));
    let runtime = runtime();
    let agent = agent(&runtime, &model).with_memory(Arc::new(FailingMemory::new(ErrorKind::Unavailable)));
    let output = agent.process(AgentInput::new("hello").in_conversation("c")).await.expect("an answer");
    assert_eq!(output.text, "still here");
    assert!(output.memory_error.is_some());
}

#[tokio::test]
async fn a_failing_model_fails_the_turn() {
    let model = Arc::new(ScriptedLlm::new([Err(Error::new(ErrorKind::Overloaded, "test", "busy"))]));
    let runtime = runtime();
    let agent = agent(&runtime, &model);
    let error = agent.process(AgentInput::new("hello").in_conversation("c")).await.expect_err("busy");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn one_deadline_spans_the_turn() {
    let model = Arc::new(ScriptedLlm::new([
        Ok(ChatResponse::from_tool_calls(vec![ToolCall::new("1", "never", "{}")])),
        Ok(ChatResponse::from_text("it timed out")),
    ]));
    let runtime = runtime();
    let never = Function::new("never", |_: Value| std::future::pending::<Result<Value, std::io::Error>>())
        .with_timeout(Duration::from_secs(3600));
    let agent = agent(&runtime, &model)
        .with_functions(Functions::new().with(never))
        .with_timeout(Duration::from_secs(5));
    let began = tokio::time::Instant::now();
    agent.process(AgentInput::new("hello")).await.expect("the model gets the timeout");
    assert!(began.elapsed() < Duration::from_secs(6));
    let requests = model.requests();
    assert!(requests[1].deadline.is_some_and(|deadline| deadline.has_passed()));
    assert!(tool_messages(&requests[1])[0].1.starts_with("Error"));
}

#[tokio::test]
async fn dropping_the_turn_cancels_its_tools() {
    let running = Arc::new(AtomicUsize::new(0));
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let counter = Arc::clone(&running);
    let never = Function::new("never", move |_: Value| {
        counter.fetch_add(1, Ordering::SeqCst);
        let count = Count(Arc::clone(&counter));
        async move {
            let _count = count;
            std::future::pending::<Result<Value, std::io::Error>>().await
        }
    });
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_tool_calls(vec![ToolCall::new(
        "1", "never", "{}",
    )]))]));
    let runtime = runtime();
    let agent = agent(&runtime, &model).with_functions(Functions::new().with(never));
    let mut turn = agent.process(AgentInput::new("hello").in_conversation("c"));
    while running.load(Ordering::SeqCst) == 0 {
        poll_fn(|cx| {
            assert!(turn.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }
    drop(turn);
    while running.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unnamed_fields_and_request_settings_reach_the_next_model_call() {
    let mut asks = ChatResponse::from_tool_calls(vec![ToolCall::new("1", "echo", "{}")]);
    asks.message_extra.insert("reasoning_content".into(), json!("hm"));
    asks.tool_calls[0].extra.insert("extra_content".into(), json!({"google": {"thought_signature": "sig"}}));
    let expected = asks.to_message();
    let model = Arc::new(ScriptedLlm::new([Ok(asks), Ok(ChatResponse::from_text("done"))]));
    let runtime = runtime();
    let mut settings = ChatRequest::default().with_header("x-tenant", "a").with_extra("seed", 7);
    settings.temperature = Some(0.2);
    let agent = agent(&runtime, &model).with_functions(Functions::new().with(echo())).with_request(settings);
    agent.process(AgentInput::new("hello")).await.expect("an answer");
    let request = &model.requests()[1];
    assert!(request.messages.contains(&expected));
    assert_eq!((request.temperature, &request.extra_body["seed"]), (Some(0.2), &json!(7)));
    assert_eq!(request.extra_headers["x-tenant"], "a");
}
