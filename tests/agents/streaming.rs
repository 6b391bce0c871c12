//! The chat agent's loop while the model streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arshai::agent::{AgentEvent, AgentInput, AgentOutput, AgentStream, ChatAgent};
use arshai::contract::doubles::ScriptedLlm;
use arshai::llm::{ArgumentError, ChatEvent, ChatResponse, ChatStream, Message, ToolCall, Usage};
use arshai::memory::MemoryInput;
use arshai::tasks::{FailureKind, Function, FunctionOutcome, Functions};
use arshai::{Arshai, Config, Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

fn runtime() -> Arshai {
    Arshai::builder(Config::default()).build().expect("the defaults build")
}

fn agent(runtime: &Arshai, model: &Arc<ScriptedLlm>, functions: Functions) -> ChatAgent {
    runtime.chat_agent(Arc::clone(model) as _, "be helpful").with_functions(functions)
}

/// A model that streams `events` and then answers "done".
fn model(events: Vec<Result<ChatEvent>>) -> Arc<ScriptedLlm> {
    let done = ChatResponse::from_text("done");
    Arc::new(ScriptedLlm::new([Ok(done)]).with_streams([ChatStream::new(stream::iter(events))]))
}

/// A stream whose events the test sends.
fn by_hand() -> (mpsc::UnboundedSender<Result<ChatEvent>>, ChatStream) {
    let (sender, events) = mpsc::unbounded_channel();
    let next =
        |mut events: mpsc::UnboundedReceiver<_>| async { events.recv().await.map(|event| (event, events)) };
    (sender, ChatStream::new(stream::unfold(events, next)))
}

fn started(index: usize, id: &str, name: &str) -> Result<ChatEvent> {
    Ok(ChatEvent::ToolCallStarted { index, call_id: id.into(), name: name.into() })
}

fn call(index: usize, id: &str, name: &str, arguments: &str) -> [Result<ChatEvent>; 2] {
    let call = ToolCall::new(id, name, arguments);
    [started(index, id, name), Ok(ChatEvent::ToolCall { index, call })]
}

fn finished(reason: &str) -> Result<ChatEvent> {
    Ok(ChatEvent::Finished { reason: reason.into() })
}

/// Counts how often it is called and answers with what it was asked to say.
fn echo(count: &Arc<AtomicUsize>) -> Function {
    let count = Arc::clone(count);
    Function::new("echo", move |args: Value| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, std::io::Error>(args["say"].clone()) }
    })
}

/// Reads a turn to its end: its text, and its output or error.
async fn read(mut turn: AgentStream) -> (Vec<String>, Result<AgentOutput>) {
    let mut seen = Vec::new();
    loop {
        match turn.next().await {
            Ok(Some(AgentEvent::Finished(output))) => {
                assert!(turn.next().await.expect("nothing more").is_none());
                return (seen, Ok(output));
            }
            Ok(Some(AgentEvent::Text(text))) => seen.push(text),
            Ok(Some(AgentEvent::ToolStarted { name, .. })) => seen.push(format!("[{name}")),
            Ok(Some(AgentEvent::ToolEnded { name, error, .. })) => {
                seen.push(format!("{name}{}]", if error.is_some() { "!" } else { "" }));
            }
            Ok(event) => panic!("{event:?}"),
            Err(error) => return (seen, Err(error)),
        }
    }
}

fn failures(output: &AgentOutput) -> Vec<FailureKind> {
    let kind = |outcome: &FunctionOutcome| match outcome {
        FunctionOutcome::Failed(failure) => Some(failure.kind),
        _ => None,
    };
    output.tool_results.iter().flatten().filter_map(kind).collect()
}

fn answers(model: &ScriptedLlm, request: usize) -> Vec<(String, String)> {
    let tool = |message: &Message| match message {
        Message::Tool { call_id, content, .. } => Some((call_id.clone(), content.clone())),
        _ => None,
    };
    model.requests()[request].messages.iter().filter_map(tool).collect()
}

#[tokio::test]
async fn a_turn_streams_its_text_runs_its_tools_and_is_saved_in_memory() {
    let mut events = vec![Ok(ChatEvent::Text("let me ".into())), Ok(ChatEvent::Text("see".into()))];
    events.extend(call(0, "1", "echo", r#"{"say": "one"}"#));
    events.extend(call(1, "2", "echo", r#"{"say": "two"}"#));
    events.extend([Ok(ChatEvent::Usage(Usage::new(5, 2))), finished("tool_calls")]);
    let (model, runtime) = (model(events), runtime());
    let agent = agent(&runtime, &model, Functions::new().with(echo(&Arc::default())));
    let (seen, output) = read(agent.stream(AgentInput::new("hello").in_conversation("c"))).await;
    assert_eq!(seen, ["let me ", "see", "[echo", "[echo", "echo]", "echo]", "done"]);
    let output = output.expect("an answer");
    assert_eq!((output.text.as_str(), output.model_calls, output.usage), ("done", 2, Usage::new(5, 2)));
    let expected = [("1", "one"), ("2", "two")].map(|(id, text)| (id.to_owned(), text.to_owned()));
    assert_eq!(answers(&model, 1), expected);
    let memory = runtime.memory().retrieve(&MemoryInput::working_memory("c")).await.expect("retrieved");
    assert!(memory[0].as_str().contains(r#""content":"done""#), "{}", memory[0].as_str());
}

#[tokio::test]
async fn a_call_starts_while_the_model_still_streams_unless_it_asks_to_wait() {
    let (sender, stream) = by_hand();
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_text("done"))]).with_streams([stream]));
    let (ran, mut runs) = mpsc::unbounded_channel();
    let notify = |name: &'static str| {
        let ran = ran.clone();
        Function::new(name, move |_: Value| {
            ran.send(name).expect("the test listens");
            async { Ok::<_, std::io::Error>(Value::Null) }
        })
    };
    let functions = Functions::new().with(notify("now")).with(notify("later").with_deferred_start());
    let runtime = runtime();
    let mut turn = agent(&runtime, &model, functions).stream(AgentInput::new("hello"));
    for event in call(0, "1", "later", "{}").into_iter().chain(call(1, "2", "now", "{}")) {
        sender.send(event).expect("it is read");
    }
    // The model is not done, and only the call that need not wait runs.
    assert!(matches!(turn.next().await, Ok(Some(AgentEvent::ToolStarted { name, .. })) if name == "now"));
    assert_eq!(runs.recv().await, Some("now"));
    assert!(runs.try_recv().is_err());
    sender.send(finished("tool_calls")).expect("it is read");
    let (seen, output) = read(turn).await;
    assert_eq!(seen[0], "[later");
    output.expect("an answer");
    assert_eq!(runs.recv().await, Some("later"));
    assert_eq!(answers(&model, 1).iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn the_end_of_a_tool_is_reported_while_the_model_still_streams() {
    let (sender, stream) = by_hand();
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_text("done"))]).with_streams([stream]));
    let runtime = runtime();
    let mut turn = agent(&runtime, &model, Functions::new().with(echo(&Arc::default())))
        .stream(AgentInput::new("hello"));
    for event in call(0, "1", "echo", r#"{"say": "one"}"#) {
        sender.send(event).expect("it is read");
    }
    assert!(matches!(turn.next().await, Ok(Some(AgentEvent::ToolStarted { .. }))));
    assert!(matches!(turn.next().await, Ok(Some(AgentEvent::ToolEnded { error: None, .. }))));
    sender.send(finished("tool_calls")).expect("it is read");
    let (seen, output) = read(turn).await;
    assert_eq!((seen, output.expect("an answer").text.as_str()), (vec!["done".to_owned()], "done"));
    assert_eq!(answers(&model, 1), [("1".to_owned(), "one".to_owned())]);
}

#[tokio::test]
async fn call_ids_are_unique_within_one_response_only() {
    let twice: Vec<_> = call(0, "1", "echo", "{}")
        .into_iter()
        .chain(call(1, "1", "echo", "{}"))
        .chain([finished("tool_calls")])
        .collect();
    let again: Vec<_> = call(0, "1", "echo", "{}").into_iter().chain([finished("tool_calls")]).collect();
    let streams = [twice, again].map(|events| ChatStream::new(stream::iter(events)));
    let model = Arc::new(ScriptedLlm::new([Ok(ChatResponse::from_text("done"))]).with_streams(streams));
    let (runtime, count) = (runtime(), Arc::default());
    let agent = agent(&runtime, &model, Functions::new().with(echo(&count)));
    let output = read(agent.stream(AgentInput::new("hello"))).await.1.expect("an answer");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(failures(&output), [FailureKind::DuplicateCallId]);
    assert_eq!(answers(&model, 2).len(), 3, "every call is answered");
}

#[tokio::test]
async fn calls_with_invalid_arguments_are_answered_and_not_run() {
    let truncated = ChatEvent::ToolCallFailed {
        index: 0,
        call: ToolCall::new("1", "echo", "{\"say\": \"o"),
        error: ArgumentError::Truncated,
    };
    let (model, runtime) =
        (model(vec![started(0, "1", "echo"), Ok(truncated), finished("length")]), runtime());
    let count = Arc::default();
    let agent = agent(&runtime, &model, Functions::new().with(echo(&count)));
    let output = read(agent.stream(AgentInput::new("hello"))).await.1.expect("an answer");
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_eq!(failures(&output), [FailureKind::BadArguments]);
    assert!(answers(&model, 1)[0].1.contains("truncated inside the arguments"), "{:?}", answers(&model, 1));
}

#[tokio::test]
async fn a_stream_that_fails_cancels_the_started_tools_and_names_them() {
    let (began, mut begun) = mpsc::unbounded_channel();
    let never = Function::new("never", move |_: Value| {
        let (held, released) = oneshot::channel::<()>();
        began.send(released).expect("the test listens");
        async move {
            let _held = held;
            std::future::pending::<Result<Value, std::io::Error>>().await
        }
    });
    let logged = Arc::new(AtomicUsize::new(0));
    let log = {
        let logged = Arc::clone(&logged);
        Function::new("log", move |_: Value| {
            logged.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, std::io::Error>(json!(null)) }
        })
    };
    let (sender, stream) = by_hand();
    let model = Arc::new(ScriptedLlm::new([]).with_streams([stream]));
    let runtime = runtime();
    let mut turn = agent(&runtime, &model, Functions::new().with(never))
        .with_background_tasks(Functions::new().with(log))
        .stream(AgentInput::new("hello").in_conversation("c"));
    for event in call(0, "1", "never", "{}").into_iter().chain(call(1, "2", "log", "{}")) {
        sender.send(event).expect("it is read");
    }
    assert!(matches!(turn.next().await, Ok(Some(AgentEvent::ToolStarted { name, .. })) if name == "never"));
    let released = begun.recv().await.expect("it began");
    sender.send(Err(Error::new(ErrorKind::Transport, "test", "the connection broke"))).expect("it is read");
    let (seen, output) = read(turn).await;
    let error = output.expect_err("the stream broke");
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.context().any(|fact| fact == ("tools_started", "never log")), "{error}");
    assert_eq!(seen, ["[log"]);
    released.await.expect_err("its sender was dropped with the call");
    runtime.tasks().wait_for_background_tasks(None).await;
    assert_eq!(logged.load(Ordering::SeqCst), 1, "a background task is not cancelled with the turn");
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn a_stream_without_an_end_is_an_error() {
    let (model, runtime) = (model(vec![Ok(ChatEvent::Text("half".into()))]), runtime());
    let (seen, output) =
        read(agent(&runtime, &model, Functions::new()).stream(AgentInput::new("hello"))).await;
    assert_eq!(seen, ["half"]);
    assert_eq!(output.expect_err("it has no end").kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_model_that_never_stops_asking_for_tools_is_stopped() {
    let streams = (0..5).map(|n: usize| {
        let events = call(0, &n.to_string(), "echo", "{}").into_iter().chain([finished("tool_calls")]);
        ChatStream::new(stream::iter(events.collect::<Vec<_>>()))
    });
    let model = Arc::new(ScriptedLlm::new([]).with_streams(streams));
    let runtime = runtime();
    let agent = agent(&runtime, &model, Functions::new().with(echo(&Arc::default()))).with_max_turns(3);
    let error = read(agent.stream(AgentInput::new("hello"))).await.1.expect_err("it never answers");
    assert!(error.message().contains("max_turns reached"), "{error}");
    assert_eq!(model.requests().len(), 3);
}

#[tokio::test]
async fn dropping_the_turn_drops_the_models_stream_and_its_tools() {
    let (sender, stream) = by_hand();
    let model = Arc::new(ScriptedLlm::new([]).with_streams([stream]));
    let (began, mut begun) = mpsc::unbounded_channel();
    let never = Function::new("never", move |_: Value| {
        let (held, released) = oneshot::channel::<()>();
        began.send(released).expect("the test listens");
        async move {
            let _held = held;
            std::future::pending::<Result<Value, std::io::Error>>().await
        }
    });
    let runtime = runtime();
    let mut turn = agent(&runtime, &model, Functions::new().with(never)).stream(AgentInput::new("hello"));
    for event in call(0, "1", "never", "{}") {
        sender.send(event).expect("it is read");
    }
    assert!(matches!(turn.next().await, Ok(Some(AgentEvent::ToolStarted { .. }))));
    let released = begun.recv().await.expect("it began");
    drop(turn);
    assert!(sender.is_closed(), "the model's stream is gone");
    released.await.expect_err("its sender was dropped with the call");
}

#[tokio::test(start_paused = true)]
async fn one_deadline_spans_a_streamed_turn() {
    let silent = ChatStream::new(stream::pending());
    let model = Arc::new(ScriptedLlm::new([]).with_streams([silent]));
    let runtime = runtime();
    let agent = agent(&runtime, &model, Functions::new()).with_timeout(Duration::from_secs(5));
    let began = tokio::time::Instant::now();
    let error = read(agent.stream(AgentInput::new("hello"))).await.1.expect_err("the model is silent");
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_secs(5)));
}

#[tokio::test]
async fn a_slow_reader_delays_the_model_and_buffers_little() {
    let (sender, stream) = by_hand();
    let model = Arc::new(ScriptedLlm::new([]).with_streams([stream]));
    let runtime = runtime();
    let mut turn = agent(&runtime, &model, Functions::new()).stream(AgentInput::new("hello"));
    for n in 0..10_000 {
        sender.send(Ok(ChatEvent::Text(n.to_string()))).expect("it is read");
    }
    sender.send(finished("stop")).expect("it is read");
    let first: Vec<_> = turn.by_ref().take(3).collect().await;
    assert_eq!(first.len(), 3);
    let (seen, output) = read(turn).await;
    assert_eq!((seen.len(), output.expect("an answer").text.len()), (9_997, 38_890));
}
